"""Rows of a board: one per model x method x arm x mix x task, then the means over groups of tasks.

Pure functions from records to rows: no files, no clock, no host. Numbers are percent. The order of rows follows
the grid (models, methods, mixes) and docs/method.md (tasks, groups), never the order in which cells were run, and
sums use `math.fsum`, so equal answers give equal rows.

A missing number is None, never 0. A row that lacks a seed, a mean that lacks a member, and a row whose cells come
from different engines, dtypes or limits have `complete=False` and say why in `notes`.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

from infosteer_bench.benchmark import GROUPS
from infosteer_bench.leaderboard.numbers.clean import CLEAN_MEMBERS, kept_rows, with_overlap
from infosteer_bench.leaderboard.numbers.comparisons import with_statistics
from infosteer_bench.leaderboard.numbers.row import (
    DEFAULT_FILTER,
    OTHER_FILTERS,
    Row,
    Setting,
    describe_setting,
    filter_of,
    mean,
)
from infosteer_bench.leaderboard.store.items import ItemScores
from infosteer_bench.leaderboard.store.layout import Layout
from infosteer_bench.leaderboard.store.reported import reported
from infosteer_bench.records import CellRecord, DataAudit

MEANS = tuple(f"mean:{group}" for group in (*GROUPS, *CLEAN_MEMBERS))
SPLIT_OF_GROUP = {"id": "ID", "ood": "OOD", "ood5": "OOD"}


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
        filters={name: mean(cell.exact_match.get(name) for cell in ordered) for name in OTHER_FILTERS},
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
    sets = [(group, GROUPS[group], {row.task: row for row in entrant}) for group in GROUPS]
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
        filters={name: over(lambda row, name=name: row.filters.get(name)) for name in OTHER_FILTERS},
        unparsed_rate=over(lambda row: row.unparsed_rate),
        truncated_rate=over(lambda row: row.truncated_rate),
        complete=not notes,
        settings=settings,
        members=tuple(row.task for row in present),
        parts=tuple(present),
        stand_ins=any(row.stand_ins for row in present),
        notes=tuple(notes),
    )
