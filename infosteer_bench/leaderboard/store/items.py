"""records/items.parquet: which items were right, cell by cell, as arrays, and whether the recorded scores follow.

    items = Items(board_dir / ITEMS_FILE)
    wrong = items.disagree(cells)         # keys of cells whose scores are not those of their items
    scores = items.scores()               # what intervals and paired tests are made of

The file is opened once, and each column is read once.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infosteer_bench.records import ITEM_COLUMNS, CellRecord

TOLERANCE = 0.005  # percent; scores are printed with two decimals

Places = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class ItemScores:
    """One cell's items, by their place in the test file. correct: by filter, 0 to 1 each. asked: digest of places and
    prompts; two cells whose digests are equal were asked the same."""

    correct: dict[str, NDArray[np.float64]]
    asked: str


@dataclass(frozen=True, eq=False)
class _Codes:
    """A column of few distinct texts: `names[codes[line]]`."""

    codes: Places
    names: list[str]


@dataclass(frozen=True, eq=False)
class Items:
    """Every item of every cell of a board. Reading raises OSError or pyarrow's exceptions where the file is damaged."""

    path: Path

    def column(self, name: str) -> Any:
        """One column as pyarrow has it, read anew: not kept, since all generations fill much memory."""
        return self._file.read(columns=[name]).column(name)

    def lines_of(self, key: str) -> Places:
        """Where the items of a cell lie in the file, in the order of the test file."""
        number = self._numbers[key]
        return self._order[self._starts[number] : self._starts[number + 1]]

    @cached_property
    def docs(self) -> Places:
        """Of every line its item's place in the test file."""
        return self.column("doc_id").to_numpy()

    def scores(self) -> dict[str, ItemScores]:
        """By cell key."""
        prompts = np.asarray(self.column("prompt_digest").to_numpy(), dtype="S64")
        scores = [json.loads(text) for text in self._correct.names]
        found: dict[str, ItemScores] = {}
        for key in self._cells.names:
            lines = self.lines_of(key)
            codes = self._correct.codes[lines]
            found[key] = ItemScores(
                correct={
                    name: np.array([float(one.get(name, np.nan)) for one in scores])[codes]
                    for name in scores[int(codes[0])]
                },
                asked=hashlib.sha256(self.docs[lines].tobytes() + prompts[lines].tobytes()).hexdigest(),
            )
        return found

    def disagree(self, cells: Iterable[CellRecord]) -> list[str]:
        """Keys of cells whose recorded scores do not follow from their items; of all where the file is damaged."""
        import pyarrow as pa

        cells = list(cells)
        try:
            whole = {"cell", *ITEM_COLUMNS} <= set(self._file.schema_arrow.names)
            marks = self._marks() if whole else {}
        except (OSError, pa.ArrowException, KeyError):
            whole, marks = False, {}
        if not whole:
            return [cell.key for cell in cells]
        return [cell.key for cell in cells if cell.samples_sha256 and not _follows(cell, marks.get(cell.key, []))]

    def _marks(self) -> dict[str, list[tuple[int, dict[str, float]]]]:
        """By cell: how many items have which scores by filter."""
        scores = [json.loads(text) for text in self._correct.names]
        kinds, counts = np.unique(self._cells.codes * len(scores) + self._correct.codes, return_counts=True)
        found: dict[str, list[tuple[int, dict[str, float]]]] = {}
        for kind, count in zip(kinds.tolist(), counts.tolist(), strict=True):
            found.setdefault(self._cells.names[kind // len(scores)], []).append((count, scores[kind % len(scores)]))
        return found

    @cached_property
    def _file(self) -> Any:
        import pyarrow.parquet as pq

        return pq.ParquetFile(self.path)

    @cached_property
    def _cells(self) -> _Codes:
        return self._codes("cell")

    @cached_property
    def _correct(self) -> _Codes:
        return self._codes("correct")

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {key: number for number, key in enumerate(self._cells.names)}

    @cached_property
    def _order(self) -> Places:
        return np.lexsort((self.docs, self._cells.codes))

    @cached_property
    def _starts(self) -> Places:
        return np.searchsorted(self._cells.codes[self._order], np.arange(len(self._cells.names) + 1))

    def _codes(self, name: str) -> _Codes:
        encoded = self.column(name).combine_chunks().dictionary_encode()
        codes = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
        return _Codes(codes, encoded.dictionary.to_pylist())


def _follows(cell: CellRecord, marks: list[tuple[int, dict[str, float]]]) -> bool:
    n = sum(count for count, _ in marks)
    right: dict[str, float] = {}
    for count, scores in marks:
        for name, value in scores.items():
            right[name] = right.get(name, 0.0) + count * value
    return (
        n == cell.n_items
        and right.keys() == cell.exact_match.keys()
        and all(abs(100 * right[name] / n - value) <= TOLERANCE for name, value in cell.exact_match.items())
    )
