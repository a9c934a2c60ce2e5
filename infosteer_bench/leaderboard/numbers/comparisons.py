"""What the rows of a board say about methods: intervals, differences to sft, and which of these are more than luck.

A method's row and sft's are compared over the same seeds and the same items. Holm's correction (of generalized
p-values, see statistics.py) runs within a model over methods x tasks; the means over groups of tasks are a family of
their own. base is a reference and gets no verdict.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from infosteer_bench.leaderboard.numbers.statistics import Array, compare, holm

if TYPE_CHECKING:
    from infosteer_bench.leaderboard.numbers.row import Row

SIGNIFICANT = 0.05
ONE_SEED = "one seed: the interval is over items only and says nothing about another seed, so there is no verdict"


def with_statistics(rows: Iterable[Row]) -> list[Row]:
    """The rows of one model with interval, difference to sft, p-value and verdict where these can be had."""
    rows = [_with_interval(row) for row in rows]
    sft = [row for row in rows if row.method == "sft" and not row.arm and row.by_seed]
    return _judged([_compared(row, sft) for row in rows])


def _with_interval(row: Row) -> Row:
    seeds = list(row.by_seed)
    arrays = [_scores(part, seeds) for part in row.parts or (row,)]
    known = [array for array in arrays if array is not None]
    if not known or len(known) < len(arrays):
        return row
    found = compare(known, [part.mix for part in row.parts or (row,)])
    return replace(row, interval=(max(0.0, 100 * found.low), min(100.0, 100 * found.high)))


def _compared(row: Row, sft: Sequence[Row]) -> Row:
    references = [reference for reference in sft if reference.task == row.task and row.mix in ("", reference.mix)]
    # A method without a mix faces every mix's sft; where two answer the task there is no single reference.
    if len(references) != 1 or (row.method == "sft" and not row.arm) or not row.by_seed:
        return row
    delta, note = difference(row, references[0])
    versus = None
    notes = [note] if note else []
    pairs = _pairs(row, references[0]) if delta is not None else None
    if pairs is not None:
        versus = compare(*pairs)
        if versus.seeds < 2:
            notes.append(ONE_SEED)
    return replace(row, delta_vs_sft=delta, versus=versus, notes=row.notes + tuple(notes))


def difference(row: Row, sft: Row) -> tuple[float | None, str | None]:
    """`row` minus `sft` in percentage points at the seeds both have, and a remark where that needs one.

    A method without seeds is compared with every seed of sft. Different settings, items or members give None.
    """
    if row.settings != sft.settings or row.mixed:
        return None, "no difference to sft: mixed settings"
    asked = [[part.asked for part in one.parts or (one,)] for one in (row, sft)]
    if row.members != sft.members or row.n_items != sft.n_items or asked[0] != asked[1]:
        return None, "no difference to sft: other items"
    if None in row.by_seed:
        pairs = [(row.by_seed[None], value) for value in sft.by_seed.values()]
    else:
        pairs = [(row.by_seed[seed], sft.by_seed[seed]) for seed in row.by_seed if seed in sft.by_seed]
        if not pairs:
            return None, "no difference to sft: no seed in common"
    remark = (
        None
        if len(pairs) >= max(len(row.by_seed), len(sft.by_seed))
        else f"difference over {len(pairs)} seed{'s' * (len(pairs) > 1)}"
    )
    return math.fsum(a - b for a, b in pairs) / len(pairs), remark


def _pairs(row: Row, sft: Row) -> tuple[list[Array], list[str]] | None:
    """(method minus sft, the mix that was trained on) of each task behind two rows; None where items are not known."""
    seeds = [seed for seed in sft.by_seed if seed in row.by_seed or None in row.by_seed]
    arrays: list[Array] = []
    for ours, theirs in zip(row.parts or (row,), sft.parts or (sft,), strict=True):
        one, other = _scores(ours, [None] if None in row.by_seed else seeds), _scores(theirs, seeds)
        if one is None or other is None:
            return None
        arrays.append(one - other)
    return arrays, [part.mix for part in sft.parts or (sft,)]


def _scores(row: Row, seeds: Sequence[int | None]) -> Array | None:
    """(seeds, items) of a task's row; None where the items of one are not known, or not the same."""
    import numpy as np

    found = [row.scores.get(seed) for seed in seeds]
    known = [array for array in found if array is not None]
    if not known or len(known) < len(found) or row.asked is None:
        return None
    return np.stack(known)


def _judged(rows: list[Row]) -> list[Row]:
    """Corrected p-values and verdicts, over tasks and over means apart."""
    judged = {
        place: row.versus.p_generalized
        for place, row in enumerate(rows)
        if row.versus is not None and not row.notes and None not in row.by_seed
    }
    for means in (False, True):
        family = [place for place in judged if bool(rows[place].members) == means]
        for place, p_value in zip(family, holm([judged[place] for place in family]), strict=True):
            delta = rows[place].delta_vs_sft or 0.0
            verdict = "tie" if p_value >= SIGNIFICANT else "win" if delta > 0 else "loss"
            rows[place] = replace(rows[place], p_holm=p_value, n_tests=len(family), verdict=verdict)
    return rows
