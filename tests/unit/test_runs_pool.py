"""Workers side by side: how many there are and what they tell. Whole runs and killed workers: tests/integration."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import subprocess
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from infosteer_bench.errors import UserError
from infosteer_bench.grid import load_grid
from infosteer_bench.models.load import ResolvedModel
from infosteer_bench.runs import placement, pool, schedule
from infosteer_bench.runs.choose import plan_grid
from infosteer_bench.runs.inputs import Roots
from infosteer_bench.runs.placement import (
    MOST_WORKERS,
    SMALL_PARAMETERS,
    choose_slots,
    gpus_for,
    jobs,
    own_threads,
    ranks,
)
from infosteer_bench.runs.plan import Plan
from infosteer_bench.runs.runner import Job, Payload, Slots
from infosteer_bench.runs.schedule import RetryPolicy, Schedule
from infosteer_bench.runs.status import Status, read_status
from infosteer_bench.runs.storage import Storage


@pytest.fixture(scope="module")
def plan() -> Plan:
    return plan_grid(load_grid("embedded"), data_root=None, model_root=None, quiet=True)[0]


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(monkeypatch, 0)
    monkeypatch.setattr(placement, "cores", lambda: 4)


def gpus(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.setattr(placement, "visible_gpus", lambda: tuple(map(str, range(number))))


def with_inputs(plan: Plan, **changes: Any) -> Plan:
    return replace(plan, inputs=replace(plan.inputs, **changes))


def test_one_worker_per_core_for_small_models(plan: Plan, monkeypatch: pytest.MonkeyPatch):
    assert choose_slots(plan, None) == Slots(4)
    assert choose_slots(plan, 1) == Slots(1)
    assert choose_slots(plan, 0) == Slots(0)
    assert choose_slots(plan, 20) == Slots(20)
    assert choose_slots(plan, None, most=3) == Slots(3)
    monkeypatch.setattr(placement, "cores", lambda: 64)
    assert choose_slots(plan, None) == Slots(MOST_WORKERS)


@pytest.mark.parametrize("parameters", [SMALL_PARAMETERS, None])
def test_one_worker_where_a_model_is_not_known_to_be_small(plan: Plan, parameters: int | None):
    large = replace(plan.inputs.models[0], parameters=parameters)
    assert choose_slots(with_inputs(plan, models=(*plan.inputs.models[1:], large)), None) == Slots(1)


def test_one_worker_with_an_engine_on_the_cpu(plan: Plan):
    vllm = with_inputs(plan, engine="vllm")
    assert choose_slots(vllm, None) == Slots(1)
    with pytest.raises(UserError, match="--workers 2: engine vllm takes the whole CPU"):
        choose_slots(vllm, 2)


@pytest.mark.parametrize("engine", ["hf", "vllm"])
def test_one_worker_per_gpu(plan: Plan, monkeypatch: pytest.MonkeyPatch, engine: str):
    gpus(monkeypatch, 4)
    plan = with_inputs(plan, engine=engine)
    assert choose_slots(plan, None) == Slots(4, ("0", "1", "2", "3"))
    assert choose_slots(plan, 2) == Slots(2, ("0", "1", "2", "3"))
    assert choose_slots(plan, None, most=3) == Slots(3, ("0", "1", "2", "3"))
    with pytest.raises(UserError, match=r"--workers 5: 4 GPU\(s\) are visible"):
        choose_slots(plan, 5)


def of_train(plan: Plan, parameters: int, **changes: Any) -> tuple[Plan, ResolvedModel]:
    """The plan with other training settings, and a model of that size."""
    grid = plan.grid.model_copy(update={"train": plan.grid.train.model_copy(update=changes)})
    return replace(plan, grid=grid), replace(plan.inputs.models[0], parameters=parameters)


@pytest.mark.parametrize(
    ("parameters", "changes", "wanted"),
    [
        (2 * 10**9, {}, 1),  # 32 GB of 64
        (8 * 10**9, {}, 2),  # 128 GB
        (9 * 10**9, {}, 4),  # 144 GB; three do not divide the accumulation
        (4 * 10**9 - 10**6, {}, 1),
        (4 * 10**9 + 10**6, {}, 2),
        (8 * 10**9, {"optimizer": "adamw_torch_8bit"}, 2),  # 80 GB
        (6 * 10**9, {"optimizer": "adamw_8bit"}, 1),  # 60 GB
        (8 * 10**9, {"adapter": "lora"}, 1),  # 32 GB
        (8 * 10**9, {"offload": True}, 1),
        (70 * 10**9, {}, 4),  # as many as there are; out of memory then says what to do
        (70 * 10**9, {"gradient_accumulation": 1}, 1),
        (2 * 10**9, {"ranks": 4}, 4),
        (8 * 10**9, {"ranks": 1}, 1),
    ],
)
def test_a_model_gets_the_gpus_that_it_needs(
    plan: Plan, monkeypatch: pytest.MonkeyPatch, parameters: int, changes: dict[str, Any], wanted: int
):
    gpus(monkeypatch, 4)
    monkeypatch.setattr(placement, "gpu_bytes", lambda: 80 * 10**9)
    assert ranks(*of_train(plan, parameters, **{"gradient_accumulation": 8, **changes})) == wanted


def test_ranks_that_cannot_be(plan: Plan, monkeypatch: pytest.MonkeyPatch):
    assert ranks(*of_train(plan, 70 * 10**9)) == 1, "no GPU: one process"
    with pytest.raises(UserError, match="gradient_accumulation 4 does not divide among 3 ranks"):
        ranks(*of_train(plan, 10**6, ranks=3, gradient_accumulation=4))
    for change in ({"ranks": 2}, {"offload": True}):
        with pytest.raises(UserError, match=r"train\.adapter=lora is trained by one process"):
            ranks(*of_train(plan, 10**6, adapter="lora", gradient_accumulation=2, **change))
    with pytest.raises(UserError, match=r"train\.optimizer=adamw_8bit updates whole weights"):
        ranks(*of_train(plan, 10**6, optimizer="adamw_8bit", offload=True))
    gpus(monkeypatch, 2)
    with pytest.raises(UserError, match=r"train.ranks=4: 2 GPU\(s\) are visible, and each rank needs its own"):
        ranks(*of_train(plan, 10**6, ranks=4, gradient_accumulation=4))


def test_a_worker_gets_the_gpus_of_what_needs_more(plan: Plan, monkeypatch: pytest.MonkeyPatch):
    """Answering or training; hf answers with one."""
    model = plan.inputs.models[0]

    def wanted(engine: str, **train: Any) -> int:
        grid = of_train(plan, 1, gradient_accumulation=4, **train)[0].grid
        grid = grid.model_copy(update={"eval": grid.eval.model_copy(update={"tensor_parallel": 2})})
        return gpus_for(with_inputs(replace(plan, grid=grid), engine=engine), model)

    gpus(monkeypatch, 4)
    monkeypatch.setattr(placement, "gpu_bytes", lambda: 80 * 10**9)
    assert (wanted("vllm"), wanted("hf"), wanted("vllm", ranks=4)) == (2, 1, 4)
    gpus(monkeypatch, 1)
    with pytest.raises(UserError, match=r"eval\.tensor_parallel=2: 1 GPU\(s\) are visible"):
        wanted("vllm")


def test_gpus_are_named_as_they_were_given(monkeypatch: pytest.MonkeyPatch):
    import torch

    from infosteer_bench import device

    monkeypatch.setattr(device, "has_cuda", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert device.visible_gpus() == ("0", "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5, GPU-8932f937")
    assert device.visible_gpus() == ("5", "GPU-8932f937")


def all_open(plan: Plan) -> Status:
    return Status(open_tasks={planned.key: list(planned.tasks) for planned in plan.checkpoints})


def test_jobs_keep_a_model_together_and_every_slot_busy(plan: Plan):
    """Three models of 19 checkpoints on 1, 3 and 6 GPUs: every checkpoint once, one model a job."""
    status = all_open(plan)
    keys = list(status.open_tasks)
    for number, wanted in ((1, 3), (3, 3), (6, 6), (7, 9)):
        found = jobs(plan, status, Slots(number, tuple(map(str, range(number))), gpu_bytes=80 * 10**9))
        assert sorted(key for job in found for key in job.keys) == sorted(keys)
        assert all(len({planned.model.id for planned in job.group(plan)}) == 1 for job in found)
        assert {job.gpus for job in found} == {1}
        assert len(found) == wanted
    assert [job.keys for job in jobs(plan, status, Slots(2))] == [(key,) for key in keys], "small models go alone"
    assert len(jobs(plan, status, Slots(1))) == 3
    status.open_tasks[keys[0]] = []
    (job, *_) = jobs(plan, status, Slots(1))
    assert keys[0] not in job.keys, "what is done is no work"
    assert set(job.status.open_tasks) == set(job.keys), "a worker is told of its own checkpoints"


def test_jobs_of_more_gpus_go_first(plan: Plan, monkeypatch: pytest.MonkeyPatch):
    """Two models need one GPU, the last one two: four GPUs hold two of its workers."""
    last = plan.inputs.models[-1].id
    monkeypatch.setattr(placement, "gpus_for", lambda _, model, slots: 2 if model.id == last else 1)
    found = jobs(plan, all_open(plan), Slots(4, ("0", "1", "2", "3")))
    assert [job.gpus for job in found] == [2, 2, 1, 1, 1, 1]
    assert {job.group(plan)[0].model.id for job in found[:2]} == {last}


def test_small_models_get_one_thread_however_many_workers(plan: Plan):
    """Sums over several threads end in other digits."""
    import torch

    before = torch.get_num_threads()
    model = plan.inputs.models[0]
    large = replace(model, parameters=SMALL_PARAMETERS)
    try:
        torch.set_num_threads(4)
        for workers in (1, 2):
            with own_threads(model, workers):
                assert torch.get_num_threads() == 1
            with own_threads(large, workers):
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


def run_pool(
    plan: Plan,
    run_dir: Path,
    work: list[list[int]],
    *,
    roots: Roots | None = None,
    workers: int = 1,
    **retry_policy: Any,
) -> Any:
    """Run jobs, given by places in the plan, on real processes; returns what failed, and what was told."""
    shown: Any = Shown()
    before = set(multiprocessing.active_children())
    with (run_dir / ".lock").open("w") as lock:
        status = read_status(plan, run_dir)
        payload = Payload(plan, run_dir, roots or Roots(), Storage(), workers)
        runner = pool.Pool(Slots(workers), lock_fd=lock.fileno())
        runner.prepare(payload)
        keys = [tuple(plan.checkpoints[place].key for place in job) for job in work]
        several = Schedule(payload, runner, shown, status, RetryPolicy(**retry_policy))
        failures = several.run([Job(job, status.of(job)) for job in keys])
    assert not set(multiprocessing.active_children()) - before
    return failures, shown.told


def test_a_run_of_base_alone_says_what_it_does(tmp_path: Path):
    """Two real workers, three real checkpoints: every cell is told once and recorded."""
    from infosteer_bench.records import CellRecord, read_records

    grid = load_grid("embedded", overrides=["eval.limit=2", "eval.max_new_tokens=4"])
    grid = grid.model_copy(update={"methods": grid.methods[:1], "tasks": ("boolq", "addsub")})
    small, roots = plan_grid(grid, data_root=None, model_root=None, quiet=True)
    assert len(small.checkpoints) == 3
    failures, told = run_pool(small, tmp_path, [[0], [1], [2]], roots=roots, workers=2)
    assert failures == []
    assert len([args[0] for name, args in told if name == "cell"]) == 6
    records, problems = read_records(tmp_path, CellRecord)
    assert not problems
    assert {(record.model, record.task) for record in records.values()} == {
        (model.id, task) for model in small.inputs.models for task in ("boolq", "addsub")
    }


def test_a_worker_that_dies_between_two_jobs_costs_one(plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """It says "done" and is gone before it is told what to do next: named, and another takes its place."""
    monkeypatch.setattr(pool, "_work", _says_done_and_dies)
    told = pool._tell

    def late(connection: Any, job: Any) -> None:
        time.sleep(0.3)  # by now it is dead
        told(connection, job)

    monkeypatch.setattr(pool, "_tell", late)
    failures, _ = run_pool(plan, tmp_path, [[0], [1], [2]], retries=0)
    assert len(failures) == 1
    assert "its worker ended, exit code 9 (log: logs/" in failures[0]


def _says_done_and_dies(connection: Any, *_: Any) -> None:
    connection.send(("done", []))
    os._exit(9)


def test_a_checkpoint_that_kills_its_workers_is_given_up_and_the_rest_of_its_job_goes_on(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Three checkpoints in one job, the second fatal: tried 1 + 2 times, named once, the others done."""
    monkeypatch.setattr(pool, "_work", partial(_dies_at, 1, str(tmp_path)))
    failures, told = run_pool(plan, tmp_path, [[0, 1, 2]], retries=2)
    (failure,) = failures
    assert failure.startswith(f"{plan.checkpoints[1].label}: its worker ended, killed (for memory?)")
    log = tmp_path / "logs" / f"{plan.checkpoints[1].key}.log"
    assert "its last words: training step 7" in log.read_text()
    lines = [args[0] for name, args in told if name == "line"]
    assert [line.rpartition("; ")[2] for line in lines[:2]] == ["trying again"] * 2
    assert lines[2].startswith("FAILED ")
    assert sorted(path.name for path in tmp_path.glob("begun-*")) == ["begun-0", "begun-1", "begun-2"]


