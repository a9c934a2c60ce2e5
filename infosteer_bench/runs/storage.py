"""Checkpoints on disk: how many may lie there at once, and the most that ever did (`<run>/storage.json`)."""

from __future__ import annotations

import fcntl
import json
from dataclasses import dataclass
from pathlib import Path

from infosteer_bench.records import write_atomic

WEIGHTS, FILE = "weights", "storage.json"


@dataclass(frozen=True)
class Storage:
    """What becomes of trained checkpoints.

    keep: they stay after their cells are done. most: at most so many lie on disk at once, trained and answered batch
    by batch; None for all of a model's. Not both.
    """

    keep: bool = False
    most: int | None = None


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
            write_atomic(run_dir / FILE, json.dumps(marks, indent=1) + "\n")


def high_water(run_dir: Path) -> dict[str, int]:
    """most_checkpoints and most_bytes on disk at once over all runs into this folder; {} before the first."""
    try:
        return json.loads((run_dir / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
