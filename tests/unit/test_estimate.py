"""What a plan is said to cost: the arithmetic against figures by hand, and the lines of --dry-run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from infosteer_bench.cli import main
from infosteer_bench.grid import load_grid
from infosteer_bench.runs.choose import plan_grid
from infosteer_bench.runs.estimate import Cost, estimate, machine_throughput, measured_throughput, would_not_fit
from infosteer_bench.runs.plan import Plan
from infosteer_bench.runs.status import Status, read_status
from infosteer_bench.runs.storage import Storage


@pytest.fixture(scope="module")
def plan() -> Plan:
    grid = load_grid("embedded", overrides=["train.max_examples=100", "eval.limit=10"])
    grid = grid.model_copy(update={"models": ("mini-llama", "mini-qwen2"), "seeds": (0,)})
    return plan_grid(grid, data_root=None, model_root=None, quiet=True)[0]


@pytest.fixture
def found(plan: Plan, tmp_path: Path) -> Status:
    return read_status(plan, tmp_path)


def test_operations_tokens_and_space(plan: Plan, found: Status) -> None:
    cost = estimate(plan, found)
    parameters = {model.id: model.parameters or 0 for model in plan.inputs.models}
    assert cost.n_train == 2 * 3 * 2
    # six checkpoints of a model see 100 rows each; no gradient checkpointing in this grid: 6 P T
    flop = 0.0
    for planned in plan.checkpoints:
        if planned.mix is not None:
            tokens = sum(len(row.prompt) + len(row.completion) for row in planned.mix.rows) / 4 + 100
            flop += 6 * parameters[planned.model.id] * tokens
    assert cost.train_flop == pytest.approx(flop)
    assert cost.answer_flop == pytest.approx(sum(2 * p * (15 + 3 * 15) * 10 * 2 * 48 for p in parameters.values()))
    assert cost.hours(cost.train_flop / 3600)[0] == pytest.approx(1)
    largest = max(parameters.values())
    assert cost.disk_bytes == 6 * 4 * largest
    assert cost.memory_bytes == 16 * largest
    assert cost.largest == "mini-qwen2"
    assert estimate(plan, found, Storage(most=2)).disk_bytes == 2 * 4 * largest
    assert estimate(plan, found, Storage(keep=True)).disk_bytes == 6 * 4 * sum(parameters.values())


def test_what_is_done_costs_nothing(plan: Plan, found: Status) -> None:
    done = replace(found, open_tasks={key: [] for key in found.open_tasks})
    assert estimate(plan, done) == Cost(0, 0, 0, 0, 0, 0, None)
    trained = replace(found, records={key: SimpleNamespace() for key in found.open_tasks})  # type: ignore[misc]
    assert estimate(plan, trained).train_flop == 0
    assert estimate(plan, trained).answer_flop > 0


def test_longer_rows_are_cut_off_by_the_window_and_by_steps(plan: Plan, found: Status) -> None:
    def with_train(**changes: Any) -> Plan:
        grid = plan.grid.model_copy(update={"train": plan.grid.train.model_copy(update=changes)})
        return replace(plan, grid=grid)

    full = estimate(plan, found)
    assert estimate(with_train(max_length=5), found).trained_tokens == 12 * 100 * 5
    assert estimate(with_train(max_steps=10), found).trained_tokens == pytest.approx(0.4 * full.trained_tokens)
    assert estimate(with_train(epochs=3.0), found).trained_tokens == pytest.approx(3 * full.trained_tokens)
    assert estimate(with_train(gradient_checkpointing=True), found).train_flop == pytest.approx(8 / 6 * full.train_flop)
    assert estimate(with_train(adapter="lora"), found).memory_bytes == full.memory_bytes / 4
    assert estimate(with_train(export_dtype="bfloat16"), found).disk_bytes == full.disk_bytes / 2


def test_measured_throughput_is_operations_over_seconds(plan: Plan) -> None:
    trained = [planned for planned in plan.checkpoints if planned.method.trains][:2]
    assert measured_throughput(plan, {}) is None
    records: Any = {
        planned.key: SimpleNamespace(training={"tokens": 1000, "time_s": seconds})
        for planned, seconds in zip(trained, (1.0, 3.0), strict=True)
    }
    expected = 6 * 1000 * sum(planned.model.parameters or 0 for planned in trained) / 4.0
    assert measured_throughput(plan, records) == pytest.approx(expected)


def test_machine_throughput_is_a_plausible_number() -> None:
    assert 1e8 < machine_throughput(size=256, seconds=0.05) < 1e16


def test_what_would_not_fit_says_what_to_do() -> None:
    cost = Cost(3, 0, 0, 0, disk_bytes=10**12, memory_bytes=10**11, largest="llama-3-8b")
    plenty = {"disk": 10**13, "memory": 10**12, "gpu": 0}
    assert would_not_fit(cost, plenty) == []
    disk, memory = would_not_fit(cost, {"disk": 10**11, "memory": 10**10, "gpu": 0})
    assert "1000.0 GB of disk at once, 100.0 GB are free: --max-checkpoints-on-disk" in disk
    assert "training llama-3-8b needs 100.0 GB of memory before activations, 10.0 GB are free" in memory
    (gpu,) = would_not_fit(cost, {**plenty, "gpu": 10**10})
    assert "100.0 GB of GPU memory" in gpu
    assert "train.offload=true, or more GPUs" in gpu
    assert would_not_fit(replace(cost, offload=True), {**plenty, "gpu": 10**10}) == [], "it lies in main memory"


def test_a_dry_run_says_it_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["run", "--grid", "embedded", "--models", "mini-llama", "--seeds", "0", "--limit", "2", "--dry-run"]
    assert main([*arguments, "--output", str(tmp_path / "runs"), "--tflops", "0.1"]) == 0
    out = capsys.readouterr().out
    assert "to train: 6 checkpoints, about 0." in out
    assert "on one device at 0.1 TFLOP/s (as stated)" in out
    assert "space: 0.04 GB of checkpoints at once, 0.03 GB of memory" in out
    assert "would not fit" not in out
    assert not (tmp_path / "runs").exists()
    assert main([*arguments, "--tflops", "-1"]) == 2
    assert main([*arguments, "--tflops", "nan"]) == 2