def test_a_silent_worker_is_ended_with_its_children(plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pool, "_work", partial(_falls_silent, str(tmp_path)))
    monkeypatch.setattr(schedule, "_LOOK_S", 0.1)
    begun = time.monotonic()
    failures, told = run_pool(plan, tmp_path, [[0], [1]], retries=0, silence_s=3.0)
    assert time.monotonic() - begun < 30
    (failure,) = failures
    assert failure.startswith(f"{plan.checkpoints[0].label}: its worker said nothing for 3 s and was ended")
    (child,) = (int(path.name.removeprefix("child-")) for path in tmp_path.glob("child-*"))
    assert not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE
    assert ("cell", ("done 1",)) in told


# Stand-ins for a worker's life; they run in processes of their own.


def _dies_at(fatal: int, folder: str, connection: Any, _files: Any, payload_file: Path, _lock: int) -> None:
    payload = pickle.loads(payload_file.read_bytes())
    order = [planned.key for planned in payload.plan.checkpoints]
    while (file := connection.recv()) is not None:
        for key in pickle.loads(file.read_bytes()).keys:
            place = order.index(key)
            connection.send(("at", ((key,), {})))
            connection.send(("activity", (("training step 7",), {})))
            (Path(folder) / f"begun-{place}").touch()
            if place == fatal:
                os.kill(os.getpid(), signal.SIGKILL)
        connection.send(("done", []))


def _falls_silent(folder: str, connection: Any, _files: Any, payload_file: Path, _lock: int) -> None:
    order = [planned.key for planned in pickle.loads(payload_file.read_bytes()).plan.checkpoints]
    while (file := connection.recv()) is not None:
        (key,) = pickle.loads(file.read_bytes()).keys
        if key == order[0]:
            child = subprocess.Popen(["sleep", "300"])
            (Path(folder) / f"child-{child.pid}").touch()
            time.sleep(300)
        connection.send(("cell", ((f"done {order.index(key)}",), {})))
        connection.send(("done", []))
