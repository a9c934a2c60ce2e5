"""The paper's own numbers, for the `reported` column: shown beside ours, never mixed into them.

`reported/reported_commonsense.csv` holds Tables 1, 6 and 7, `reported/reported_other.csv` Tables 2, 3, 4 and 8.
The models of the latter four are unnamed in the paper, so they match no row of a board.
"""

from __future__ import annotations

import csv
from functools import cache
from pathlib import Path

from infosteer_bench.models.catalog import CATALOG

REPORTED_DIR = Path(__file__).parent / "reported"
PAPER_MIX = "commonsense"  # what the checkpoints behind Tables 1, 6 and 7 were trained on


@cache
def _commonsense() -> dict[tuple[str, str, str], float]:
    with open(REPORTED_DIR / "reported_commonsense.csv", encoding="utf-8", newline="") as handle:
        return {(row["model"], row["method"], row["task"]): float(row["accuracy"]) for row in csv.DictReader(handle)}


@cache
def _paper_names() -> dict[str, str]:
    """Catalog ids and hub ids of the paper's models, to the names its tables use."""
    return {key: row.paper_name for row in CATALOG.values() if row.paper_name for key in (row.id, row.hub_id) if key}


def reported(*, model: str, method: str, arm: str, mix: str | None, task: str) -> float | None:
    """The paper's accuracy in percent for this row, or None where it reports none (other arms and mixes included)."""
    if arm or mix not in (None, PAPER_MIX):
        return None
    return _commonsense().get((_paper_names().get(model, ""), method, task))
