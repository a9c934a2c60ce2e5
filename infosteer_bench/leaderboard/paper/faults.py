"""What is wrong with the paper's numbers, computed from the numbers themselves wherever that can be.

Shown beside every comparison with them (reproduction.py) and on the board of reported numbers (paper.py), so that a
number is never taken for more than it is. What the text of the paper states, and its tables do not hold, is given here
as a constant with its place.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from infosteer_bench.benchmark import PAPER_MODELS
from infosteer_bench.leaderboard.store.reported import (
    Reported,
    Unnamed,
    commonsense_numbers,
    other_numbers,
    paper_models,
)

STEERED = "infosteer-"
LAYERS = {row.id: row.shape.layers for row in PAPER_MODELS.values() if row.shape is not None}
ELSEWHERE = {("Llama-3-8B", "sft", "hellaswag"): 95.5}
"""Tables 6 and 7 print Table 1's rows of plain fine-tuning once more; this one with another number."""
MATH_TYPE, GSM8K = (3, "math"), (4, "gsm8k_id")


@dataclass(frozen=True)
class Fault:
    """where: tables of the paper; what: in a sentence; cells: the numbers that show it, one a line."""

    where: str
    what: str
    cells: tuple[str, ...] = field(default=())


def find_faults(
    numbers: Iterable[Reported] | None = None, others: Iterable[Unnamed] | None = None
) -> tuple[Fault, ...]:
    """All known faults; of the package's numbers where none are given."""
    found = tuple(commonsense_numbers() if numbers is None else numbers)
    other = tuple(other_numbers() if others is None else others)
    return tuple(
        fault
        for fault in (
            _not_better(found, (1,)),
            _not_better(found, (6, 7)),
            *_printed_twice(found),
            _not_better_by_type(other),
            _unnamed(other),
            _no_such_average(found, other),
            _layers(other),
            _math_is_gsm8k(other),
            Fault("Table 4", "The mean over data sets out of distribution leaves AQuA out, without a reason."),
            Fault("Everywhere", "No test of significance; three runs were averaged, and the tables hold no spread."),
            Fault("Everywhere", "No figure says what a method costs in time or memory."),
            Fault("Everywhere", "Strengths were chosen on data that the paper does not name."),
        )
        if fault is not None
    )


def not_better(numbers: Iterable[Reported]) -> list[tuple[Reported, float]]:
    """Steered cells at or below plain fine-tuning of the same model and task, each with the latter's accuracy."""
    every = tuple(numbers)
    plain = {(one.model, one.task): one.accuracy for one in every if one.method == "sft"}
    return [
        (one, plain[one.model, one.task])
        for one in every
        if one.method.startswith(STEERED) and one.accuracy <= plain.get((one.model, one.task), -math.inf)
    ]


def _not_better(numbers: tuple[Reported, ...], tables: tuple[int, ...]) -> Fault | None:
    steered = [one for one in numbers if one.table in tables and one.method.startswith(STEERED)]
    found = [(one, plain) for one, plain in not_better(numbers) if one.table in tables]
    if not found:
        return None
    return Fault(
        _tables(tables),
        f"{len(found)} of {len(steered)} steered cells do not beat plain fine-tuning"
        + (", although the text says that all do." if tables == (1,) else "."),
        tuple(
            f"{one.model}, {one.method}, {one.task}: {one.accuracy:.1f}, plain fine-tuning {plain:.1f}"
            for one, plain in found
        ),
    )


def _printed_twice(numbers: tuple[Reported, ...]) -> list[Fault]:
    """Numbers that the paper gives twice, differently; and which cells beat one of them only."""
    found: list[Fault] = []
    for one in numbers:
        again = ELSEWHERE.get((one.model, one.method, one.task))
        if again is None or again == one.accuracy:
            continue
        low, high = sorted((one.accuracy, again))
        between = [
            f"{other.method} (Table {other.table}): {other.accuracy:.1f}"
            for other in numbers
            if (other.model, other.task) == (one.model, one.task) and low < other.accuracy <= high
        ]
        consequence = f" {len(between)} steered cell(s) beat the lower number only." if between else ""
        found.append(
            Fault(
                "Tables 1, 6, 7",
                f"{one.model} {one.method} on {one.task} is {one.accuracy:.1f} in Table {one.table} and {again:.1f} in "
                f"Tables 6 and 7.{consequence}",
                tuple(between),
            )
        )
    return found


