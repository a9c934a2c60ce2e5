"""Every column of a board's tables, once: its name, what it means, where its value comes from, how it is written.

    to_csv(BOARD, rows)          # leaderboard.csv
    to_csv(RANKS, standings)     # ranks.csv

leaderboard.csv, deltas.csv, ranks.csv, mechanism.csv, the rows of index.html and the data frames of read.py follow from
these tuples: another column is another entry.

p_value belongs to the interval; p_holm is made of p_generalized. detectable: what a test alone finds (p_value below
0.05) four times in five. detectable_holm: what wins four times in five whatever the other tests of the model give.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from infosteer_bench.leaderboard.numbers.mechanism import STATISTICS, MechanismRow
from infosteer_bench.leaderboard.numbers.row import Row
from infosteer_bench.leaderboard.numbers.standings import Standing
from infosteer_bench.leaderboard.numbers.table import (
    CHANCE,
    COUNT,
    DECIMALS_6,
    DIGITS_3,
    DIGITS_6,
    FLAG,
    NUMBER,
    SHORTEST,
    TEXT,
    Column,
    Kind,
)


@dataclass(frozen=True)
class RowColumn(Column[Row]):
    """A column of rows. board: whether leaderboard.csv has it; deltas: its name in deltas.csv, "" where it is not.

    page: whether the rows of index.html have it. label: the heading of a column of its own there, "" for what the page
    shows in a way of its own; optional: shown on request; warn: from here on a number stands out.
    """

    board: bool = True
    deltas: str = ""
    page: bool = True
    label: str = ""
    optional: bool = False
    warn: float | None = None


def _versus(name: str) -> Callable[[Row], Any]:
    """A value of the comparison with sft; None for a row without one."""
    return lambda row: None if row.versus is None else getattr(row.versus, name)


def _points(name: str) -> Callable[[Row], float | None]:
    """The same in percentage points."""
    share = _versus(name)
    return lambda row: None if share(row) is None else 100 * share(row)


def _detectable_holm(row: Row) -> float | None:
    share = row.versus.detectable_among(row.n_tests) if row.versus is not None and row.n_tests else None
    return None if share is None else 100 * share


def _filter(name: str) -> Callable[[Row], float | None]:
    return lambda row: row.filters.get(name)


def _end(place: int) -> Callable[[Row], float | None]:
    return lambda row: None if row.interval is None else row.interval[place]


def _notes(row: Row) -> str:
    return "; ".join([*row.notes, *(["stand-in data"] if row.stand_ins else [])])


def _everywhere(name: str, meaning: str, kind: Kind = TEXT, *, page: bool = True) -> RowColumn:
    return RowColumn(name, meaning, kind=kind, deltas=name, page=page)


def _in_deltas(name: str, meaning: str, value: Callable[[Row], Any], kind: Kind = NUMBER, *, page: bool) -> RowColumn:
    return RowColumn(name, meaning, value, kind, board=False, deltas=name, page=page)


ROWS: tuple[RowColumn, ...] = (
    _everywhere("model", "id of the model"),
    _everywhere("family", "its architecture", page=False),
    _everywhere("method", "how it was fine-tuned"),
    _everywhere("arm", "the method's settings that are not its defaults"),
    _everywhere("mix", "what it was trained on; a+b for a mean over tasks of several mixes; empty for no training"),
    _everywhere("task", "a task, or mean:GROUP for the macro mean over a group of tasks"),
    _everywhere("split", "ID or OOD: whether the mix holds training data of the task; empty for a mean over both"),
    RowColumn("n_seeds", "training seeds behind the accuracy", lambda row: len(row.by_seed) or None, COUNT, page=False),
    RowColumn("n_seeds_paired", "those behind the difference", _versus("seeds"), COUNT, board=False, deltas="n_seeds"),
    _everywhere("n_items", "items answered per seed, of all members for a mean", COUNT),
    RowColumn("accuracy", "mean over seeds, percent"),
    RowColumn("seed_std", "standard deviation over seeds, points"),
    RowColumn("ci_low", "95 % interval of the accuracy, percent", _end(0), page=False),
    RowColumn("ci_high", "its upper end", _end(1), page=False),
    RowColumn("delta_vs_sft", "difference to sft, points", deltas="delta"),
    RowColumn("delta_ci_low", "95 % interval of the difference", _points("low"), deltas="ci_low", page=False),
    RowColumn("delta_ci_high", "its upper end", _points("high"), deltas="ci_high", page=False),
    RowColumn("p_value", "of no difference, two-sided", _versus("p_value"), CHANCE, deltas="p_value"),
    _in_deltas("p_generalized", "the same, right far out", _versus("p_generalized"), CHANCE, page=False),
    _everywhere("p_holm", "p_generalized after Holm's correction", CHANCE),
    _everywhere("verdict", "win, tie or loss; empty: not tested"),
    _in_deltas(
        "detectable", "true difference that one test finds four times in five", _points("detectable"), page=True
    ),
    _in_deltas("detectable_holm", "the same after Holm's first step", _detectable_holm, page=False),
    _in_deltas("seeds_to_halve", "seeds that halve detectable", _versus("seeds_to_halve"), COUNT, page=True),
    _in_deltas("degrees_of_freedom", "of the interval", _versus("degrees_of_freedom"), DIGITS_3, page=False),
    RowColumn(
        "option_rank", "accuracy by the options' likelihood instead of generation, percent", label="By likelihood"
    ),
    RowColumn(
        *("strict", "accuracy by the filter strict, which reads only what follows the trained phrase, percent"),
        *(_filter("strict"), NUMBER),
        label="Strict",
        optional=True,
    ),
    RowColumn(
        *("legacy", "accuracy by the filter legacy, LLM-Adapters' rule with its faults, percent"),
        *(_filter("legacy"), NUMBER),
        label="Legacy",
        optional=True,
    ),
    RowColumn("unparsed_rate", "answers in which no filter found one, percent", label="Unparsed", warn=10),
    RowColumn("truncated_rate", "generations that ran into the token limit, percent", label="Cut", warn=10),
    _everywhere("complete", "whether no seed, task or item is missing", FLAG, page=False),
    RowColumn("reported", "the paper's accuracy, percent", kind=SHORTEST, label="Reported"),
    _in_deltas("notes", "remarks", _notes, TEXT, page=False),
)
BOARD: tuple[Column[Row], ...] = tuple(column for column in ROWS if column.board)
PAGE = tuple(column for column in ROWS if column.page)
DELTAS: tuple[Column[Row], ...] = tuple(replace(one, name=one.deltas, value=one.of) for one in ROWS if one.deltas)


def _count(verdict: str) -> Callable[[Standing], int | None]:
    """None for a method that has no verdict."""
    return lambda one: one.verdicts[verdict] if set(one.verdicts) - {""} else None


RANKS: tuple[Column[Standing], ...] = (
    Column("model", "id of the model", kind=TEXT),
    Column("method", "how it was fine-tuned", kind=TEXT),
    Column("arm", "its settings", kind=TEXT),
    Column("n_tasks", "tasks that every method answered in full", kind=COUNT),
    Column("average_rank", "1 is best; equal accuracies share a rank"),
    Column("win_rate", "share of duels won, percent", lambda one: 100 * one.win_rate),
    Column("wins", "tasks better than sft", _count("win"), COUNT),
    Column("ties", "tasks without a verdict of either kind", _count("tie"), COUNT),
    Column("losses", "tasks worse than sft", _count("loss"), COUNT),
)
MECHANISM: tuple[Column[MechanismRow], ...] = (
    Column("key", "of the checkpoint", kind=TEXT),
    Column("model", "id of the model", kind=TEXT),
    Column("method", "how it was fine-tuned", kind=TEXT),
    Column("arm", "its settings", kind=TEXT),
    Column("mix", "what it was trained on and measured on", kind=TEXT),
    Column("seed", "of the training", kind=COUNT),
    Column("width", "key coefficients of a layer", kind=COUNT),
    *(Column(name, "see memory/statistics.py", lambda row, n=name: row.values[n], DIGITS_6) for name in STATISTICS),
    Column("entropy_change", "against sft, nats", kind=DECIMALS_6),
    Column("score", "mean accuracy over the mix's tasks, percent"),
    Column("score_change", "against sft, points"),
)
