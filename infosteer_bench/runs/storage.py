"""Checkpoints on disk: are they those of their records, how many may lie there at once, and the most that ever did
(`<run>/storage.json`)."""

from __future__ import annotations

import fcntl
import shutil
from dataclasses import dataclass
from pathlib import Path

from infosteer_bench.cache import remembered_digest
from infosteer_bench.errors import UserError
from infosteer_bench.models.weights import weight_digest
from infosteer_bench.records import CheckpointRecord, CorruptRecord, digest, file_sha256, read_sealed, write_sealed

WEIGHTS, CURVES, FILE = "weights", "curves", "storage.json"
PASSING = ".passing"
"""Ends the name of the empty file beside weights that go when their cells are done; those that stay have none."""


@dataclass(frozen=True)
class Storage:
    """What becomes of trained checkpoints.

    keep: they stay after their cells are done. most: at most so many lie on disk at once, trained and answered batch
    by batch; None for all of a model's. Not both.
    """

    keep: bool = False
    most: int | None = None

    def __post_init__(self) -> None:
        if self.keep and self.most:
            raise UserError(
                "--keep-checkpoints and --max-checkpoints-on-disk exclude one another", allowed="one of them"
            )


def file_digests(folder: Path) -> dict[str, str]:
    """sha256 of a checkpoint's files by name."""
    return {path.name: file_sha256(path) for path in sorted(folder.iterdir()) if path.is_file()}


def holds(folder: Path, record: CheckpointRecord) -> bool:
    """Whether the checkpoint in `folder` is the one of the record, byte for byte."""
    try:
        if weight_digest(folder) != record.weight_digest:
            return False
        files = [path for path in folder.iterdir() if path.is_file()]
        found = remembered_digest("files 1", files, lambda: digest(file_digests(folder)))
        return not record.files or found == digest(record.files)
    except (OSError, UserError):
        return False


def drop(folder: Path) -> None:
    """Remove a checkpoint's weights, then the mark that they were to go."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.with_name(folder.name + PASSING).unlink(missing_ok=True)


def note_storage(run_dir: Path) -> None:
    """Look at the checkpoints that lie in a run's folder now, and raise the recorded high-water marks to it."""
    folders = [folder for folder in (run_dir / WEIGHTS).glob("*") if folder.is_dir()]
    size = sum(file.stat().st_size for folder in folders for file in folder.rglob("*") if file.is_file())
    with (run_dir / f".{FILE}.lock").open("w") as lock:  # workers side by side note theirs too
        fcntl.flock(lock, fcntl.LOCK_EX)
        before = high_water(run_dir)
        now = {"most_checkpoints": len(folders), "most_bytes": size}
        marks = {name: max(value, before.get(name, 0)) for name, value in now.items()}
        if marks != before:
            write_sealed(run_dir / FILE, marks)


def high_water(run_dir: Path) -> dict[str, int]:
    """most_checkpoints and most_bytes on disk at once over all runs into this folder; {} before the first."""
    try:
        return read_sealed(run_dir / FILE)
    except CorruptRecord:
        return {}
