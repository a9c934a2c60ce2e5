"""Mechanism beside score: what training did to the key coefficients, next to what it did to the answers.

    rows = mechanism_rows(board)                # one per checkpoint and mix whose record has the statistics
    found = correlations(rows)                  # does more entropy than sft go with better scores than sft?

Statistics come from the checkpoints' records (`CheckpointRecord.mechanism`, measured on held-out text); records of an
older version have none or others, and then there are no rows and nothing is shown. A checkpoint is compared with plain
fine-tuning of the same model, mix and seed, on the same tokens and on tasks that both answered under one setting.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from infosteer_bench.leaderboard.numbers.row import filter_of, mean
from infosteer_bench.leaderboard.numbers.statistics import ranks
from infosteer_bench.leaderboard.store.compact import BoardRecords
from infosteer_bench.leaderboard.store.layout import read_layout
from infosteer_bench.records import CellRecord, CheckpointRecord

STATISTICS = (
    "entropy_nats",
    "entropy_share",
    "effective_memories",
    "low_share",
    "knowledge_entropy_nats",
    "knowledge_entropy_share",
)
"""As in memory/statistics.py, which says what each is."""
SFT = "sft"

_Answers = dict[tuple[Any, ...], float]


@dataclass(frozen=True)
class MechanismRow:
    """One checkpoint on the text of one mix.

    values: STATISTICS by name. width: F, n_layers: L. entropy_change: nats, score: mean percent over the mix's tasks,
    score_change: points, over the tasks that sft answered too; None where sft has no such record, and for sft itself.
    """

    key: str
    model: str
    method: str
    arm: str
    mix: str
    seed: int | None
    values: dict[str, float]
    width: int
    entropy_change: float | None
    score: float | None
    score_change: float | None


@dataclass(frozen=True)
class Correlation:
    """Of entropy change and score change over n checkpoints; None where n is too small or nothing varies.

    model, mix: None where it is over all of them.
    """

    model: str | None
    mix: str | None
    n: int
    spearman: float | None
    spearman_low: float | None
    spearman_high: float | None
    pearson: float | None
    pearson_low: float | None
    pearson_high: float | None


def mechanism_rows(board: BoardRecords) -> list[MechanismRow]:
    """All checkpoints with statistics, in the order of the board, then of seeds. No record with them gives no row."""
    answers: dict[str, list[CellRecord]] = defaultdict(list)
    for cell in board.cells:
        answers[cell.checkpoint_key].append(cell)
    layout = read_layout(board.grid, board.cells)
    tasks_of = {mix: set(tasks) for mix, tasks in layout.mixes}
    order = [(model, method.name, method.arm) for model in layout.models for method in layout.methods]
    measured = [
        (record, mix, entry)
        for record in board.checkpoints
        for mix, entry in sorted(record.mechanism.items())
        if _complete(entry)
    ]
    plain = {
        (record.model, mix, record.seed): (entry, _scores(answers[record.key], tasks_of.get(mix, set())))
        for record, mix, entry in measured
        if record.method == SFT and not record.arm
    }
    rows: list[MechanismRow] = []
    for record, mix, entry in measured:
        scores = _scores(answers[record.key], tasks_of.get(mix, set()))
        reference = None if record.method == SFT and not record.arm else plain.get((record.model, mix, record.seed))
        rows.append(_row(record, mix, entry, scores, reference))
    places = {name: place for place, name in enumerate(order)}
    mixes = [mix for mix, _ in layout.mixes]
    return sorted(
        rows,
        key=lambda row: (
            places.get((row.model, row.method, row.arm), len(places)),
            mixes.index(row.mix) if row.mix in mixes else len(mixes),
            -1 if row.seed is None else row.seed,
            row.key,
        ),
    )


def _complete(entry: Any) -> bool:
    """Whether all of it is there that a row shows; another version may have measured other statistics."""
    return bool(entry) and "width" in entry and set(STATISTICS) <= set(entry.get("overall") or ())


def _scores(cells: Sequence[CellRecord], tasks: set[str]) -> _Answers:
    """Percent by task and setting, of the tasks of a mix."""
    found: _Answers = {}
    for cell in cells:
        name = filter_of(cell.exact_match)
        if name is not None and cell.task in tasks:
            found[cell.task, cell.engine, cell.dtype, cell.limit] = cell.exact_match[name]
    return found


def _row(
    record: CheckpointRecord,
    mix: str,
    entry: dict[str, Any],
    scores: _Answers,
    reference: tuple[dict[str, Any], _Answers] | None,
) -> MechanismRow:
    entropy_change = score_change = None
    if reference is not None:
        other, plain = reference
        same = ("version", "slice", "dtype")
        if all(entry.get(name) == other.get(name) for name in same):
            entropy_change = entry["overall"]["entropy_nats"] - other["overall"]["entropy_nats"]
        score_change = mean(scores[task] - plain[task] for task in sorted(scores, key=str) if task in plain)
    return MechanismRow(
        *(record.key, record.model, record.method, record.arm, mix, record.seed),
        values={name: entry["overall"][name] for name in STATISTICS},
        width=entry["width"],
        entropy_change=entropy_change,
        score=mean(scores[task] for task in sorted(scores, key=str)),
        score_change=score_change,
    )


def correlations(rows: Sequence[MechanismRow]) -> list[Correlation]:
    """Per model and mix, and over all of them where there are several; rows without both changes do not count."""
    groups: dict[tuple[str | None, str | None], list[tuple[float, float]]] = defaultdict(list)
    for row in rows:
        if row.entropy_change is not None and row.score_change is not None:
            groups[row.model, row.mix].append((row.entropy_change, row.score_change))
    if len(groups) > 1:
        groups[None, None] = [pair for pairs in groups.values() for pair in pairs]
    return [_correlation(model, mix, pairs) for (model, mix), pairs in groups.items()]


def _correlation(model: str | None, mix: str | None, pairs: Sequence[tuple[float, float]]) -> Correlation:
    first, second = ([round(pair[side], 9) for pair in pairs] for side in (0, 1))
    pearson = correlation(first, second)
    spearman = correlation(ranks(first), ranks(second))
    # Fisher's z; the variance of Spearman's by Bonett and Wright (2000)
    return Correlation(
        *(model, mix, len(pairs)),
        *(spearman, *_interval(spearman, len(pairs), 1 + (spearman or 0.0) ** 2 / 2)),
        *(pearson, *_interval(pearson, len(pairs), 1.0)),
    )


def correlation(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Pearson's r; None below three pairs and where one side does not vary."""
    n = len(first)
    if n < 3 or len(set(first)) == 1 or len(set(second)) == 1:
        return None
    a, b = ([value - math.fsum(side) / n for value in side] for side in (first, second))
    product = math.fsum(x * y for x, y in zip(a, b, strict=True))
    r = product / math.sqrt(math.fsum(x * x for x in a) * math.fsum(y * y for y in b))
    return max(-1.0, min(1.0, r))


def _interval(r: float | None, n: int, variance: float) -> tuple[float | None, float | None]:
    """95 % interval of a correlation by z = atanh r, whose variance is about `variance` / (n - 3)."""
    if r is None or n < 4 or abs(r) == 1:
        return None, None
    width = 1.959964 * math.sqrt(variance / (n - 3))
    return math.tanh(math.atanh(r) - width), math.tanh(math.atanh(r) + width)
