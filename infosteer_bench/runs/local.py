"""Run a plan on this machine: what is done is believed only if it verifies, what is missing is done, the rest waits.

Rerunning the same command resumes: finished records are read back and checked, nothing is repeated. Interrupting
(Ctrl-C, SIGTERM, SIGKILL) loses at most the checkpoint or cell in hand.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from infosteer_bench import provenance
from infosteer_bench.errors import UserError
from infosteer_bench.records import (
    CellRecord,
    CheckpointRecord,
    CorruptRecord,
    file_sha256,
    read_record,
    read_records,
    samples_path,
    write_atomic,
)
from infosteer_bench.runs.inputs import Places
from infosteer_bench.runs.plan import Plan, PlannedCheckpoint, cell_identity, cell_key, describe, task_split
from infosteer_bench.runs.progress import Progress
from infosteer_bench.runs.worker import Worker


@dataclass
class Survey:
    """How far a plan is: per checkpoint its valid record and the tasks still open."""

    records: dict[str, CheckpointRecord] = field(default_factory=dict)
    open_tasks: dict[str, list[str]] = field(default_factory=dict)
    done: int = 0
    failed: int = 0
    stale: int = 0
    problems: list[str] = field(default_factory=list)
    resplit: list[tuple[CellRecord, str]] = field(default_factory=list)  # done, but ID or OOD by this plan's mixes

    @property
    def missing(self) -> int:
        """Cells still to do, failed ones included."""
        return sum(len(tasks) for tasks in self.open_tasks.values())


def survey(plan: Plan, run_dir: Path) -> Survey:
    """Compare the plan with the records on disk; changes nothing."""
    found = Survey()
    current: set[str] = set()
    for planned in plan.checkpoints:
        path = run_dir / CheckpointRecord.FOLDER / f"{planned.key}.json"
        record = None
        if path.exists():
            try:
                record = read_record(path, CheckpointRecord)
            except CorruptRecord as error:
                found.problems.append(f"{error}: will be made anew")
        if record is not None and record.status == "success":
            found.records[planned.key] = record
        found.open_tasks[planned.key] = []
        for task in planned.tasks:
            key, state, cell = _cell_state(plan, planned, task, run_dir, record)
            current.add(key)
            split = task_split(plan, planned, task)
            if state == "done" and cell is not None and cell.split != split:
                found.resplit.append((cell, split))
            found.done += state == "done"
            found.failed += state == "failed"
            if state != "done":
                found.open_tasks[planned.key].append(task)
            if state == "corrupt":
                found.problems.append(f"cell {key} does not verify: will be made anew")
    cells = {path.stem for path in (run_dir / CellRecord.FOLDER).glob("*.json")}
    found.stale = len(cells - current)
    return found


def _cell_state(
    plan: Plan, planned: PlannedCheckpoint, task: str, run_dir: Path, record: CheckpointRecord | None
) -> tuple[str, str, CellRecord | None]:
    identity = cell_identity(plan, planned, task, (record.weight_digest if record else None) or "")
    key = cell_key(planned, task, identity)
    path = run_dir / CellRecord.FOLDER / f"{key}.json"
    if record is None or not path.exists():
        return key, "missing", None
    try:
        cell = read_record(path, CellRecord)
        if cell.status == "failed":
            return key, "failed", cell
        whole = cell.samples_sha256 == file_sha256(samples_path(run_dir, key))
        return key, "done" if whole else "corrupt", cell
    except (CorruptRecord, OSError):
        return key, "corrupt", None


@dataclass(frozen=True)
class Outcome:
    """What a run ended with."""

    done: int
    failures: tuple[str, ...]


def run(plan: Plan, run_dir: Path, places: Places, *, quiet: bool = False, keep_weights: bool = False) -> Outcome:
    """Do everything the plan asks for that is not done yet. Raises UserError if another run holds the folder.

    keep_weights: checkpoints stay on disk after all their cells are done; they are large, so by default they go.
    """
    with _lock(run_dir):
        write_atomic(run_dir / "grid.json", _json(describe(plan, provenance.public_command())))
        _write_plan(plan, run_dir)  # with the grid, so that a board made in between shows this grid's cells only
        found = survey(plan, run_dir)
        for cell, split in found.resplit:
            cell.model_copy(update={"split": split}).save(run_dir)
        failures: list[str] = []
        if found.missing:
            with Progress(total=found.missing, log=run_dir / "run.log", quiet=quiet) as progress:
                for problem in found.problems:
                    progress.line(f"note: {problem}")
                worker = Worker(plan, run_dir, places, progress)
                try:
                    for group in _by_model(plan):
                        failures += _run_group(worker, group, found, keep_weights=keep_weights)
                finally:
                    worker.close_engine()
        _write_plan(plan, run_dir)
        return Outcome(survey(plan, run_dir).done, tuple(failures))


def train_only(plan: Plan, run_dir: Path, places: Places, *, quiet: bool = False) -> list[str]:
    """Train what is missing and evaluate nothing. Under a launcher every rank calls this; rank 0 keeps the records."""
    main = os.environ.get("RANK", "0") == "0"
    failures: list[str] = []
    with _lock(run_dir) if main else contextlib.nullcontext():
        found = survey(plan, run_dir)
        with Progress(total=0, log=run_dir / "run.log", quiet=quiet or not main) as progress:
            worker = Worker(plan, run_dir, places, progress, records=main)
            for planned in plan.checkpoints:
                record = found.records.get(planned.key)
                if not planned.method.trains or (record is not None and worker.has_weights(planned, record)):
                    continue
                record = worker.checkpoint(planned)
                if record.status == "failed":
                    failures.append(f"{planned.label}: {record.error}")
    return failures if main else []


def _by_model(plan: Plan) -> Iterator[list[PlannedCheckpoint]]:
    for model in plan.inputs.models:
        yield [planned for planned in plan.checkpoints if planned.model.id == model.id]


def _run_group(worker: Worker, group: list[PlannedCheckpoint], found: Survey, *, keep_weights: bool) -> list[str]:
    """Train all open checkpoints of one model, then answer with one engine."""
    failures: list[str] = []
    ready: list[tuple[PlannedCheckpoint, CheckpointRecord]] = []
    for planned in group:
        if not found.open_tasks[planned.key]:
            continue
        record = found.records.get(planned.key)
        if record is None or not worker.has_weights(planned, record):
            record = worker.checkpoint(planned)
        if record.status == "success":
            ready.append((planned, record))
            continue
        failures.append(f"{planned.label}: {record.error}")
        for task in found.open_tasks[planned.key]:
            worker.progress.cell(f"{planned.label} {task}: no checkpoint", failed=True)
    for planned, record in ready:
        before = found.records.get(planned.key)
        same = before is not None and before.weight_digest == record.weight_digest
        # weights that came out different from the recorded ones invalidate all their cells
        tasks = found.open_tasks[planned.key] if same else list(planned.tasks)
        before_this = len(failures)
        for cell in worker.cells(planned, record, tasks):
            worker.progress.cell(f"{planned.label} {_result(cell)}", failed=cell.status == "failed")
            if cell.status == "failed":
                failures.append(f"{planned.label} {cell.task}: {cell.error}")
        if len(failures) == before_this and not keep_weights:
            worker.drop_weights(planned)
    return failures


def _result(cell: CellRecord) -> str:
    if cell.status == "failed":
        return f"{cell.task} FAILED: {cell.error}"
    name = "robust" if "robust" in cell.exact_match else next(iter(cell.exact_match), None)
    shown = "no score" if name is None else f"{cell.exact_match[name]:.1f} %"
    return f"{cell.task}: {shown}, {cell.n_items} items, {cell.time_s:.1f} s"


def _write_plan(plan: Plan, run_dir: Path) -> None:
    """plan.json: the keys that count now; records of other keys are stale and stay out of the board."""
    records, _ = read_records(run_dir, CheckpointRecord)
    cells: list[str] = []
    for planned in plan.checkpoints:
        record = records.get(planned.key)
        if record is not None and record.weight_digest:
            for task in planned.tasks:
                cells.append(cell_key(planned, task, cell_identity(plan, planned, task, record.weight_digest)))
    keys = {"checkpoints": [planned.key for planned in plan.checkpoints], "cells": cells}
    write_atomic(run_dir / "plan.json", _json(keys))


@contextlib.contextmanager
def _lock(run_dir: Path) -> Iterator[None]:
    """One writer per folder; the kernel frees the lock when its holder dies, however it dies."""
    run_dir.mkdir(parents=True, exist_ok=True)
    path = run_dir / ".lock"
    with path.open("a+", encoding="utf-8") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            handle.seek(0)
            holder = handle.read().strip() or "another process"
            raise UserError(
                f"{run_dir} is in use by {holder}", hint="wait for it, or choose another --output"
            ) from None
        handle.truncate(0)
        handle.write(f"process {os.getpid()}")
        handle.flush()
        yield


def _json(value: object) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"
