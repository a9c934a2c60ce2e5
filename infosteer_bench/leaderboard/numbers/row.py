"""One row of a board, and how its numbers are averaged and written."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from statistics import stdev

from infosteer_bench.leaderboard.numbers.statistics import Array, Comparison

DEFAULT_FILTER = "robust"
OTHER_FILTERS = ("strict", "legacy")

Setting = tuple[str, str, int | None]  # engine, dtype, limit


@dataclass(frozen=True)
class Overlap:
    """What is doubtful about the items behind a task's row. items: those that were answered, per seed.

    exact: of these, how many stand in the row's own mix in the same words (base: in any mix); masked: the same but for
    numbers, those of `exact` among them. repeated: how many repeat an item of an earlier test or of their own.
    """

    items: int
    exact: int
    masked: int
    repeated: int


@dataclass(frozen=True)
class Row:
    """One line of leaderboard.csv."""

    model: str
    family: str
    method: str
    arm: str
    mix: str  # "" for a method that trains nothing; "a+b" for a mean over the tasks of several mixes
    task: str  # a short name, or "mean:<group>"
    split: str  # ID, OOD, or "" for a mean over both
    n_items: int | None = None  # items answered per seed; for a mean, of all members together
    by_seed: dict[int | None, float] = field(default_factory=dict)  # seed -> percent; None: a method without seeds
    delta_vs_sft: float | None = None  # percentage points, over the seeds that both have
    option_rank: float | None = None
    filters: dict[str, float | None] = field(default_factory=dict)  # accuracy by OTHER_FILTERS, mean over seeds
    unparsed_rate: float | None = None
    truncated_rate: float | None = None
    complete: bool = False
    reported: float | None = None
    settings: frozenset[Setting] = frozenset()
    members: tuple[str, ...] = ()  # of a mean: the tasks it was computed over
    parts: tuple[Row, ...] = ()  # and their rows
    scores: dict[int | None, Array] = field(default_factory=dict, repr=False, compare=False)  # seed -> items, 0 to 1
    cells: dict[int | None, str] = field(default_factory=dict, repr=False, compare=False)  # seed -> key of its cell
    asked: str | None = None  # digest of the items, None where they are not known or differ between seeds
    interval: tuple[float, float] | None = None  # 95 %, of the accuracy, in percent
    versus: Comparison | None = None  # with sft
    p_holm: float | None = None
    n_tests: int | None = None  # how many `p_holm` was corrected for
    verdict: str = ""  # win, tie, loss
    stand_ins: bool = False  # whether a data file differed from upstream's
    overlap: Overlap | None = None  # of a task: items that stand in the mix or twice, where the data were audited
    notes: tuple[str, ...] = ()  # why the row is not complete or has no difference to sft

    @property
    def accuracy(self) -> float | None:
        """Mean over seeds, in percent."""
        return mean(self.by_seed.values())

    @property
    def seed_std(self) -> float | None:
        """Standard deviation over seeds (n - 1 in the denominator); None below two seeds."""
        return stdev(self.by_seed.values()) if len(self.by_seed) > 1 else None

    @property
    def mixed(self) -> bool:
        """Whether the cells behind this row were answered under different engines, dtypes or limits."""
        return len(self.settings) > 1


def mean(values: Iterable[float | None]) -> float | None:
    """Mean of the values; None if there is none or if one is None."""
    found = list(values)
    known = [value for value in found if value is not None]
    return math.fsum(known) / len(known) if known and len(known) == len(found) else None


def filter_of(scores: dict[str, float]) -> str | None:
    """Which filter's score stands for a task: `robust`, or the only one that a user's own task has."""
    if DEFAULT_FILTER in scores:
        return DEFAULT_FILTER
    return next(iter(scores)) if len(scores) == 1 else None


def entrants(rows: Iterable[Row]) -> dict[tuple[str, str, str], dict[str, Row]]:
    """Lines of a table of one model's rows: (method, arm, mix shown) -> its rows by task.

    The mix is shown only where an arm's mixes answer the same task, so that one line cannot hold both.
    """
    every = list(rows)
    answers = Counter((row.method, row.arm, row.task) for row in every)
    several = {(method, arm) for (method, arm, _), count in answers.items() if count > 1}
    lines: dict[tuple[str, str, str], dict[str, Row]] = {}
    for row in every:
        shown = row.mix if (row.method, row.arm) in several else ""
        lines.setdefault((row.method, row.arm, shown), {})[row.task] = row
    return lines


def describe_setting(setting: Setting) -> str:
    """`hf bfloat16, first 20 items`."""
    engine, dtype, limit = setting
    return f"{engine} {dtype}, " + ("all items" if limit is None else f"first {limit} items")


def number(value: float | None, digits: int = 2) -> str:
    """Percent with two decimals, or so many; empty for a missing number; no negative zero.

    Rounded twice, so that the last bit, which machines may differ in, never decides how a half is rounded.
    """
    text = "" if value is None else f"{round(value, digits + 7):.{digits}f}"
    return text if text.strip("-0.") else text.removeprefix("-")


def chance(p_value: float | None) -> str:
    """A p-value with three digits; empty for a missing one."""
    return "" if p_value is None else f"{p_value:.3g}"
