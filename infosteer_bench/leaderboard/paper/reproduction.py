"""reproduction.md: our numbers beside the paper's, for a board whose models and tasks the paper reports.

Two questions, asked apart: is the accuracy the same (the reported number inside our 95 % interval), and does the method
do as much (the reported gain over sft inside the interval of ours)? The second is what the paper claims, and it does
not depend on how prompts, filters or engines shift all rows of a task together.

The mean over a model's reported tasks is given where all of them were answered in full; it is part of no correction
for many tests, so it gets no verdict. Rows that are partial, of mixed settings or on stand-in data are shown with a `*`
and not counted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from infosteer_bench.leaderboard.numbers.board import Board
from infosteer_bench.leaderboard.numbers.row import Row, number
from infosteer_bench.leaderboard.paper.faults import fault_lines
from infosteer_bench.leaderboard.views.facts import settings_of
from infosteer_bench.leaderboard.views.text import escape, signed, table

FILE = "reproduction.md"
MEAN = "mean"
Interval = tuple[float, float]


@dataclass(frozen=True)
class Pair:
    """A number of ours with its interval (None: not known) and the paper's; percent or points. counted: comparable."""

    task: str
    ours: float
    spread: float | None  # standard deviation over seeds
    interval: Interval | None
    reported: float
    counted: bool

    @property
    def inside(self) -> bool | None:
        """Whether the reported number, rounded to 0.1 as it is, lies in the interval; None where that is not known."""
        if self.interval is None:
            return None
        return self.interval[0] <= round(self.reported, 9) <= self.interval[1]


@dataclass(frozen=True)
class Entry:
    """One model and method."""

    model: str
    method: str
    accuracy: tuple[Pair, ...]
    gain: tuple[Pair, ...]


def to_reproduction(board: Board) -> str | None:
    """The page, or None for a board without a row that the paper reports and that was answered."""
    entries = find_entries(board.rows)
    if not entries:
        return None
    pairs = [pair for entry in entries for pair in entry.accuracy if pair.task != MEAN]
    gains = [pair for entry in entries for pair in entry.gain if pair.task != MEAN]
    lines = [
        f"# {escape(board.name)}: beside the paper's numbers",
        "",
        f"- Accuracies: {_count(pairs)}",
        f"- Gains over sft: {_count(gains)}",
        f"- Ours: {'; '.join(map(escape, settings_of(board.records)))}; {_seeds(board.rows)}",
        "- The paper names no model for Tables 2, 3, 4 and 8 (mathematics among them): they match no row.",
        "",
        "A reported number inside our interval is no proof of equality: a wide interval holds much. One outside may "
        'come of what the paper leaves open (README, "Where the paper is open") or of its own faults, listed below. '
        "Intervals: 95 %, over seeds and items (over items only, where there is one seed, and for base). "
        "`*`: partial, of mixed settings, or on stand-in data: shown, not counted. The mean gets no "
        "verdict. `±`: standard deviation over seeds.",
        "",
    ]
    for model in dict.fromkeys(entry.model for entry in entries):
        own = [entry for entry in entries if entry.model == model]
        lines += [f"## {escape(model)}", ""]
        lines += _pairs_table("Accuracy, percent", own, lambda entry: entry.accuracy, number)
        lines += _pairs_table("Gain over sft, points", own, lambda entry: entry.gain, signed)
    lines += ["## Known faults of the paper's numbers", "", *fault_lines()]
    return "\n".join(lines) + "\n"


def find_entries(rows: Sequence[Row]) -> list[Entry]:
    """Every model and method with reported numbers and answers, in the order of the board."""
    known = [row for row in rows if row.reported is not None and row.accuracy is not None]
    plain = {(row.model, row.task): row for row in known if row.method == "sft"}
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in known:
        groups.setdefault((row.model, row.method), []).append(row)
    # What the paper reports of a model, answered or not: a mean is over all of it or is not given.
    due = {key: sum(row.reported is not None and (row.model, row.method) == key for row in rows) for key in groups}
    entries: list[Entry] = []
    for key, own in groups.items():
        whole = len(own) == due[key] > 1 and all(_counted(row) for row in own)
        references = [plain.get((row.model, row.task)) for row in own]
        accuracy = [_accuracy(row) for row in own]
        gain = [_gain(row, reference) for row, reference in zip(own, references, strict=True) if reference is not None]
        gains = [pair for pair in gain if pair is not None]
        if whole:
            accuracy.append(_mean(accuracy, _pooled(own, None)))
            if len(gains) == len(own) and all(pair.counted for pair in gains):
                gains.append(
                    _mean(gains, _pooled(own, [reference for reference in references if reference is not None]))
                )
        entries.append(Entry(*key, tuple(accuracy), tuple(gains)))
    return entries


