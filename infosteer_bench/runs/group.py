"""What one worker does in one go: checkpoints of one model, trained, then answered, then dropped."""

from __future__ import annotations

from infosteer_bench.records import CellRecord, CheckpointRecord
from infosteer_bench.runs.plan import PlannedCheckpoint
from infosteer_bench.runs.survey import Survey
from infosteer_bench.runs.worker import Worker


def run_group(worker: Worker, group: list[PlannedCheckpoint], found: Survey, *, keep_weights: bool) -> list[str]:
    """Train the open checkpoints of one model, then answer with one engine; returns what failed, one line each."""
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
