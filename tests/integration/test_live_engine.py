"""One live vLLM engine under real runs: killed on the way, files swapped, overwritten and cut under it."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from loud import build_loud
from safetensors.torch import load_file, save_file
from tiny import build_data_root

from infosteer_bench.evaluation import Engine, make_engine
from infosteer_bench.evaluation import engine as engine_module
from infosteer_bench.grid import EvalConfig, Grid, MethodArm, load_grid
from infosteer_bench.models.catalog import MINI_MODELS as MODELS
from infosteer_bench.records import CellRecord, read_items, read_records, samples_path
from infosteer_bench.runs.choose import plan_grid
from infosteer_bench.runs.evaluator import Evaluator
from infosteer_bench.runs.local import do as run_plan
from infosteer_bench.runs.storage import Storage
from tests.integration.cli import run, start

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(1400)]

SPACE = os.environ.get("VLLM_CPU_KVCACHE_SPACE", "1")
CONFIG = EvalConfig(dtype="float32", max_new_tokens=12, batch_size=8, limit=4, backend="vllm")
TASKS = ("boolq", "siqa", "addsub")


# --- a process of the engine dies in the middle of a run


def cells_of(folder: Path) -> dict[str, CellRecord]:
    return read_records(folder / "runs/laptop", CellRecord)[0]


def answer_lines(folder: Path) -> int:
    return sum(path.read_bytes().count(b"\n") for path in (folder / "runs/laptop/answers").glob("*.jsonl"))


def test_a_killed_engine_costs_nothing_but_time(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    """Seven checkpoints by one engine; then the same with the engine's process killed while it answers."""
    data = build_data_root(tmp_path / "data", n_test=24)
    arguments = [
        *("run", "--grid", "laptop", "--models", str(tiny_models["llama"]), "--data-root", str(data)),
        *("--seeds", "0", "--limit", "24", "--backend", "vllm", "--set", "eval.max_new_tokens=48"),
        *("--set", "train.max_examples=24", "--set", "train.learning_rate=0.003"),
    ]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir()
    killed.mkdir()
    out, _ = run(arguments, whole, VLLM_CPU_KVCACHE_SPACE=SPACE)
    assert "60 of 60 cells done" in out
    served = [cell.serving for cell in cells_of(whole).values()]
    assert {one["engine_starts"] for one in served} == {1}, "one engine for all checkpoints of an architecture"
    assert max(one["engine_swaps"] for one in served) == 6

    process = start(arguments, killed, VLLM_CPU_KVCACHE_SPACE=SPACE)
    deadline = time.monotonic() + 900
    while answer_lines(killed) < 100 or not (engines := engine_processes(process.pid)):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    for victim in engines:
        victim.kill()
    out, err = process.communicate(timeout=900)
    assert process.returncode == 0, err
    assert "60 of 60 cells done" in out
    assert "Traceback" not in err
    assert "asking for what is missing" in err
    assert max(cell.serving["engine_starts"] for cell in cells_of(killed).values()) == 2

    first, second = cells_of(whole), cells_of(killed)
    assert first.keys() == second.keys()
    for key, cell in first.items():
        assert cell.samples_sha256 == second[key].samples_sha256, "not an item lost, doubled or other"
    for path in (killed / "runs/laptop/answers").glob("*.jsonl"):
        keys = [json.loads(line)[0] for line in path.read_bytes().splitlines()]
        assert len(set(keys)) == len(keys), "nothing was asked twice"
    boards = [folder / "runs/laptop/leaderboard/leaderboard.csv" for folder in (whole, killed)]
    assert boards[0].read_bytes() == boards[1].read_bytes()


def engine_processes(parent: int) -> list[psutil.Process]:
    try:
        children = psutil.Process(parent).children(recursive=True)
        return [child for child in children if "EngineCore" in " ".join([child.name(), *child.cmdline()])]
    except psutil.NoSuchProcess:
        return []


# --- what lies under a checkpoint's name is not what was recorded


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    made = make_engine("vllm", eval_config=CONFIG)
    yield made
    made.close()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_data_root(tmp_path_factory.mktemp("data"))


