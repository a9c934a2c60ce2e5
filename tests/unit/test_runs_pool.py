"""Workers side by side: how many there are and what they tell. Whole runs and killed workers: tests/integration."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from infosteer_bench.commands.run import plan_grid
from infosteer_bench.errors import UserError
from infosteer_bench.grid import load_grid
from infosteer_bench.runs import pool
from infosteer_bench.runs.plan import Plan
from infosteer_bench.runs.pool import MOST_WORKERS, SMALL_PARAMETERS, choose_workers
from infosteer_bench.runs.storage import Storage


@pytest.fixture(scope="module")
def plan() -> Plan:
    return plan_grid(load_grid("embedded"), data_root=None, model_root=None, quiet=True)[0]


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "has_cuda", lambda: False)
    monkeypatch.setattr(pool, "cores", lambda: 4)


def with_inputs(plan: Plan, **changes: Any) -> Plan:
    return replace(plan, inputs=replace(plan.inputs, **changes))


def test_one_worker_per_core_for_small_models(plan: Plan, monkeypatch: pytest.MonkeyPatch):
    assert choose_workers(plan, jobs=57, asked=None) == 4
    assert choose_workers(plan, jobs=3, asked=None) == 3
    assert choose_workers(plan, jobs=57, asked=1) == 1
    assert choose_workers(plan, jobs=57, asked=20) == 20
    monkeypatch.setattr(pool, "cores", lambda: 64)
    assert choose_workers(plan, jobs=57, asked=None) == MOST_WORKERS


@pytest.mark.parametrize("parameters", [SMALL_PARAMETERS, None])
def test_one_worker_where_a_model_is_not_known_to_be_small(plan: Plan, parameters: int | None):
    large = replace(plan.inputs.models[0], parameters=parameters)
    assert choose_workers(with_inputs(plan, models=(*plan.inputs.models[1:], large)), jobs=57, asked=None) == 1


def test_one_worker_on_a_gpu_or_with_an_engine(plan: Plan, monkeypatch: pytest.MonkeyPatch):
    vllm = with_inputs(plan, engine="vllm")
    assert choose_workers(vllm, jobs=57, asked=None) == 1
    with pytest.raises(UserError, match="--workers 2: engine vllm serves one"):
        choose_workers(vllm, jobs=57, asked=2)
    monkeypatch.setattr(pool, "has_cuda", lambda: True)
    assert choose_workers(plan, jobs=57, asked=None) == 1
    with pytest.raises(UserError, match="--workers 2: a GPU serves one"):
        choose_workers(plan, jobs=57, asked=2)


def test_small_models_get_one_thread_however_many_workers(plan: Plan):
    """Sums over several threads end in other digits."""
    import torch

    before = torch.get_num_threads()
    model = plan.inputs.models[0]
    large = replace(model, parameters=SMALL_PARAMETERS)
    try:
        torch.set_num_threads(4)
        for workers in (1, 2):
            with pool.own_threads(model, workers):
                assert torch.get_num_threads() == 1
            with pool.own_threads(large, workers):
                assert torch.get_num_threads() == 4 // workers
            assert torch.get_num_threads() == 4
    finally:
        torch.set_num_threads(before)


class Shown:
    """A `Progress` that keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, tuple[Any, ...]]] = []

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **_: self.told.append((name, args))


def test_a_run_of_base_alone_says_what_it_does(plan: Plan, tmp_path: Path):
    """Two real workers, three real checkpoints: every cell is told once and recorded."""
    from infosteer_bench.records import CellRecord, read_records
    from infosteer_bench.runs.inputs import Places
    from infosteer_bench.runs.survey import survey

    grid = load_grid("embedded", overrides=["eval.limit=2", "eval.max_new_tokens=4"])
    grid = grid.model_copy(update={"methods": grid.methods[:1], "tasks": ("boolq", "addsub")})
    small, places = plan_grid(grid, data_root=None, model_root=None, quiet=True)
    assert len(small.checkpoints) == 3
    shown = Shown()
    with (tmp_path / ".lock").open("w") as lock:
        task = pool.Task(small, tmp_path, places or Places(), survey(small, tmp_path), storage=Storage(), workers=2)
        failures = pool.Pool(task, progress=shown, lock_fd=lock.fileno()).run([0, 1, 2])  # type: ignore[arg-type]
    assert failures == []
    told = [args[0] for name, args in shown.told if name == "cell"]
    assert len(told) == 6
    records, problems = read_records(tmp_path, CellRecord)
    assert not problems
    assert {(record.model, record.task) for record in records.values()} == {
        (model.id, task) for model in small.inputs.models for task in ("boolq", "addsub")
    }


def test_a_worker_that_dies_between_two_checkpoints_costs_one(plan: Plan, tmp_path: Path, monkeypatch):
    """It says "done" and is gone before it is told what to do next: named, and another takes its place."""
    import time

    monkeypatch.setattr(pool, "_work", _says_done_and_dies)
    told = pool._tell

    def late(line: Any, place: int | None) -> None:
        time.sleep(0.3)  # by now it is dead
        told(line, place)

    monkeypatch.setattr(pool, "_tell", late)
    shown = Shown()
    with (tmp_path / ".lock").open("w") as lock:
        task = pool.Task(plan, tmp_path, None, None, storage=Storage(), workers=1)  # type: ignore[arg-type]
        one = pool.Pool(task, progress=shown, lock_fd=lock.fileno())  # type: ignore[arg-type]
        failures = one.run([0, 1, 2])
    assert len(failures) == 1
    assert "its worker ended, exit code 9" in failures[0]


def _says_done_and_dies(line: Any, *_: Any) -> None:
    import os

    line.send(("done", []))
    os._exit(9)
