"""Run a plan on this machine: what is done is believed only if it verifies, what is missing is done, the rest waits.

Rerunning the same command resumes: finished records are read back and checked, nothing is repeated. Interrupting
(Ctrl-C, SIGTERM, SIGKILL) loses at most the checkpoint or cell in hand.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, replace
from pathlib import Path

from infosteer_bench import provenance
from infosteer_bench.records import CheckpointRecord, read_records, write_sealed
from infosteer_bench.runs.in_process import InProcess
from infosteer_bench.runs.inputs import Roots
from infosteer_bench.runs.lock import locked
from infosteer_bench.runs.overlap import keep_audit
from infosteer_bench.runs.placement import at_once, choose_slots, gpus_for, jobs, own_threads
from infosteer_bench.runs.plan import Plan, cell_identity, cell_key, describe
from infosteer_bench.runs.pool import NotTold, Pool
from infosteer_bench.runs.progress import Progress
from infosteer_bench.runs.repair import drop_passing, repair, sweep
from infosteer_bench.runs.runner import Payload, Runner, Slots
from infosteer_bench.runs.schedule import RetryPolicy, Schedule
from infosteer_bench.runs.status import Status, read_status
from infosteer_bench.runs.storage import Storage, high_water
from infosteer_bench.runs.worker import Worker


@dataclass(frozen=True)
class Result:
    """What a run ended with."""

    done: int
    failures: tuple[str, ...]
    repaired: tuple[str, ...] = ()
    """What did not verify and does now, one line each."""


def do(
    plan: Plan,
    run_dir: Path,
    roots: Roots,
    *,
    quiet: bool = False,
    storage: Storage | None = None,
    workers: int | None = None,
    retry_policy: RetryPolicy | None = None,
    runner: Runner | None = None,
) -> Result:
    """Do everything the plan asks for that is not done yet. Raises UserError if another run holds the folder.

    storage: what becomes of trained checkpoints; they are large, so by default they go when their cells are done.
    workers: processes side by side; 0 does everything in this one, None chooses (`placement.choose_slots`).
    retry_policy: with workers that die or hang. runner: takes the jobs, in place of processes of this machine.
    """
    storage = storage or Storage()
    # what cannot be is refused before anything is written
    slots = choose_slots(plan, workers, most=storage.most) if runner is None else runner.slots()
    for model in plan.inputs.models:
        gpus_for(plan, model, slots)
    if runner is not None:
        runner.check(plan)
    with locked(run_dir) as lock_fd:
        problems = sweep(run_dir)
        write_sealed(run_dir / "grid.json", describe(plan, provenance.public_command()))
        _write_plan(plan, run_dir)  # with the grid, so that a board made in between shows this grid's cells only
        keep_audit(plan, run_dir, roots)
        found = read_status(plan, run_dir)
        found.problems[:0] = problems
        drop_passing(found, storage, run_dir)
        for cell, split in found.resplit:
            cell.model_copy(update={"split": split}).save(run_dir)
        failures: list[str] = []
        if found.missing or found.problems:
            with Progress(total=found.missing, log=run_dir / "run.log", quiet=quiet) as progress:
                for problem in found.problems:
                    progress.line(f"damaged: {problem}", always=True)
                repair(found, storage)
                payload = Payload(plan, run_dir, roots, storage)
                if runner is not None:
                    failures = _by(runner, payload, found, progress, retry_policy)
                else:
                    failures = _here(payload, found, slots, progress, lock_fd, retry_policy)
                marks = high_water(run_dir)
                if marks:
                    most = f"{marks['most_checkpoints']} ({marks['most_bytes'] / 1e9:.2f} GB)"
                    progress.line(f"trained checkpoints on disk at once: at most {most}")
        _write_plan(plan, run_dir)
        now = read_status(plan, run_dir)
        repaired = [problem for problem in found.problems if problem not in now.problems]
        return Result(now.done, tuple(failures), tuple(repaired))


def _here(
    payload: Payload,
    status: Status,
    slots: Slots,
    progress: Progress,
    lock_fd: int,
    retry_policy: RetryPolicy | None,
) -> list[str]:
    """What is open, by processes of this machine or in this one."""
    if slots.number:
        try:
            return _by(Pool(slots, lock_fd=lock_fd), payload, status, progress, retry_policy)
        except NotTold as error:
            progress.note(f"no workers: this run cannot be told to another process ({error})")
    return _by(InProcess(progress), payload, status, progress, RetryPolicy(silence_s=None))


def _by(
    runner: Runner, payload: Payload, status: Status, progress: Progress, retry_policy: RetryPolicy | None
) -> list[str]:
    """What is open, by a runner; returns what failed, one line each."""
    slots = runner.slots()
    work = jobs(payload.plan, status, slots)
    if not work:
        return []
    workers, most = at_once(work, slots), payload.storage.most
    each = payload.storage if most is None else replace(payload.storage, most=max(1, most // workers))
    shared = replace(payload, storage=each, workers=workers)
    runner.prepare(shared)
    if workers > 1:
        progress.line(f"{workers} workers side by side{f', GPUs: {len(slots.gpus)}' if slots.gpus else ''}")
    return Schedule(shared, runner, progress, status, retry_policy).run(work)


def train_only(plan: Plan, run_dir: Path, roots: Roots, *, quiet: bool = False) -> list[str]:
    """Train what is missing and evaluate nothing. Under a launcher every rank calls this; rank 0 keeps the records."""
    main = os.environ.get("RANK", "0") == "0"
    failures: list[str] = []
    with locked(run_dir) if main else contextlib.nullcontext():
        found = read_status(plan, run_dir)
        with Progress(total=0, log=run_dir / "run.log", quiet=quiet or not main) as progress:
            worker = Worker(plan, run_dir, roots, progress, records=main)
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
    write_sealed(run_dir / "plan.json", keys)