@pytest.fixture
def live(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Engine:
    """Every run in this test is answered by the one engine of this module, which is not closed in between."""
    monkeypatch.setattr(engine_module, "make_engine", lambda *_, **__: engine)
    monkeypatch.setattr(Evaluator, "close", lambda _: None)  # not the engine's own, with which it starts anew
    return engine


def evaluated(models: list[Path], data: Path, run_dir: Path) -> dict[tuple[str, str], Any]:
    """Run `base` over model folders on the live engine: (model, task) -> its items, or what the failed cell says."""
    plan, roots = planned(models, data)
    run_plan(plan, run_dir, roots, quiet=True, workers=0)
    current = set(json.loads((run_dir / "plan.json").read_text())["cells"])
    found: dict[tuple[str, str], Any] = {}
    for key, cell in read_records(run_dir, CellRecord)[0].items():
        if key in current:
            done = cell.status == "success"
            found[Path(cell.model).name, cell.task] = read_items(samples_path(run_dir, key)) if done else cell.error
    return found


def planned(models: list[Path], data: Path) -> Any:
    grid: Grid = load_grid("laptop").model_copy(
        update={
            "models": tuple(str(path) for path in models),
            "methods": (MethodArm(name="base"),),
            "tasks": TASKS,
            "eval": CONFIG,
        }
    )
    return plan_grid(grid, data_root=data, model_root=None, quiet=True)


def test_swapped_names_overwritten_files_and_another_vocabulary(live: Engine, data: Path, tmp_path: Path) -> None:
    a, b = (build_loud("llama", tmp_path / name, seed) for seed, name in enumerate("ab"))
    before = evaluated([a, b], data, tmp_path / "run")
    assert all(isinstance(items, list) for items in before.values())
    assert all(before["a", task] != before["b", task] for task in TASKS)
    starts = live.engine_starts

    a.rename(tmp_path / "c")
    b.rename(a)
    (tmp_path / "c").rename(b)
    swapped = evaluated([a, b], data, tmp_path / "run")
    for task in TASKS:
        assert swapped["a", task] == before["b", task]
        assert swapped["b", task] == before["a", task]

    # the file under "a" becomes b's, in place and with its old time of change
    stat = (a / "model.safetensors").stat()
    shutil.copyfile(b / "model.safetensors", a / "model.safetensors")
    os.utime(a / "model.safetensors", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    overwritten = evaluated([a], data, tmp_path / "run")
    assert all(overwritten["a", task] == swapped["b", task] for task in TASKS)
    assert live.engine_starts == starts, "all of it by swapping"

    mini = Path(shutil.copytree(MODELS / "mini-llama", tmp_path / "mini"))  # another vocabulary
    found = evaluated([a, mini], data, tmp_path / "other")
    assert all(found["a", task] == overwritten["a", task] for task in TASKS)
    assert all(isinstance(found["mini", task], list) and found["mini", task] != found["a", task] for task in TASKS)
    assert live.engine_starts == starts + 1


def test_a_truncated_file_fails_by_name_and_the_others_go_on(live: Engine, data: Path, tmp_path: Path) -> None:
    good, bad = (build_loud("llama", tmp_path / name, seed) for seed, name in enumerate(("good", "bad")))
    plan, roots = planned([bad, good], data)  # it is cut while the run is under way, after everything was looked up
    content = (bad / "model.safetensors").read_bytes()
    (bad / "model.safetensors").write_bytes(content[: len(content) // 2])
    failures = run_plan(plan, tmp_path / "run", roots, quiet=True, workers=0).failures
    assert len(failures) == 1
    assert "bad" in failures[0]
    assert "model.safetensors" in failures[0]
    done = [cell for cell in read_records(tmp_path / "run", CellRecord)[0].values() if cell.status == "success"]
    assert {Path(cell.model).name for cell in done} == {"good"}
    assert len(done) == len(TASKS)


def test_weights_that_change_between_record_and_load(
    live: Any, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Something writes into the folder after it was recorded: the cells fail and say so; nothing of it is kept."""
    a, b = (build_loud("llama", tmp_path / name, seed) for seed, name in enumerate("ab"))
    plan, roots = planned([a], data)
    from infosteer_bench.runs.worker import Worker

    real = Worker.cells

    def cells(self: Any, *args: Any) -> Any:
        tensors = load_file(b / "model.safetensors")
        save_file(tensors, a / "model.safetensors", metadata={"format": "pt"})
        return real(self, *args)

    monkeypatch.setattr(Worker, "cells", cells)
    failures = run_plan(plan, tmp_path / "run", roots, quiet=True, workers=0, storage=Storage(keep=True)).failures
    assert len(failures) == len(TASKS)
    assert all("are not those of its record" in failure for failure in failures)
    assert not (tmp_path / "run" / "answers").exists()


# --- parity


def test_hf_and_vllm_give_the_same_answers(tmp_path: Path) -> None:
    """`eval --parity` over the fifteen tasks on an embedded model: 99 percent equal, each engine with itself too."""
    model = MODELS / "mini-llama"
    options = ["--data-root", "miniworld", "--limit", "8", "--set", "eval.max_new_tokens=24"]
    out, err = run(["eval", "--checkpoint", str(model), "--parity", *options], tmp_path, VLLM_CPU_KVCACHE_SPACE=SPACE)
    assert "parity: vllm, the second time: answering 15 tasks" in err
    found = json.loads((tmp_path / "runs/eval/parity.json").read_text())
    assert found["dtype"] == "float32"
    assert len(found["tasks"]) == 15
    for pair in (found["all"]["engines"], *found["all"]["again"].values()):
        assert pair["n_items"] == 120
        assert pair["same_answers"] >= 119
    assert f"{120 - found['all']['engines']['same_answers']} items with different answers by hf and vllm" in out
