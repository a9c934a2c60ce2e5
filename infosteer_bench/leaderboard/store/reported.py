"""The paper's own numbers, for the `reported` column: shown beside ours, never mixed into them.

`reported/reported_commonsense.csv` holds Tables 1, 6 and 7, `reported/reported_other.csv` Tables 2, 3, 4 and 8.
The models of the latter four are unnamed in the paper, so they match no row of a board.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from infosteer_bench.benchmark import PAPER_MODELS, ModelRow

REPORTED_DIR = Path(__file__).parent / "reported"
COMMONSENSE_FILE = "reported_commonsense.csv"
OTHER_FILE = "reported_other.csv"
PAPER_MIX = "commonsense"  # what the checkpoints behind Tables 1, 6 and 7 were trained on


@dataclass(frozen=True)
class Reported:
    """One accuracy of Tables 1, 6 and 7, in percent, under the paper's name of the model."""

    table: int
    model: str
    method: str
    task: str
    accuracy: float


@dataclass(frozen=True)
class Unnamed:
    """One accuracy of Tables 2, 3, 4 and 8, in percent; which model it is of the paper does not say."""

    table: int
    configuration: str
    column: str
    accuracy: float


@cache
def commonsense_numbers() -> tuple[Reported, ...]:
    """Tables 1, 6 and 7 in the order of the file."""
    with open(REPORTED_DIR / COMMONSENSE_FILE, encoding="utf-8", newline="") as handle:
        return tuple(
            Reported(int(row["paper_table"]), row["model"], row["method"], row["task"], float(row["accuracy"]))
            for row in csv.DictReader(handle)
        )


@cache
def other_numbers() -> tuple[Unnamed, ...]:
    """Tables 2, 3, 4 and 8 in the order of the file."""
    with open(REPORTED_DIR / OTHER_FILE, encoding="utf-8", newline="") as handle:
        return tuple(
            Unnamed(int(row["paper_table"]), row["configuration"], row["column"], float(row["value"]))
            for row in csv.DictReader(handle)
        )


def paper_models() -> dict[str, ModelRow]:
    """The paper's models by the names that its tables use."""
    return {row.paper_name: row for row in PAPER_MODELS.values() if row.paper_name}


@cache
def _commonsense() -> dict[tuple[str, str, str], float]:
    return {(one.model, one.method, one.task): one.accuracy for one in commonsense_numbers()}


@cache
def _paper_names() -> dict[str, str]:
    """Catalog ids and hub ids of the paper's models, to the names its tables use."""
    return {key: name for name, row in paper_models().items() for key in (row.id, row.hub_id) if key}


def reported(*, model: str, method: str, arm: str, mix: str | None, task: str) -> float | None:
    """The paper's accuracy in percent for this row, or None where it reports none (other arms and mixes included)."""
    if arm or mix not in (None, PAPER_MIX):
        return None
    return _commonsense().get((_paper_names().get(model, ""), method, task))
