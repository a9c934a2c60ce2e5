"""Rows without the items that count for too much or for nothing: from the audit of the run's data (data/audit.py).

    math_dedup  the math tests without repeated items: an item of an earlier test, or an earlier one of its own
    clean       all tests, without repeated items and without those that stand in the row's own mix in the same words

Two copies of a question are one question: of those that were answered, the first in the order of the tests stays. base
was trained on no mix, so it leaves out what stands in any. Where the mixes hold different test items, base's items are
not sft's, and there is no difference to sft for that mean.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from infosteer_bench.benchmark import GROUPS
from infosteer_bench.leaderboard.numbers.row import Overlap, Row
from infosteer_bench.records import DataAudit, digest

if TYPE_CHECKING:
    from infosteer_bench.leaderboard.numbers.row import Row

CLEAN_MEMBERS = {"math_dedup": GROUPS["math"], "clean": GROUPS["all"]}
"""The tasks of the means over kept items."""


def with_overlap(rows: Sequence[Row], audit: DataAudit | None) -> list[Row]:
    """The task rows of one entrant, each with its `overlap` where the audit knows test and mix."""
    if audit is None:
        return list(rows)
    repeats = _repeats(rows, audit)
    return [
        replace(
            row,
            overlap=Overlap(
                items=row.n_items,
                exact=len(_in_mix(row, audit, "exact")),
                masked=len(_in_mix(row, audit, "masked")),
                repeated=len(repeats[row.task]),
            ),
        )
        if row.n_items is not None and _known(row, audit)
        else row
        for row in rows
    ]


def kept_rows(rows: Sequence[Row], audit: DataAudit, mean: str) -> dict[str, Row]:
    """By task: what the mean `mean` is computed over, rows of the kept items alone.

    A task whose items or whose overlap are not known is left out.
    """
    members = [row for row in rows if row.task in CLEAN_MEMBERS[mean]]
    repeats = _repeats(members, audit)
    found: dict[str, Row] = {}
    for row in members:
        if row.overlap is None or not _items_known(row, audit):
            continue
        dropped = repeats[row.task] | (_in_mix(row, audit, "exact") if mean == "clean" else set())
        if row.n_items is not None and len(dropped) < row.n_items:
            found[row.task] = _without(row, dropped) if dropped else _bare(row)
    return found


def _repeats(rows: Iterable[Row], audit: DataAudit) -> dict[str, set[int]]:
    """By task: the places of answered items that repeat an answered one before them."""
    answered = {row.task: row.n_items or 0 for row in rows}
    repeats: dict[str, set[int]] = {task: set() for task in answered}
    for same in audit.repeated:
        places = [(task, place) for task, place in same if place < answered.get(task, 0)]
        for task, place in places[1:]:
            repeats[task].add(place)
    return repeats


def _known(row: Row, audit: DataAudit) -> bool:
    return row.task in audit.tests and (not row.mix or row.mix in audit.mixes)


def _in_mix(row: Row, audit: DataAudit, kind: str) -> set[int]:
    """The places of answered items that stand in the mix a row was trained on; for base, in any."""
    mixes = [audit.mixes[row.mix]] if row.mix else audit.mixes.values()
    lists: list[Mapping[str, Sequence[int]]] = [getattr(mix, kind) for mix in mixes]
    return {place for of_mix in lists for place in of_mix.get(row.task, ()) if place < (row.n_items or 0)}


def _items_known(row: Row, audit: DataAudit) -> bool:
    """Whether every seed's scores are there, item by item from the first of the test file on."""
    if row.asked is None or row.scores.keys() != row.by_seed.keys() or not row.scores:
        return False
    counts = {len(scores) for scores in row.scores.values()}
    return counts == {row.n_items} and max(counts) <= audit.tests[row.task].items


def _without(row: Row, dropped: set[int]) -> Row:
    import numpy as np

    keep = np.array([place for place in range(row.n_items or 0) if place not in dropped])
    scores = {seed: of_seed[keep] for seed, of_seed in row.scores.items()}
    return replace(
        _bare(row),
        n_items=len(keep),
        scores=scores,
        by_seed={seed: 100 * float(of_seed.mean()) for seed, of_seed in scores.items()},
        asked=digest([row.asked, sorted(dropped)], length=32),
    )


def _bare(row: Row) -> Row:
    """A part of a mean over kept items: what is known over all items only is not known of it."""
    return replace(
        row, option_rank=None, filters={}, unparsed_rate=None, truncated_rate=None, overlap=None, reported=None
    )
