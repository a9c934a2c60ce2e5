"""Run a plan on this machine: what is done is believed only if it verifies, what is missing is done, the rest waits.

Rerunning the same command resumes: finished records are read back and checked, nothing is repeated. Interrupting
(Ctrl-C, SIGTERM, SIGKILL) loses at most the checkpoint or cell in hand.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pickle
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from infosteer_bench import provenance
from infosteer_bench.errors import UserError
from infosteer_bench.records import CheckpointRecord, read_records, write_atomic
from infosteer_bench.runs.group import run_group
from infosteer_bench.runs.inputs import Places
from infosteer_bench.runs.plan import Plan, cell_identity, cell_key, describe
from infosteer_bench.runs.pool import Pool, Task, choose_workers, own_threads
from infosteer_bench.runs.progress import Progress
from infosteer_bench.runs.storage import Storage, high_water
from infosteer_bench.runs.survey import Survey, survey
from infosteer_bench.runs.worker import Worker


@dataclass(frozen=True)
class Outcome:
    """What a run ended with."""

    done: int
    failures: tuple[str, ...]


def run(
    plan: Plan,
    run_dir: Path,
    places: Places,
    *,
    quiet: bool = False,
    storage: Storage | None = None,
    workers: int | None = None,
) -> Outcome:
    """Do everything the plan asks for that is not done yet. Raises UserError if another run holds the folder.

    storage: what becomes of trained checkpoints; they are large, so by default they go when their cells are done.
    workers: processes side by side; None chooses (`pool.choose_workers`).
    """
    storage = storage or Storage()
    choose_workers(plan, len(plan.checkpoints), workers)  # what cannot be is refused before anything is written
    with locked(run_dir) as lock_fd:
        _sweep(run_dir)
        write_atomic(run_dir / "grid.json", _json(describe(plan, provenance.public_command())))
        _write_plan(plan, run_dir)  # with the grid, so that a board made in between shows this grid's cells only
        found = survey(plan, run_dir)
        for cell, split in found.resplit:
            cell.model_copy(update={"split": split}).save(run_dir)
        failures: list[str] = []
        if found.missing:
            open_places = [place for place, planned in enumerate(plan.checkpoints) if found.open_tasks[planned.key]]
            workers = min(choose_workers(plan, len(open_places), workers), storage.most or len(open_places))
            with Progress(total=found.missing, log=run_dir / "run.log", quiet=quiet) as progress:
                for problem in found.problems:
                    progress.note(problem)
                task = Task(plan, run_dir, places, found, storage, workers)
                pool = _pool(task, progress, lock_fd) if workers > 1 else None
                if pool is not None:
                    progress.line(f"{workers} workers side by side, a checkpoint each")
                    failures = pool.run(open_places)
                else:
                    failures = _alone(Worker(plan, run_dir, places, progress), found, storage)
                marks = high_water(run_dir)
                if marks:
                    most = f"{marks['most_checkpoints']} ({marks['most_bytes'] / 1e9:.2f} GB)"
                    progress.line(f"trained checkpoints on disk at once: at most {most}")
        _write_plan(plan, run_dir)
        return Outcome(survey(plan, run_dir).done, tuple(failures))


def _pool(task: Task, progress: Progress, lock_fd: int) -> Pool | None:
    try:
        return Pool(task, progress=progress, lock_fd=lock_fd)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        progress.note(f"one worker: this run cannot be told to another process ({error})")
        return None


def _sweep(run_dir: Path) -> None:
    """Remove half-written files of a run that was killed; the lock says that nobody is writing them now."""
    for pattern in (".*.tmp", "*/.*.tmp"):
        for path in run_dir.glob(pattern):
            path.unlink(missing_ok=True)


def _alone(worker: Worker, found: Survey, storage: Storage) -> list[str]:
    """Everything in this process, model by model, so that one engine answers for all checkpoints of a model."""
    failures: list[str] = []
    try:
        for model in worker.plan.inputs.models:
            group = [planned for planned in worker.plan.checkpoints if planned.model.id == model.id]
            with own_threads(model):
                failures += run_group(worker, group, found, storage)
    finally:
        worker.close_engine()
    return failures


def train_only(plan: Plan, run_dir: Path, places: Places, *, quiet: bool = False) -> list[str]:
    """Train what is missing and evaluate nothing. Under a launcher every rank calls this; rank 0 keeps the records."""
    main = os.environ.get("RANK", "0") == "0"
    failures: list[str] = []
    with locked(run_dir) if main else contextlib.nullcontext():
        found = survey(plan, run_dir)
        with Progress(total=0, log=run_dir / "run.log", quiet=quiet or not main) as progress:
            worker = Worker(plan, run_dir, places, progress, records=main)
            for planned in plan.checkpoints:
                record = found.records.get(planned.key)
                if not planned.method.trains or (record is not None and worker.has_weights(planned, record)):
                    continue
                with own_threads(planned.model):
                    record = worker.checkpoint(planned)
                if record.status == "failed":
                    failures.append(f"{planned.label}: {record.error}")
    return failures if main else []


def _write_plan(plan: Plan, run_dir: Path) -> None:
    """plan.json: the keys that count now; records of other keys are stale and stay out of the board."""
    records, _ = read_records(run_dir, CheckpointRecord)
    cells: list[str] = []
    for planned in plan.checkpoints:
        record = records.get(planned.key)
        if record is not None and record.weight_digest:
            for task in planned.tasks:
                cells.append(cell_key(planned.key, task, cell_identity(plan, planned, task, record.weight_digest)))
    keys = {"checkpoints": [planned.key for planned in plan.checkpoints], "cells": cells}
    write_atomic(run_dir / "plan.json", _json(keys))


@contextlib.contextmanager
def locked(run_dir: Path) -> Iterator[int]:
    """One writer per folder, yields the lock's descriptor; the kernel frees it when its holders die, however they do.

    Workers outlive a parent that was killed by a moment: where the holder named in the file is gone, wait for them.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    path = run_dir / ".lock"
    with path.open("a+", encoding="utf-8") as handle:
        deadline = time.monotonic() + _WORKERS_END_S
        while not _taken(handle):
            handle.seek(0)
            holder = handle.read().strip()
            if _alive(holder) or time.monotonic() > deadline:
                raise UserError(
                    f"{run_dir} is in use by {holder or 'another process'}",
                    hint="wait for it, or choose another --output",
                )
            time.sleep(0.1)
        handle.truncate(0)
        handle.write(f"process {os.getpid()} on {socket.gethostname()}")
        handle.flush()
        yield handle.fileno()


_WORKERS_END_S = 20.0


def _taken(handle: IO[str]) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _alive(holder: str) -> bool:
    """Whether "process 123 on HOST" still runs; true where nobody can say, as of another host's."""
    number, _, host = holder.removeprefix("process ").partition(" on ")
    if not number.isdecimal() or host != socket.gethostname():
        return True
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _json(value: object) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"
