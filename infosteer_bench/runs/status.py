"""How far a plan is: records on disk against what is planned. What does not verify does not count."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from infosteer_bench.records import (
    CellRecord,
    CheckpointRecord,
    CorruptRecord,
    file_sha256,
    read_record,
    samples_path,
)
from infosteer_bench.runs.plan import Plan, PlannedCheckpoint, cell_identity, cell_key, task_split
from infosteer_bench.runs.storage import CURVES, WEIGHTS, holds


@dataclass
class Status:
    """How far a plan is: per checkpoint its valid record and the tasks still open."""

    records: dict[str, CheckpointRecord] = field(default_factory=dict)
    open_tasks: dict[str, list[str]] = field(default_factory=dict)
    done: int = 0
    failed: int = 0
    stale: int = 0
    problems: list[str] = field(default_factory=list)
    resplit: list[tuple[CellRecord, str]] = field(default_factory=list)  # done, but ID or OOD by this plan's mixes
    damaged: list[Path] = field(default_factory=list)  # weights and curves that are not those of their record
    retrain: set[str] = field(default_factory=set)  # checkpoints to train again although their cells are done

    @property
    def missing(self) -> int:
        """Cells still to do, failed ones included."""
        return sum(len(tasks) for tasks in self.open_tasks.values())

    def of(self, keys: Iterable[str]) -> Status:
        """What a worker needs to know of these checkpoints."""
        return Status(
            records={key: self.records[key] for key in keys if key in self.records},
            open_tasks={key: self.open_tasks[key] for key in keys},
            retrain=self.retrain.intersection(keys),
        )

    def has_work(self, key: str) -> bool:
        """Whether a checkpoint has open tasks or is to be trained again."""
        return bool(self.open_tasks[key]) or key in self.retrain


def read_status(plan: Plan, run_dir: Path) -> Status:
    """Compare the plan with the records on disk; changes nothing."""
    found = Status()
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
            _look_at_training(found, planned, run_dir, record)
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


def _look_at_training(found: Status, planned: PlannedCheckpoint, run_dir: Path, record: CheckpointRecord) -> None:
    """What training left behind, where it is still there: weights may have been dropped."""
    weights, curve = run_dir / WEIGHTS / planned.key, run_dir / CURVES / f"{planned.key}.jsonl"
    if planned.method.trains and weights.is_dir() and not holds(weights, record):
        found.problems.append(f"{WEIGHTS}/{planned.key} does not verify: removed, trained again where it is needed")
        found.damaged.append(weights)
    if record.curve_sha256 and curve.is_file() and file_sha256(curve) != record.curve_sha256:
        found.problems.append(f"{CURVES}/{curve.name} does not verify: set aside as {curve.name}.damaged")
        found.damaged.append(curve)


def _cell_state(
    plan: Plan, planned: PlannedCheckpoint, task: str, run_dir: Path, record: CheckpointRecord | None
) -> tuple[str, str, CellRecord | None]:
    identity = cell_identity(plan, planned, task, (record.weight_digest if record else None) or "")
    key = cell_key(planned.key, task, identity)
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
