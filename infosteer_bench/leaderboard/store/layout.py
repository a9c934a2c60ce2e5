"""What a board should hold: models, method arms, mixes, tasks and seeds, in the order in which they are shown.

Read from the grid that the run wrote down; without one, derived from the records, and then nothing can be known
to be missing but the seeds and tasks that some other row has.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from infosteer_bench.benchmark import GROUPS
from infosteer_bench.records import CellRecord

FIRST_METHODS = ("base", "sft")


@dataclass(frozen=True)
class MethodColumn:
    """A method with its non-default settings; `trains` is False where it has neither mix nor seed."""

    name: str
    arm: str
    trains: bool


@dataclass(frozen=True)
class Layout:
    """The expected content of a board, ordered."""

    models: tuple[str, ...]
    methods: tuple[MethodColumn, ...]
    mixes: tuple[tuple[str, tuple[str, ...]], ...]  # name, its tasks
    tasks: tuple[str, ...]
    seeds: tuple[int, ...]

    def answers(self, method: MethodColumn) -> list[tuple[str, str]]:
        """(mix, task) of every row of one method; the mix is "" for a method that trains nothing."""
        if not method.trains:
            return [("", task) for task in self.tasks]
        return [(mix, task) for mix, of_mix in self.mixes for task in self.tasks if task in of_mix]


def read_layout(grid: dict[str, Any] | None, cells: Iterable[CellRecord]) -> Layout:
    """The layout of a run: what its grid names, and after that whatever else the records hold."""
    found = list(cells)
    grid = grid or {}
    methods = {(entry["name"], entry.get("arm", "")): entry.get("trains") for entry in grid.get("methods", [])}
    for cell in sorted(found, key=lambda cell: (_rank(cell.method, FIRST_METHODS), cell.method, cell.arm)):
        methods[cell.method, cell.arm] = cell.mix is not None
    mixes: dict[str, list[str]] = {entry["name"]: list(entry["tasks"]) for entry in grid.get("mixes", [])}
    for cell in sorted(found, key=lambda cell: (cell.mix or "", cell.task)):
        if cell.mix is not None and cell.task not in mixes.setdefault(cell.mix, []):
            mixes[cell.mix].append(cell.task)
    tasks = _union(grid.get("tasks", []), sorted({cell.task for cell in found}))
    return Layout(
        models=_union((entry["id"] for entry in grid.get("models", [])), sorted({cell.model for cell in found})),
        methods=tuple(
            MethodColumn(name, arm, (name != "base") if trains is None else trains)
            for (name, arm), trains in methods.items()
        ),
        mixes=tuple((name, tuple(of_mix)) for name, of_mix in mixes.items()),
        tasks=tuple(sorted(tasks, key=lambda task: _rank(task, GROUPS["all"]))),
        seeds=_union(grid.get("seeds", []), sorted({cell.seed for cell in found if cell.seed is not None})),
    )


def _rank(name: str, order: tuple[str, ...]) -> int:
    return order.index(name) if name in order else len(order)


def _union(first: Iterable[Any], then: Iterable[Any]) -> tuple[Any, ...]:
    return tuple(dict.fromkeys((*first, *then)))
