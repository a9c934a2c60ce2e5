"""provenance.json: what a board was made of, from the records alone, so that it can be checked like the tables."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from infosteer_bench.leaderboard.store.compact import BoardRecords
from infosteer_bench.leaderboard.views.facts import (
    HOW_TO_CHECK,
    HOW_TO_REBUILD,
    instruct_models,
    settings_of,
    stand_ins_of,
    training_rows,
)
from infosteer_bench.records import canonical_json

MANY = 12  # more distinct values than this are told by their number, first and last (times of day, for example)


def to_provenance(board: BoardRecords, *, records_sha256: dict[str, str]) -> str:
    """The whole file. records_sha256: of the files beside it."""
    merged: dict[str, list[Any]] = {}
    for record in (*board.checkpoints, *board.cells):
        for key, value in record.provenance.items():
            known = merged.setdefault(key, [])
            if value not in known:
                known.append(value)
    content = {
        "board": board.name,
        "how_to_rebuild": HOW_TO_REBUILD.format(folder="THIS_FOLDER"),
        "how_to_check": HOW_TO_CHECK.format(folder="THIS_FOLDER"),
        "grid": board.grid,
        "left_out": board.left_out,
        "cells": len(board.cells),
        "checkpoints": len(board.checkpoints),
        "items": sum(cell.n_items for cell in board.cells),
        "settings": settings_of(board),
        "stand_ins": stand_ins_of(board),
        "instruct_models": instruct_models(board),
        "weights": [
            {
                **{name: getattr(record, name) for name in ("key", "model", "method", "arm", "mix", "seed")},
                "weight_digest": record.weight_digest,
            }
            for record in board.checkpoints
        ],
        "data": _distinct([record.data for record in board.checkpoints if record.data]),
        "training": training_rows(board),
        "recorded": {key: _distinct(values) for key, values in sorted(merged.items())},
        "records_sha256": records_sha256,
    }
    return json.dumps(content, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def _distinct(values: Iterable[Any]) -> Any:
    """The value if there is one, else the sorted distinct values, or their number where there are very many."""
    found = sorted({canonical_json(value) for value in values})
    if len(found) > MANY:
        return {"distinct": len(found), "first": json.loads(found[0]), "last": json.loads(found[-1])}
    parsed = [json.loads(text) for text in found]
    return parsed[0] if len(parsed) == 1 else parsed
