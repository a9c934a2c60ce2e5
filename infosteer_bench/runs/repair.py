"""What a stopped run or a bad disk left behind, put in order before the work goes on.

Records and items that do not verify need nothing here: they do not count (`status`), and are written anew.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from infosteer_bench.leaderboard.store.finished import NOTE_FILE
from infosteer_bench.records import CellRecord, CorruptRecord, read_sealed
from infosteer_bench.runs.overlap import FILE as AUDIT
from infosteer_bench.runs.status import Status
from infosteer_bench.runs.storage import FILE as STORAGE
from infosteer_bench.runs.storage import PASSING, WEIGHTS, Storage, drop, note_storage


def sweep(run_dir: Path) -> list[str]:
    """Remove what a killed run was writing; the lock says that nobody is writing it now.

    Returns a line for each file that does not verify and that every run writes anew.
    """
    for pattern in (".*.tmp", "*/.*.tmp"):
        for path in run_dir.glob(pattern):
            path.unlink(missing_ok=True)
    for path in (run_dir / WEIGHTS).glob("*.partial"):
        shutil.rmtree(path, ignore_errors=True)
    cells = {path.stem for path in (run_dir / CellRecord.FOLDER).glob("*.json")}
    for path in (run_dir / "samples").glob("*.parquet"):
        if path.stem not in cells:  # items are written before the record that vouches for them
            path.unlink(missing_ok=True)
    problems = []
    for name in ("grid.json", "plan.json", AUDIT, STORAGE, NOTE_FILE):
        try:
            if (run_dir / name).exists():
                read_sealed(run_dir / name)
        except CorruptRecord:
            problems.append(f"{name} does not verify: written anew")
            (run_dir / name).unlink()
            if name == STORAGE:
                note_storage(run_dir)
    return problems


def drop_passing(found: Status, storage: Storage, run_dir: Path) -> None:
    """Remove weights whose cells are done, that a killed run had not come to remove; `storage.keep` keeps them."""
    for mark in (run_dir / WEIGHTS).glob(f"*{PASSING}"):
        key = mark.name.removesuffix(PASSING)
        weights = mark.with_name(key)
        if storage.keep:
            mark.unlink()
        elif key in found.open_tasks and not found.has_work(key) and weights not in found.damaged:
            drop(weights)


def repair(found: Status, storage: Storage) -> None:
    """Take weights and curves out of the way that are not those of their record.

    Weights that are to be kept will be trained again; a curve is not worth that, its numbers are in the record.
    """
    for path in found.damaged:
        if path.is_dir():
            drop(path)
            if storage.keep:
                found.retrain.add(path.name)
        else:
            path.replace(path.with_name(path.name + ".damaged"))
