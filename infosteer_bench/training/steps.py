"""Step checkpoints: what a training writes on its way, so that a killed one goes on where it was.

transformers writes them (`<scratch>/checkpoint-<step>/`); here they are sealed: their files are fsynced, and a file
with the sha256 of each is written last. What is not sealed, or no longer as it was sealed, is not resumed from.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from infosteer_bench.records import CorruptRecord, file_sha256, read_sealed, write_atomic, write_sealed

_PREFIX, _SEAL = "checkpoint-", "seal.json"
_CURVE = "curve.jsonl"


def keep_newest(scratch: Path, step: int, curve: Path | None) -> None:
    """Seal the checkpoint of `step`, with the curve so far, and remove those before it."""
    folder = scratch / f"{_PREFIX}{step}"
    if curve is not None and curve.is_file():
        write_atomic(folder / _CURVE, curve.read_bytes())
    files = _files(folder)
    for path in files:
        with path.open("rb") as handle:
            os.fsync(handle.fileno())
    write_sealed(folder / _SEAL, {str(path.relative_to(folder)): file_sha256(path) for path in files})
    for other in _folders(scratch).values():
        if other != folder:
            shutil.rmtree(other, ignore_errors=True)


def last_step(scratch: Path, on_problem: Callable[[str], None] | None = None) -> int | None:
    """The newest step with a checkpoint as it was sealed. Others are removed; `on_problem` is told of damaged ones."""
    last = None
    for step, folder in sorted(_folders(scratch).items(), reverse=True):
        if last is None and _is_as_sealed(folder):
            last = step
            continue
        if on_problem and (folder / _SEAL).exists() and last is None:
            on_problem(f"the checkpoint of step {step} does not verify: its steps are trained again")
        shutil.rmtree(folder, ignore_errors=True)  # every rank of a launcher does so
    return last


def restore_curve(curve: Path, scratch: Path, step: int | None) -> None:
    """The curve as it was at `step`; what came after it is trained again. Empty for None."""
    curve.parent.mkdir(parents=True, exist_ok=True)
    kept = scratch / f"{_PREFIX}{step}" / _CURVE
    write_atomic(curve, kept.read_bytes() if step is not None and kept.is_file() else b"")


def _is_as_sealed(folder: Path) -> bool:
    try:
        return read_sealed(folder / _SEAL) == {
            str(path.relative_to(folder)): file_sha256(path) for path in _files(folder)
        }
    except (CorruptRecord, OSError):
        return False


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name != _SEAL)


def _folders(scratch: Path) -> dict[int, Path]:
    found = {path.name.removeprefix(_PREFIX): path for path in scratch.glob(f"{_PREFIX}*")}
    return {int(number): path for number, path in found.items() if number.isdecimal()}
