"""Rows of a board: one per model x method x arm x mix x task, then the means over groups of tasks.

Pure functions from records to rows: no files, no clock, no host. Numbers are percent. The order of rows follows
the grid (models, methods, mixes) and METHOD.md (tasks, groups), never the order in which cells were run, and
sums use `math.fsum`, so equal answers give equal rows.

A missing number is None, never 0. A row that lacks a seed, a mean that lacks a member, and a row whose cells come
from different engines, dtypes or limits have `complete=False` and say why in `notes`.
"""

from __future__ import annotations

import csv
import io
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import stdev

from infosteer_bench.leaderboard.clean import CLEAN_MEMBERS, Overlap, kept_rows, with_overlap
from infosteer_bench.leaderboard.comparisons import with_statistics
from infosteer_bench.leaderboard.items import ItemScores
from infosteer_bench.leaderboard.layout import Layout
from infosteer_bench.leaderboard.reported import reported
from infosteer_bench.leaderboard.statistics import Array, Comparison
from infosteer_bench.records import CellRecord, DataAudit
from infosteer_bench.tasks.catalog import GROUP_MEMBERS

COLUMNS = (
    *("model", "family", "method", "arm", "mix", "task", "split", "n_seeds", "n_items", "accuracy", "seed_std"),
    *("ci_low", "ci_high", "delta_vs_sft", "delta_ci_low", "delta_ci_high", "p_value", "p_holm", "verdict"),
    *("option_rank", "unparsed_rate", "truncated_rate", "complete", "reported"),
)
GROUPS = tuple(GROUP_MEMBERS)  # id, ood, ood5, all, and the task types
MEANS = tuple(f"mean:{group}" for group in (*GROUPS, *CLEAN_MEMBERS))
SPLIT_OF_GROUP = {"id": "ID", "ood": "OOD", "ood5": "OOD"}
DEFAULT_FILTER = "robust"

Setting = tuple[str, str, int | None]  # engine, dtype, limit


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


def build_rows(
    cells: Iterable[CellRecord],
    layout: Layout,
    items: Mapping[str, ItemScores] | None = None,
    audit: DataAudit | None = None,
) -> list[Row]:
    """All rows of a board, task rows before means, in the order of `layout`.

    items: by cell key; without them there are no intervals and no tests. audit: of the data behind the cells; without
    it, or without items, there are no means over kept items (clean.py).
    """
    by_row: dict[tuple[str, str, str, str, str], list[CellRecord]] = defaultdict(list)
    family: dict[str, str] = {}
    for cell in cells:
        by_row[cell.model, cell.method, cell.arm, cell.mix or "", cell.task].append(cell)
        family[cell.model] = cell.family
    common = _usual_setting(by_row.values())
    rows: list[Row] = []
    for model in layout.models:
        of_model: list[list[Row]] = []
        for method in layout.methods:
            tasks = [
                _task_row(
                    (model, method.name, method.arm, mix, task),
                    by_row.get((model, method.name, method.arm, mix, task), []),
                    family=family.get(model, ""),
                    seeds=layout.seeds if method.trains else (None,),
                    usual=common,
                    items=items or {},
                )
                for mix, task in layout.answers(method)
            ]
            entrants = [with_overlap(entrant, audit) for entrant in _entrants(tasks)]
            of_model.append([row for entrant in entrants for row in entrant])
            of_model.append([row for entrant in entrants for row in _mean_rows(entrant, audit)])
        rows += with_statistics([row for group in of_model for row in group])
    return rows


def _usual_setting(groups: Iterable[list[CellRecord]]) -> Setting | None:
    counts = Counter((cell.engine, cell.dtype, cell.limit) for group in groups for cell in group)
    return min(counts, key=lambda setting: (-counts[setting], str(setting)), default=None)


def _task_row(
    key: tuple[str, str, str, str, str],
    cells: list[CellRecord],
    *,
    family: str,
    seeds: Sequence[int | None],
    usual: Setting | None,
    items: Mapping[str, ItemScores],
) -> Row:
    model, method, arm, mix, task = key
    notes: list[str] = []
    chosen: dict[int | None, CellRecord] = {}
    for cell in sorted(cells, key=lambda cell: ((cell.engine, cell.dtype, cell.limit) != usual, cell.key)):
        if chosen.setdefault(cell.seed, cell) is not cell:
            notes.append("answered more than once for a seed; the setting most used on this board counts")
    ordered = [chosen[seed] for seed in sorted(chosen, key=lambda seed: -1 if seed is None else seed)]
    filters = {filter_of(cell.exact_match) for cell in ordered}
    name = filters.pop() if len(filters) == 1 else None
    if ordered and name is None:
        notes.append(f"no single filter to report; the task needs one named {DEFAULT_FILTER}")
    settings = frozenset((cell.engine, cell.dtype, cell.limit) for cell in ordered)
    if len(settings) > 1:
        notes.append("mixed: " + "; ".join(sorted(describe_setting(setting) for setting in settings)))
    counts = {cell.n_items for cell in ordered}
    if len(counts) > 1 or any(cell.n_items != min(cell.limit or cell.n_total, cell.n_total) for cell in ordered):
        notes.append("not all items were answered")
    splits = sorted({cell.split for cell in ordered})
    if len(splits) > 1:
        notes.append("the split differs between seeds, so the training data did")
    missing = [seed for seed in seeds if seed not in chosen]
    if missing:
        notes.append("not run" if missing == [None] else f"missing seeds {', '.join(map(str, missing))}")
    answered = {cell.seed: items[cell.key] for cell in ordered if cell.key in items}
    asked = {one.asked for one in answered.values()}
    return Row(
        *(model, family, method, arm, mix, task, "/".join(splits)),
        n_items=min(counts) if counts else None,
        by_seed={cell.seed: cell.exact_match[name] for cell in ordered} if name else {},
        option_rank=mean(cell.option_rank for cell in ordered),
        unparsed_rate=mean(cell.unparsed.get(name) for cell in ordered) if name else None,
        truncated_rate=mean(cell.truncated for cell in ordered),
        complete=not notes,
        reported=reported(model=model, method=method, arm=arm, mix=mix or None, task=task),
        settings=settings,
        scores={seed: one.correct[name] for seed, one in answered.items()} if name else {},
        asked=asked.pop() if len(asked) == 1 else None,
        cells={cell.seed: cell.key for cell in ordered},
        stand_ins=any(cell.stand_ins for cell in ordered),
        notes=tuple(dict.fromkeys(notes)),
    )


