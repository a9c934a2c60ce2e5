"""`show KEY`: everything that is recorded of a checkpoint or a cell, and the files that belong to it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from infosteer_bench.errors import UserError
from infosteer_bench.records import CellRecord, CheckpointRecord, CorruptRecord, Record, file_sha256, read_record

KINDS: tuple[type[Record], ...] = (CheckpointRecord, CellRecord)
NAMED = 5
"""Keys that an ambiguous beginning is answered with."""


def show_command(options: argparse.Namespace) -> int:
    """Print one record as JSON, then its files. Raises UserError if the key, or its beginning, is not that of one."""
    found = sorted({path for run_dir in run_dirs(options.runs) for path in records_of(run_dir, options.key)})
    exact = [path for path in found if path.stem == options.key]
    if not found:
        raise UserError(
            f"no record in {options.runs} has a key that begins with {options.key!r}",
            allowed="a key, or its beginning, as files in checkpoints/ and cells/ are named",
        )
    if len(exact or found) > 1:
        names = ", ".join(path.stem for path in found[:NAMED])
        raise UserError(f"{len(found)} records begin with {options.key!r}", allowed=f"one of {names}, ...")
    (path,) = exact or found
    kind = next(kind for kind in KINDS if path.parent.name == kind.FOLDER)
    try:
        record = read_record(path, kind)
    except CorruptRecord as error:
        raise UserError(f"{error}", hint="the same `run` makes it anew") from None
    run_dir = path.parent.parent
    print(json.dumps(record.model_dump(mode="json"), indent=1, ensure_ascii=False))
    for name, state in files_of(run_dir, record):
        print(f"{name}: {state}")
    return 0


def run_dirs(root: Path) -> list[Path]:
    """The run folders in `root`, or `root` itself if it is one. Raises UserError if there is none."""
    found = [path for path in (root, *sorted(root.glob("*/"))) if (path / "plan.json").is_file()]
    if not found:
        raise UserError(f"--runs {root} holds no run", allowed="a run's folder, or the folder of several")
    return found


def records_of(run_dir: Path, beginning: str) -> Iterator[Path]:
    """Records whose keys begin so."""
    for kind in KINDS:
        for path in (run_dir / kind.FOLDER).glob("*.json"):
            if path.stem.startswith(beginning):
                yield path


def files_of(run_dir: Path, record: Record) -> Iterator[tuple[Path, str]]:
    """Files that belong to a record and are there, with what is known of them."""
    data: dict[str, Any] = record.model_dump()
    samples = run_dir / "samples" / f"{record.key}.parquet"
    if samples.is_file():
        yield samples, "as recorded" if file_sha256(samples) == data.get("samples_sha256") else "NOT as recorded"
    checkpoint = data.get("checkpoint_key", record.key)
    curve, log, weights = (
        run_dir / "curves" / f"{checkpoint}.jsonl",
        run_dir / "logs" / f"{checkpoint}{'--' + data['task'] if 'task' in data else ''}.log",
        run_dir / "weights" / checkpoint,
    )
    if curve.is_file():
        yield curve, "loss and entropy by step"
    if log.is_file():
        yield log, "what went wrong"
    if weights.is_dir():
        yield weights, f"{sum(file.stat().st_size for file in weights.rglob('*') if file.is_file()) / 1e6:.1f} MB"
    for answers in sorted((run_dir / "answers").glob(f"{checkpoint}--*.jsonl")):
        yield answers, "answers as they came"
