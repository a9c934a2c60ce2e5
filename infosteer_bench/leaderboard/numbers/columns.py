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
from operator import attrgetter
from typing import Any

from infosteer_bench.leaderboard.numbers.mechanism import STATISTICS, MechanismRow
from infosteer_bench.leaderboard.numbers.row import Row
from infosteer_bench.leaderboard.numbers.standings import Standing
from infosteer_bench.leaderboard.numbers.statistics import Comparison
from infosteer_bench.leaderboard.numbers.table import (
    CHANCE,
    COUNT,
    DECIMALS_6,
    DIGITS_3,
    DIGITS_6,
    FLAG,
    SHORTEST,
    TEXT,
    Column,
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


def _versus(value: Callable[[Comparison], Any]) -> Callable[[Row], Any]:
    """A value of the comparison with sft; None for a row without one."""
    return lambda row: None if row.versus is None else value(row.versus)


def _points(value: Callable[[Comparison], float | None]) -> Callable[[Row], float | None]:
    """The same in percentage points."""
    return _versus(lambda found: None if (share := value(found)) is None else 100 * share)


def _detectable_holm(row: Row) -> float | None:
    tests = row.n_tests
    return _points(lambda found: found.detectable_among(tests))(row) if tests else None


def _notes(row: Row) -> str:
    return "; ".join([*row.notes, *(["stand-in data"] if row.stand_ins else [])])


def _names(column: Callable[..., Any], meanings: dict[str, str]) -> list[Any]:
    return [column(name, meaning, attrgetter(name), TEXT) for name, meaning in meanings.items()]


ROWS: tuple[RowColumn, ...] = (
    *_names(
        lambda name, *more: RowColumn(name, *more, deltas=name, page=name != "family"),
        {
            "model": "id of the model",
            "family": "its architecture",
            "method": "how it was fine-tuned",
            "arm": "the method's settings that are not its defaults",
            "mix": "what it was trained on; a+b for a mean over tasks of several mixes; empty for no training",
            "task": "a task, or mean:GROUP for the macro mean over a group of tasks",
            "split": "ID or OOD: whether the mix holds training data of the task; empty for a mean over both",
        },
    ),
    RowColumn("n_seeds", "training seeds behind the accuracy", lambda row: len(row.by_seed) or None, COUNT, page=False),
    RowColumn(
        *("n_seeds_paired", "seeds behind the difference", _versus(attrgetter("seeds")), COUNT),
        board=False,
        deltas="n_seeds",
    ),
    RowColumn(
        "n_items",
        "items answered per seed, of all members for a mean",
        lambda row: row.n_items or None,
        COUNT,
        deltas="n_items",
    ),
    RowColumn("accuracy", "mean over seeds, percent", attrgetter("accuracy")),
    RowColumn("seed_std", "standard deviation over seeds, points", attrgetter("seed_std")),
    RowColumn(
        "ci_low", "95 % interval of the accuracy, percent", lambda row: row.interval and row.interval[0], page=False
    ),
    RowColumn("ci_high", "its upper end", lambda row: row.interval and row.interval[1], page=False),
    RowColumn("delta_vs_sft", "difference to sft, points", attrgetter("delta_vs_sft"), deltas="delta"),
    RowColumn(
        "delta_ci_low", "95 % interval of the difference", _points(attrgetter("low")), deltas="ci_low", page=False
    ),
    RowColumn("delta_ci_high", "its upper end", _points(attrgetter("high")), deltas="ci_high", page=False),
    RowColumn("p_value", "of no difference, two-sided", _versus(attrgetter("p_value")), CHANCE, deltas="p_value"),
    RowColumn(
        *("p_generalized", "p-value that holds far out, too", _versus(attrgetter("p_generalized")), CHANCE),
        board=False,
        deltas="p_generalized",
        page=False,
    ),
    RowColumn("p_holm", "p_generalized after Holm's correction", attrgetter("p_holm"), CHANCE, deltas="p_holm"),
    RowColumn("verdict", "win, tie or loss; empty: not tested", attrgetter("verdict"), TEXT, deltas="verdict"),
    RowColumn(
        *("detectable", "true difference that one test finds four times in five", _points(attrgetter("detectable"))),
        board=False,
        deltas="detectable",
    ),
    RowColumn(
        *("detectable_holm", "the same after Holm's first step", _detectable_holm),
        board=False,
        deltas="detectable_holm",
        page=False,
    ),
    RowColumn(
        *("seeds_to_halve", "seeds that halve detectable", _versus(attrgetter("seeds_to_halve")), COUNT),
        board=False,
        deltas="seeds_to_halve",
    ),
    RowColumn(
        *("degrees_of_freedom", "of the interval", _versus(attrgetter("degrees_of_freedom")), DIGITS_3),
        board=False,
        deltas="degrees_of_freedom",
        page=False,
    ),
    RowColumn(
        *(
            "option_rank",
            "accuracy by the options' likelihood instead of generation, percent",
            attrgetter("option_rank"),
        ),
        label="By likelihood",
    ),
    *(
        RowColumn(
            name, f"accuracy by {what}, percent", lambda row, n=name: row.filters.get(n), label=label, optional=True
        )
        for name, label, what in (
            ("strict", "Strict", "the filter strict, which reads only what follows the trained phrase"),
            ("legacy", "Legacy", "the filter legacy, LLM-Adapters' rule with its faults"),
        )
    ),
    RowColumn(
        *("unparsed_rate", "answers in which no filter found one, percent", attrgetter("unparsed_rate")),
        label="Unparsed",
        warn=10,
    ),
    RowColumn(
        *("truncated_rate", "generations that ran into the token limit, percent", attrgetter("truncated_rate")),
        label="Cut",
        warn=10,
    ),
    RowColumn(
        "complete",
        "whether no seed, task or item is missing",
        attrgetter("complete"),
        FLAG,
        deltas="complete",
        page=False,
    ),
    RowColumn("reported", "the paper's accuracy, percent", attrgetter("reported"), SHORTEST, label="Reported"),
    RowColumn("notes", "remarks", _notes, TEXT, board=False, deltas="notes", page=False),
)
BOARD: tuple[Column[Row], ...] = tuple(column for column in ROWS if column.board)
PAGE = tuple(column for column in ROWS if column.page)
DELTAS: tuple[Column[Row], ...] = tuple(replace(column, name=column.deltas) for column in ROWS if column.deltas)


def _count(verdict: str) -> Callable[[Standing], int | None]:
    """None for a method that has no verdict."""
    return lambda one: one.verdicts[verdict] if set(one.verdicts) - {""} else None


RANKS: tuple[Column[Standing], ...] = (
    *_names(Column, {"model": "id of the model", "method": "how it was fine-tuned", "arm": "its settings"}),
    Column("n_tasks", "tasks that every method answered in full", attrgetter("n_tasks"), COUNT),
    Column("average_rank", "1 is best; equal accuracies share a rank", attrgetter("average_rank")),
    Column("win_rate", "share of duels won, percent", lambda one: 100 * one.win_rate),
    Column("wins", "tasks better than sft", _count("win"), COUNT),
    Column("ties", "tasks without a verdict of either kind", _count("tie"), COUNT),
    Column("losses", "tasks worse than sft", _count("loss"), COUNT),
)
MECHANISM: tuple[Column[MechanismRow], ...] = (
    *_names(
        Column,
        {
            "key": "of the checkpoint",
            "model": "id of the model",
            "method": "how it was fine-tuned",
            "arm": "its settings",
            "mix": "what it was trained on and measured on",
        },
    ),
    Column("seed", "of the training", attrgetter("seed"), COUNT),
    Column("width", "key coefficients of a layer", attrgetter("width"), COUNT),
    *(Column(name, "see memory/statistics.py", lambda row, n=name: row.values[n], DIGITS_6) for name in STATISTICS),
    Column("entropy_change", "against sft, nats", attrgetter("entropy_change"), DECIMALS_6),
    Column("score", "mean accuracy over the mix's tasks, percent", attrgetter("score")),
    Column("score_change", "against sft, points", attrgetter("score_change")),
)