def _not_better_by_type(others: tuple[Unnamed, ...]) -> Fault | None:
    of_table = {(one.configuration, one.column): one.accuracy for one in others if one.table == MATH_TYPE[0]}
    steered = [key for key in of_table if key[0].startswith(STEERED) and ("sft", key[1]) in of_table]
    found = [(method, column) for method, column in steered if of_table[method, column] <= of_table["sft", column]]
    if not found:
        return None
    return Fault(
        "Table 3",
        f"{len(found)} of {len(steered)} steered cells do not beat plain fine-tuning.",
        tuple(
            f"{method}, {column}: {of_table[method, column]:.1f}, plain fine-tuning {of_table['sft', column]:.1f}"
            for method, column in found
        ),
    )


def _unnamed(others: tuple[Unnamed, ...]) -> Fault:
    tables = tuple(sorted({one.table for one in others}))
    return Fault(_tables(tables), "The model behind these tables is not named, so none of their numbers can be redone.")


def _no_such_average(numbers: tuple[Reported, ...], others: tuple[Unnamed, ...]) -> Fault | None:
    """Averages of unnamed models that are none of the averages of the named ones."""
    lines: list[str] = []
    given = {one.configuration: one for one in others if one.column == "average_accuracy"}
    for method in ("base", "sft"):
        means = sorted(averages(numbers, method).values())
        if method in given and means and not any(abs(mean - given[method].accuracy) < 0.06 for mean in means):
            lines.append(f"{method}: {given[method].accuracy:.1f}; Table 1's six are {means[0]:.1f} to {means[-1]:.1f}")
    if not lines:
        return None
    return Fault(
        "Tables 2, 8",
        "Their average accuracies are those of none of Table 1's models over its eight tasks.",
        tuple(lines),
    )


def averages(numbers: Iterable[Reported], method: str) -> dict[str, float]:
    """By model: the mean over its tasks of a method's numbers."""
    by_model: dict[str, list[float]] = {}
    for one in numbers:
        if one.method == method:
            by_model.setdefault(one.model, []).append(one.accuracy)
    return {model: math.fsum(values) / len(values) for model, values in by_model.items()}


def _layers(others: tuple[Unnamed, ...]) -> Fault | None:
    ends = [int(end) for one in others if one.table == 8 for end in re.findall(r"\d+-(\d+)", one.configuration)]
    if not ends or max(ends) in LAYERS.values():
        return None
    names = {row.id: name for name, row in paper_models().items()}
    return Fault(
        "Table 8",
        f"It speaks of {max(ends)} layers; none of the paper's six models has as many.",
        (", ".join(f"{names[model]}: {count}" for model, count in LAYERS.items()),),
    )


def _math_is_gsm8k(others: tuple[Unnamed, ...]) -> Fault | None:
    """Which tasks are in Table 3's types is not said; one of them gives itself away."""
    columns = [
        {one.configuration: one.accuracy for one in others if (one.table, one.column) == place}
        for place in (MATH_TYPE, GSM8K)
    ]
    if not columns[0] or columns[0] != columns[1]:
        return None
    return Fault(
        "Tables 3, 4",
        "Which tasks are in Table 3's five types is not said. Its math column equals Table 4's GSM8K column in all "
        f"{len(columns[0])} rows, so that type seems to be GSM8K alone.",
    )


def fault_lines(faults: Iterable[Fault]) -> list[str]:
    """The faults as a Markdown list."""
    lines: list[str] = []
    for fault in faults:
        lines.append(f"- **{fault.where}.** {fault.what}")
        lines += [f"    - {cell}" for cell in fault.cells]
    return lines


def _tables(numbers: tuple[int, ...]) -> str:
    return ("Table " if len(numbers) == 1 else "Tables ") + ", ".join(map(str, numbers))