def _entrants(rows: list[Row]) -> list[list[Row]]:
    """Task rows that belong together in a mean: all mixes of an arm, or each mix alone where mixes share a task."""
    if len({row.task for row in rows}) == len(rows):
        return [rows] if rows else []
    return [[row for row in rows if row.mix == mix] for mix in dict.fromkeys(row.mix for row in rows)]


def _mean_rows(entrant: list[Row], audit: DataAudit | None) -> list[Row]:
    sets = [(group, GROUP_MEMBERS[group], {row.task: row for row in entrant}) for group in GROUPS]
    if audit is not None:
        sets += [(name, members, kept_rows(entrant, audit, name)) for name, members in CLEAN_MEMBERS.items()]
    return [_mean_row(name, members, by_task) for name, members, by_task in sets if set(members) & set(by_task)]


def _mean_row(group: str, members: Sequence[str], by_task: dict[str, Row]) -> Row:
    """The macro mean over the members that have answers, at the seeds which all of them have."""
    listed = [by_task[task] for task in members if task in by_task]
    present = [row for row in listed if row.by_seed]
    first = listed[0]
    split = SPLIT_OF_GROUP.get(group, "")
    seeds = set.intersection(*(set(row.by_seed) for row in present)) if present else set()
    notes: list[str] = []
    missing = [task for task in members if task not in {row.task for row in present}]
    if missing:
        notes.append(f"without {', '.join(missing)}")
    moved = [row.task for row in present if split and row.split != split]
    if moved:
        notes.append(f"{', '.join(moved)}: not {split} in this run, by what the mix held")
    partial = [row.task for row in present if not row.complete]
    if partial:
        notes.append(f"{', '.join(partial)}: partial")
    settings = frozenset(setting for row in present for setting in row.settings)
    if len(settings) > 1:
        notes.append("mixed: " + "; ".join(sorted(describe_setting(setting) for setting in settings)))

    def over(value: Callable[[Row], float | None]) -> float | None:
        return mean(value(row) for row in present)

    return Row(
        *(first.model, first.family, first.method, first.arm),
        mix="+".join(dict.fromkeys(row.mix for row in listed)),
        task=f"mean:{group}",
        split=split,
        n_items=sum(row.n_items or 0 for row in present) or None,
        by_seed={
            seed: math.fsum(row.by_seed[seed] for row in present) / len(present)
            for seed in sorted(seeds, key=lambda seed: -1 if seed is None else seed)
        },
        option_rank=over(lambda row: row.option_rank),
        unparsed_rate=over(lambda row: row.unparsed_rate),
        truncated_rate=over(lambda row: row.truncated_rate),
        complete=not notes,
        settings=settings,
        members=tuple(row.task for row in present),
        parts=tuple(present),
        stand_ins=any(row.stand_ins for row in present),
        notes=tuple(notes),
    )


def describe_setting(setting: Setting) -> str:
    """`hf bfloat16, first 20 items`."""
    engine, dtype, limit = setting
    return f"{engine} {dtype}, " + ("all items" if limit is None else f"first {limit} items")


def number(value: float | None) -> str:
    """Percent with two decimals; empty for a missing number; no negative zero.

    Rounded twice, so that the last bit, which machines may differ in, never decides how a half is rounded.
    """
    text = "" if value is None else f"{round(value, 9):.2f}"
    return "0.00" if text == "-0.00" else text


def chance(p_value: float | None) -> str:
    """A p-value with three digits; empty for a missing one."""
    return "" if p_value is None else f"{p_value:.3g}"


def csv_values(row: Row) -> dict[str, str]:
    """One line of leaderboard.csv by column."""
    values = dict.fromkeys(COLUMNS, "")
    values |= {name: getattr(row, name) for name in ("model", "family", "method", "arm", "mix", "task", "split")}
    values["n_seeds"] = str(len(row.by_seed) or "")
    values["n_items"] = str(row.n_items or "")
    for name in ("accuracy", "seed_std", "delta_vs_sft", "option_rank", "unparsed_rate", "truncated_rate"):
        values[name] = number(getattr(row, name))
    values |= dict(zip(("ci_low", "ci_high"), map(number, row.interval or (None, None)), strict=True))
    if row.versus is not None:
        values["delta_ci_low"], values["delta_ci_high"] = number(100 * row.versus.low), number(100 * row.versus.high)
        values["p_value"] = chance(row.versus.p_value)
    values["p_holm"], values["verdict"] = chance(row.p_holm), row.verdict
    values["complete"] = "true" if row.complete else "false"
    values["reported"] = "" if row.reported is None else f"{row.reported:g}"
    return values


def to_csv(rows: Iterable[Row]) -> str:
    """leaderboard.csv: exactly `COLUMNS`, \\n line ends, quotes only where a value needs them."""
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(csv_values(row) for row in rows)
    return out.getvalue()
