"""What a board says about its own making: the facts of leaderboard.md's header and of provenance.json."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

from infosteer_bench.leaderboard.numbers.row import describe_setting
from infosteer_bench.leaderboard.store.compact import BoardRecords
from infosteer_bench.records import canonical_json

MANY = 12  # more distinct values than this are told by their number, first and last (times of day, for example)
INSTRUCT = re.compile(r"(^|[^a-z])(instruct|chat|it|sft|dpo)([^a-z]|$)", re.IGNORECASE)
HOW_TO_REBUILD = "python -m infosteer_bench leaderboard --output {folder}"
HOW_TO_CHECK = "python -m infosteer_bench leaderboard --output {folder} --check"
AMOUNTS = {"steps": "optimizer steps", "rows": "training rows"}
RECIPE = ("epochs", "max_steps", "max_examples", "learning_rate", "warmup_steps", "batch_size", "gradient_accumulation")
RECIPE += ("max_length", "precision", "export_dtype")
MINIWORLD_NOTE = (
    "**The embedded mini-world:** invented creatures, small numbers, models of one and a half million parameters. A "
    "test bed of the question whether fine-tuning uses what pretraining stored; no evidence about InfoSteer on real "
    "models."
)


def settings_of(board: BoardRecords) -> list[str]:
    """Every engine, dtype and limit that answered, as text."""
    return sorted({describe_setting((cell.engine, cell.dtype, cell.limit)) for cell in board.cells})


def stand_ins_of(board: BoardRecords) -> list[str]:
    """Data files, of training or test, whose bytes are not the pinned upstream ones."""
    return sorted({name for cell in board.cells for name in cell.stand_ins})


def instruct_models(board: BoardRecords) -> list[str]:
    """Models that are not base models, by what the run resolved or by their name.

    The paper fine-tunes base models; an instruction-tuned one starts from another place and must be labelled.
    """
    resolved = {entry["id"] for entry in (board.grid or {}).get("models", []) if entry.get("instruct")}
    return sorted(resolved | {cell.model for cell in board.cells if INSTRUCT.search(cell.model)})


def missing_sources(board: BoardRecords) -> dict[str, list[str]]:
    """Mix -> sources of it that the data root did not have; mixes that had all are left out."""
    missing: dict[str, set[str]] = {}
    for record in board.checkpoints:
        if record.mix is not None and record.data.get("missing"):
            missing.setdefault(record.mix, set()).update(map(str, record.data["missing"]))
    return {mix: sorted(names) for mix, names in sorted(missing.items())}


def training_rows(board: BoardRecords) -> list[dict[str, Any]]:
    """Per model, method arm and mix: seeds, optimizer steps, rows and warnings, as far as the records tell."""
    groups: dict[tuple[str, str, str, str], list[dict[str, Any]]] = {}
    for record in board.checkpoints:
        if record.mix is not None:
            entry = {"seed": record.seed, **record.training}
            groups.setdefault((record.model, record.method, record.arm, record.mix), []).append(entry)
    return [
        {
            **dict(zip(("model", "method", "arm", "mix"), key, strict=True)),
            "seeds": sorted(entry["seed"] for entry in entries),
            "steps": sorted({entry["steps"] for entry in entries if entry.get("steps") is not None}),
            "rows": sorted({entry["rows"] for entry in entries if entry.get("rows") is not None}),
            "warnings": sorted({str(text) for entry in entries for text in entry.get("warnings") or []}),
        }
        for key, entries in sorted(groups.items())
    ]


def to_provenance(board: BoardRecords, *, records_sha256: dict[str, str]) -> str:
    """provenance.json: derived from the records alone, so that it can be checked like the tables."""
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
