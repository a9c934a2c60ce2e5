"""What one worker does in one go: checkpoints of one model, trained, then answered, then dropped."""

from __future__ import annotations

from infosteer_bench.records import CellRecord, CheckpointRecord
from infosteer_bench.runs.plan import PlannedCheckpoint
from infosteer_bench.runs.status import Status
from infosteer_bench.runs.storage import Storage, note_storage
from infosteer_bench.runs.worker import Worker

Job = tuple[PlannedCheckpoint, list[str]]
"""A checkpoint and its open tasks."""


def run_group(worker: Worker, group: list[PlannedCheckpoint], found: Status, storage: Storage) -> list[str]:
    """Bring checkpoints of one model to their cells; returns what failed, one line each.

    Training and answering both want the memory, so a batch is trained, then answered with one engine.
    """
    failures: list[str] = []
    jobs: list[Job] = []
    for planned in group:
        if found.has_work(planned.key):
            left = _scored(worker, planned, found)
            if left or planned.key in found.retrain:
                jobs.append((planned, left))
            elif not storage.keep:  # left over from a run that was stopped before it dropped them
                worker.drop_weights(planned)
    if storage.most is not None:  # what lies there already makes room first
        jobs.sort(key=lambda job: not worker.has_weights(job[0], found.records.get(job[0].key)))
    size = storage.most or max(1, len(jobs))
    for start in range(0, len(jobs), size):
        failures += _batch(worker, jobs[start : start + size], found, storage)
    return failures


def _scored(worker: Worker, planned: PlannedCheckpoint, found: Status) -> list[str]:
    """Score what is stored without the model; returns the tasks that need it."""
    open_tasks = found.open_tasks[planned.key]
    record = found.records.get(planned.key)
    if record is None or not open_tasks:
        return open_tasks
    worker.progress.at(planned.key)
    scored: set[str] = set()
    for cell in worker.evaluator.stored(planned, record, open_tasks):
        scored.add(cell.task)
        worker.progress.cell(f"{planned.label} {_result(cell)}, answered before")
    return [task for task in open_tasks if task not in scored]


def _batch(worker: Worker, jobs: list[Job], found: Status, storage: Storage) -> list[str]:
    failures: list[str] = []
    ready: list[tuple[PlannedCheckpoint, CheckpointRecord, list[str]]] = []
    for planned, tasks in jobs:
        before = found.records.get(planned.key)
        record = before
        worker.progress.at(planned.key)
        if record is None or not worker.has_weights(planned, record):
            record = worker.checkpoint(planned)
            note_storage(worker.run_dir)
        if record.status == "success":
            # weights that came out different from the recorded ones invalidate all their cells
            same = before is not None and before.weight_digest == record.weight_digest
            ready.append((planned, record, tasks if same else list(planned.tasks)))
            continue
        failures.append(f"{planned.label}: {record.error}")
        for task in tasks:
            worker.progress.cell(f"{planned.label} {task}: no checkpoint", failed=True)
    for planned, record, tasks in ready:
        worker.progress.at(planned.key)
        if not storage.keep:
            worker.mark_passing(planned)
        before_this = len(failures)
        for cell in worker.cells(planned, record, tasks):
            worker.progress.cell(f"{planned.label} {_result(cell)}", failed=cell.status == "failed")
            if cell.status == "failed":
                failures.append(f"{planned.label} {cell.task}: {cell.error}")
        # Without a limit, what failed to answer is kept for the next try.
        if not storage.keep and (storage.most is not None or len(failures) == before_this):
            worker.drop_weights(planned)
    return failures


def _result(cell: CellRecord) -> str:
    if cell.status == "failed":
        return f"{cell.task} FAILED: {cell.error}"
    name = "robust" if "robust" in cell.exact_match else next(iter(cell.exact_match), None)
    shown = "no score" if name is None else f"{cell.exact_match[name]:.1f} %"
    return f"{cell.task}: {shown}, {cell.n_items} items, {cell.time_s:.1f} s"
