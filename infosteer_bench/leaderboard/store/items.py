"""Which items were right, cell by cell, as arrays: what intervals and paired tests are made of."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infosteer_bench.leaderboard.store.compact import ITEMS_FILE


@dataclass(frozen=True, eq=False)
class ItemScores:
    """One cell's items, by their place in the test file. correct: by filter, 0 to 1 each. asked: digest of places and
    prompts; two cells whose digests are equal were asked the same."""

    correct: dict[str, NDArray[np.float64]]
    asked: str


def read_scores(board_dir: Path) -> dict[str, ItemScores]:
    """By cell key. Raises OSError or pyarrow's exceptions where the file cannot be read."""
    import pyarrow.parquet as pq

    table = pq.ParquetFile(board_dir / ITEMS_FILE).read(columns=["cell", "doc_id", "prompt_digest", "correct"])
    cell, correct = (_codes(table.column(name).combine_chunks()) for name in ("cell", "correct"))
    prompts = np.asarray(table.column("prompt_digest").to_numpy(zero_copy_only=False), dtype="S64")
    places = table.column("doc_id").to_numpy()
    scores = [json.loads(text) for text in correct.names]
    order = np.lexsort((places, cell.codes))
    found: dict[str, ItemScores] = {}
    starts = np.searchsorted(cell.codes[order], np.arange(len(cell.names) + 1))
    for number, key in enumerate(cell.names):
        rows = order[starts[number] : starts[number + 1]]
        found[key] = ItemScores(
            correct={
                name: np.array([float(one.get(name, np.nan)) for one in scores])[correct.codes[rows]]
                for name in scores[int(correct.codes[rows[0]])]
            },
            asked=hashlib.sha256(places[rows].tobytes() + prompts[rows].tobytes()).hexdigest(),
        )
    return found


@dataclass(frozen=True, eq=False)
class _Codes:
    codes: NDArray[np.int64]
    names: list[str]


def _codes(column: Any) -> _Codes:
    encoded = column.dictionary_encode()
    return _Codes(encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64), encoded.dictionary.to_pylist())
