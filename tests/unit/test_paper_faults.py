"""The table of the paper's faults: each that follows from the two files of its numbers is computed from them again."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import replace

import pytest

from infosteer_bench.benchmark import PAPER_MODELS
from infosteer_bench.leaderboard.paper.faults import FAULTS, Fault, fault_lines
from infosteer_bench.leaderboard.store.reported import (
    Reported,
    Unnamed,
    commonsense_numbers,
    other_numbers,
    paper_models,
)

NUMBERS, OTHERS = commonsense_numbers(), other_numbers()
LAYERS = {row.id: row.shape.layers for row in PAPER_MODELS.values() if row.shape is not None}
ELSEWHERE = {("Llama-3-8B", "sft", "hellaswag"): 95.5}
"""Tables 6 and 7 print Table 1's rows of plain fine-tuning once more; this one with another number."""


def steered(name: str) -> bool:
    return name.startswith("infosteer-")


def not_better(numbers: Iterable[Reported], *tables: int) -> Fault:
    """Steered cells at or below plain fine-tuning of the same model and task."""
    every = tuple(numbers)
    plain = {(one.model, one.task): one.accuracy for one in every if one.method == "sft"}
    own = [one for one in every if one.table in tables and steered(one.method)]
    cells = tuple(
        f"{one.model}, {one.method}, {one.task}: {one.accuracy:.1f}, plain fine-tuning {plain[one.model, one.task]:.1f}"
        for one in own
        if one.accuracy <= plain[one.model, one.task]
    )
    what = f"{len(cells)} of {len(own)} steered cells do not beat plain fine-tuning"
    where = ("Table " if len(tables) == 1 else "Tables ") + ", ".join(map(str, tables))
    return Fault(where, what + (", although the text says that all do." if tables == (1,) else "."), cells)


def printed_twice(numbers: Iterable[Reported]) -> Fault:
    """A number that the paper gives twice, differently; no steered cell lies between the two."""
    every = tuple(numbers)
    ((key, again),) = ELSEWHERE.items()
    (one,) = [one for one in every if (one.model, one.method, one.task) == key]
    assert not [
        other
        for other in every
        if (other.model, other.task) == (one.model, one.task) and one.accuracy < other.accuracy <= again
    ]
    return Fault(
        "Tables 1, 6, 7",
        f"{one.model} {one.method} on {one.task} is {one.accuracy:.1f} in Table {one.table} and {again:.1f} in Tables "
        "6 and 7.",
    )


def not_better_by_type(others: Iterable[Unnamed]) -> Fault:
    table = {(one.configuration, one.column): one.accuracy for one in others if one.table == 3}
    own = [key for key in table if steered(key[0]) and ("sft", key[1]) in table]
    cells = tuple(
        f"{method}, {column}: {table[method, column]:.1f}, plain fine-tuning {table['sft', column]:.1f}"
        for method, column in own
        if table[method, column] <= table["sft", column]
    )
    return Fault("Table 3", f"{len(cells)} of {len(own)} steered cells do not beat plain fine-tuning.", cells)


def no_such_average(numbers: Iterable[Reported], others: Iterable[Unnamed]) -> Fault:
    """Averages of unnamed models that are none of the averages of the named ones."""
    given = {one.configuration: one.accuracy for one in others if one.column == "average_accuracy"}
    cells: list[str] = []
    for method in ("base", "sft"):
        by_model: dict[str, list[float]] = {}
        for one in numbers:
            if one.method == method:
                by_model.setdefault(one.model, []).append(one.accuracy)
        means = sorted(math.fsum(values) / len(values) for values in by_model.values())
        if not any(abs(mean - given[method]) < 0.06 for mean in means):
            cells.append(f"{method}: {given[method]:.1f}; Table 1's six are {means[0]:.1f} to {means[-1]:.1f}")
    what = "Their average accuracies are those of none of Table 1's models over its eight tasks."
    return Fault("Tables 2, 8", what, tuple(cells))


def layers(others: Iterable[Unnamed]) -> Fault | None:
    ends = [int(end) for one in others if one.table == 8 for end in re.findall(r"\d+-(\d+)", one.configuration)]
    if max(ends) in LAYERS.values():
        return None
    names = {row.id: name for name, row in paper_models().items()}
    return Fault(
        "Table 8",
        f"It speaks of {max(ends)} layers; none of the paper's six models has as many.",
        (", ".join(f"{names[model]}: {count}" for model, count in LAYERS.items()),),
    )


def math_is_gsm8k(others: Iterable[Unnamed]) -> Fault | None:
    every = tuple(others)
    types, gsm8k = (
        {one.configuration: one.accuracy for one in every if (one.table, one.column) == place}
        for place in ((3, "math"), (4, "gsm8k_id"))
    )
    what = (
        "Which tasks are in Table 3's five types is not said. Its math column equals Table 4's GSM8K column in all "
        f"{len(types)} rows, so that type seems to be GSM8K alone."
    )
    return Fault("Tables 3, 4", what) if types == gsm8k else None


def unnamed(others: Iterable[Unnamed]) -> Fault:
    tables = ", ".join(map(str, sorted({one.table for one in others})))
    what = "The model behind these tables is not named, so none of their numbers can be redone."
    return Fault(f"Tables {tables}", what)


COMPUTED: tuple[Callable[[], Fault | None], ...] = (
    lambda: not_better(NUMBERS, 1),
    lambda: not_better(NUMBERS, 6, 7),
    lambda: printed_twice(NUMBERS),
    lambda: not_better_by_type(OTHERS),
    lambda: unnamed(OTHERS),
    lambda: no_such_average(NUMBERS, OTHERS),
    lambda: layers(OTHERS),
    lambda: math_is_gsm8k(OTHERS),
)


@pytest.mark.parametrize("place", range(len(COMPUTED)))
def test_a_fault_is_what_the_numbers_say(place: int):
    assert COMPUTED[place]() == FAULTS[place]


def test_the_others_stand_in_the_text():
    assert [fault.where for fault in FAULTS[len(COMPUTED) :]] == ["Table 4", *["Everywhere"] * 3]
    assert not any(fault.cells for fault in FAULTS[len(COMPUTED) :])


def test_numbers_without_the_faults_show_none():
    better = [replace(one, accuracy=99.0) if steered(one.method) else one for one in NUMBERS]
    assert not_better(better, 1).cells == not_better(better, 6, 7).cells == ()
    repaired = {
        (3, "infosteer-regularization", "linguistic"): 78.0,
        (3, "sft", "math"): 60.0,
        **{(table, "base", "average_accuracy"): 72.84 for table in (2, 8)},
        **{(table, "sft", "average_accuracy"): 78.1 for table in (2, 8)},
    }
    others = [
        replace(
            one,
            accuracy=repaired.get((one.table, one.configuration, one.column), one.accuracy),
            configuration=one.configuration.replace("-24", "-32"),
        )
        for one in OTHERS
    ]
    assert not_better_by_type(others).cells == no_such_average(NUMBERS, others).cells == ()
    assert layers(others) is math_is_gsm8k(others) is None


def test_layers_are_those_of_the_models():
    assert [*LAYERS.values()] == [28, 28, 16, 32, 26, 42], "config.json of each on the hub"


def test_every_fault_is_a_line():
    text = "\n".join(fault_lines())
    assert all(fault.what in text and all(cell in text for cell in fault.cells) for fault in FAULTS)
