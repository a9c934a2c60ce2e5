"""What a cell's record says of the engine behind it, and under which name a failure is kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from infosteer_bench.errors import CellFailure
from infosteer_bench.evaluation import engine as engine_module
from infosteer_bench.evaluation.engine import architecture
from infosteer_bench.grid import EvalConfig, MethodArm, load_grid
from infosteer_bench.models.load import materialize, weight_digest
from infosteer_bench.records import CellRecord, CheckpointRecord
from infosteer_bench.runs.choose import plan_grid
from infosteer_bench.runs.evaluator import Evaluator
from infosteer_bench.runs.plan import PlannedCheckpoint
from infosteer_bench.smoke.scripted import ScriptedEngine


class Counting(ScriptedEngine):
    """Holds one architecture at a time, as engine vllm does: another one is a start, other weights are a swap."""

    broken = False

    def __init__(self, name: str, *, eval_config: EvalConfig) -> None:
        super().__init__(["the correct answer is 1"] * 2, favoured=["1"] * 2, cut=False, eval_config=eval_config)
        self._shape = ""

    def load(self, checkpoint: Path, *, weight_digest: str, runtime: dict[str, Any] | None) -> None:
        if architecture(checkpoint) == self._shape:
            self.engine_swaps += 1
        else:
            self.engine_starts += 1
        self._shape = architecture(checkpoint)
        if self.broken:
            raise CellFailure("the weights are not what was asked for")


@pytest.fixture
def examined(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> SimpleNamespace:
    """An evaluator, its failures' names, and base checkpoints of two architectures."""
    monkeypatch.setattr(engine_module, "make_engine", Counting)
    grid = load_grid("embedded", overrides=["eval.limit=2", "eval.backend=hf"]).model_copy(
        update={"models": ("mini-llama", "mini-qwen2"), "methods": (MethodArm(name="base"),), "tasks": ("addsub",)}
    )
    plan, roots = plan_grid(grid, data_root=None, model_root=None, quiet=True)
    progress: Any = SimpleNamespace(activity=lambda _: None, line=lambda *_, **__: None)
    failures: list[str] = []

    def failure(name: str, error: Exception) -> str:
        failures.append(name)
        return str(error)

    return SimpleNamespace(
        evaluator=Evaluator(plan, tmp_path, roots, progress, failure),
        llama=plan.checkpoints[0],
        qwen2=plan.checkpoints[1],
        failures=failures,
    )


def cell_of(evaluator: Evaluator, planned: PlannedCheckpoint) -> CellRecord:
    weights = materialize(planned.model)
    record = CheckpointRecord(
        key=planned.key,
        status="success",
        identity=planned.identity,
        model=planned.model.id,
        family=planned.model.family.name,
        method="base",
        arm="",
        mix=None,
        seed=None,
        weight_digest=weight_digest(weights),
    )
    (cell,) = evaluator.cells(planned, record, ["addsub"], weights)
    return cell


def counts(cell: CellRecord) -> tuple[int, int]:
    assert cell.status == "success", cell.error
    return cell.serving["engine_starts"], cell.serving["engine_swaps"]


def test_starts_are_counted_by_architecture_and_over_batches(examined: SimpleNamespace) -> None:
    """Two batches of checkpoints, the engine closed in between (--max-checkpoints-on-disk), and two architectures."""
    evaluator, first, other = examined.evaluator, examined.llama, examined.qwen2
    second = replace(first, key=f"{first.key}-2")  # another checkpoint of the same architecture
    assert [counts(cell_of(evaluator, one)) for one in (first, second, other)] == [(1, 0), (1, 1), (1, 0)]
    evaluator.close()
    assert [counts(cell_of(evaluator, one)) for one in (first, second)] == [(2, 1), (2, 2)]
    evaluator.close()
    assert [counts(cell_of(evaluator, one)) for one in (second, other)] == [(3, 2), (2, 0)]


def test_a_start_that_came_to_nothing_counts_and_its_log_is_the_cells(
    examined: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Counting, "broken", True)
    cell = cell_of(examined.evaluator, examined.llama)
    assert (cell.status, cell.serving["engine_starts"]) == ("failed", 1)
    assert examined.failures == [cell.key], "a task's name could lead out of the folder, a key cannot"


def test_an_engine_at_work_for_others_served_no_stored_answers(examined: SimpleNamespace) -> None:
    cell_of(examined.evaluator, examined.llama)
    assert examined.evaluator._serving(examined.llama)["engine_starts"] == 1
    assert examined.evaluator._serving(examined.qwen2) == {}
    examined.evaluator.close()
    assert examined.evaluator._serving(examined.llama) == {}