def _counted(row: Row) -> bool:
    return row.complete and not row.stand_ins


def _accuracy(row: Row) -> Pair:
    assert row.accuracy is not None
    assert row.reported is not None
    return Pair(row.task, row.accuracy, row.seed_std, row.interval, row.reported, _counted(row))


def _gain(row: Row, sft: Row) -> Pair | None:
    """Of a trained method; base is no step on from sft."""
    assert row.reported is not None
    assert sft.reported is not None
    if row.method in ("sft", "base") or row.delta_vs_sft is None:
        return None
    interval = None if row.versus is None else (100 * row.versus.low, 100 * row.versus.high)
    return Pair(
        row.task, row.delta_vs_sft, None, interval, row.reported - sft.reported, _counted(row) and _counted(sft)
    )


def _mean(pairs: Sequence[Pair], interval: Interval | None) -> Pair:
    ours, theirs = (
        math.fsum(values) / len(pairs) for values in zip(*((p.ours, p.reported) for p in pairs), strict=True)
    )
    return Pair(MEAN, ours, None, interval, theirs, counted=True)


def _pooled(rows: Sequence[Row], sft: Sequence[Row] | None) -> Interval | None:
    """95 % interval, in percent, of the mean over tasks: of the accuracy, or of the difference to sft's rows."""
    import numpy as np

    from infosteer_bench.leaderboard.numbers.statistics import compare

    seeds = list(rows[0].by_seed)
    if any(list(row.by_seed) != seeds or set(row.scores) != set(seeds) for row in (*rows, *(sft or ()))):
        return None
    arrays = [np.stack([row.scores[seed] for seed in seeds]) for row in rows]
    if sft is not None:
        arrays = [
            ours - np.stack([reference.scores[seed] for seed in seeds])
            for ours, reference in zip(arrays, sft, strict=True)
        ]
    found = compare(arrays, [row.mix for row in rows])
    low, high = 100 * found.low, 100 * found.high
    return (low, high) if sft is not None else (max(0.0, low), min(100.0, high))


def _count(pairs: Iterable[Pair]) -> str:
    found = list(pairs)
    counted = [pair for pair in found if pair.counted and pair.inside is not None]
    inside = sum(bool(pair.inside) for pair in counted)
    text = f"{inside} of {len(counted)} reported numbers lie inside our 95 % interval"
    if len(counted) < len(found):
        text += f"; {len(found) - len(counted)} more are not counted (partial, mixed, stand-in data, or no interval)"
    return text if found else "none to compare"


def _seeds(rows: Iterable[Row]) -> str:
    seeds = sorted({len(row.by_seed) for row in rows if row.reported is not None and row.mix and row.by_seed})
    if not seeds:
        return "nothing trained"
    text = str(seeds[0]) if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    return f"{text} training seed{'' if seeds == [1] else 's'}"


def _pairs_table(
    title: str,
    entries: Sequence[Entry],
    pairs_of: Callable[[Entry], Sequence[Pair]],
    show: Callable[[float | None], str],
) -> list[str]:
    body: list[list[str]] = []
    for entry in entries:
        for place, pair in enumerate(pairs_of(entry)):
            spread = "" if pair.spread is None else f" ± {number(pair.spread)}"
            star = "" if pair.counted else " \\*"
            interval = "" if pair.interval is None else f"{number(pair.interval[0])} to {number(pair.interval[1])}"
            body.append(
                [
                    "" if place else escape(entry.method),
                    escape(pair.task),
                    show(pair.ours) + spread + star,
                    interval,
                    show(pair.reported),
                    signed(pair.ours - pair.reported),
                    {True: "yes", False: "no", None: ""}[pair.inside],
                ]
            )
    header = [title, "task", "ours", "95 % interval", "the paper's", "ours minus the paper's", "inside"]
    return [*table(header, body), ""] if body else []
