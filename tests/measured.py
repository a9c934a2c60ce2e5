"""Boards made to measure: cells with their items, for tests of what is drawn and printed of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from infosteer_bench.benchmark import GROUPS
from infosteer_bench.leaderboard.numbers.board import Board
from infosteer_bench.leaderboard.numbers.row import Row
from infosteer_bench.leaderboard.numbers.rows import build_rows
from infosteer_bench.leaderboard.store.compact import BoardRecords
from infosteer_bench.leaderboard.store.items import ItemScores
from infosteer_bench.leaderboard.store.layout import read_layout
from infosteer_bench.records import CellRecord, digest

STEERED = ("infosteer-intervention", "infosteer-regularization")
METHODS = ("base", "sft", *STEERED)
COMMONSENSE = tuple(task for task in GROUPS["all"] if task not in GROUPS["math"])


class MadeBoard:
    """Cells of models x methods x seeds x tasks; by default `infosteer-intervention` wins by far and the other ties."""

    def __init__(
        self,
        *,
        tasks: Iterable[str] = GROUPS["all"],
        models: Sequence[str] = ("m",),
        methods: Sequence[str] = METHODS,
        seeds: Iterable[int] = (0, 1, 2),
        items: int = 60,
        name: str = "made",
    ) -> None:
        self.name, self.models, self.methods = name, tuple(models), tuple(methods)
        self.cells: list[CellRecord] = []
        self.items: dict[str, ItemScores] = {}
        for model in models:
            for task in tasks:
                place = np.arange(items)
                for method in methods:
                    for seed in (None,) if method == "base" else seeds:
                        luck = 0 if seed is None else seed % 2
                        share = {"base": 0.2, STEERED[0]: 0.8}.get(method, 0.5)
                        self.add(model, method, seed, task, place < round(share * items) + luck)

    def add(
        self, model: str, method: str, seed: int | None, task: str, right: np.ndarray, *, arm: str = "", **changes
    ) -> None:
        """One more cell, whose items were answered as `right` says; it takes the place of an earlier one."""
        mix = "gsm8k" if task in GROUPS["math"] else "commonsense"
        values = {
            "status": "success",
            "identity": {},
            "checkpoint_key": digest([model, method, arm, seed]),
            "model": model,
            "family": "llama",
            "method": method,
            "arm": arm,
            "task": task,
            "seed": seed,
            "mix": None if seed is None else mix,
            "split": "OOD" if task in GROUPS["ood"] else "ID",
            "engine": "hf",
            "dtype": "float32",
            "limit": None,
            "n_items": len(right),
            "n_total": len(right),
            "exact_match": {"robust": 100 * float(np.mean(right))},
            "unparsed": {"robust": 0.0},
            "truncated": 0.0,
            **changes,
        }
        key = digest([model, method, arm, seed, task])
        self.cells = [cell for cell in self.cells if cell.key != key]
        self.cells.append(CellRecord.model_validate({"key": key, **values}))
        self.items[key] = ItemScores({"robust": np.asarray(right, dtype=np.float64)}, asked=f"{task}-{len(right)}")

    @property
    def records(self) -> BoardRecords:
        return BoardRecords(name=self.name, grid=None, cells=tuple(self.cells), checkpoints=())

    @property
    def board(self) -> Board:
        """The board of these cells."""
        return Board(self.records, self.rows)

    @property
    def rows(self) -> list[Row]:
        methods = dict.fromkeys((cell.method, cell.arm) for cell in self.cells)
        grid = {
            "models": [{"id": model} for model in self.models],
            "methods": [
                {"name": name, "arm": arm} for name, arm in sorted(methods, key=lambda key: self._place(key[0]))
            ],
        }
        return build_rows(self.cells, read_layout(grid, self.cells), self.items)

    def _place(self, method: str) -> int:
        return self.methods.index(method) if method in self.methods else len(self.methods)
