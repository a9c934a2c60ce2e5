"""`run` as a user types it: whole, interrupted, killed, through the hub, with everything of one's own, with vLLM."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from hub import Hub
from tiny import build_data_root

from tests.integration.cli import REPOSITORY, environment, run, start, stop_when

pytestmark = pytest.mark.integration

PAPER = {
    "Qwen/Qwen2.5-1.5B": "qwen2",
    "Qwen/Qwen2.5-7B": "qwen2",
    "meta-llama/Llama-3.2-1B": "llama",
    "meta-llama/Meta-Llama-3-8B": "llama",
    "google/gemma-2-2b": "gemma2",
    "google/gemma-2-9b": "gemma2",
}


@pytest.fixture(scope="module")
def invented_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_data_root(tmp_path_factory.mktemp("data"))


@pytest.fixture
def arguments(tiny_models: dict[str, Path], invented_data: Path) -> list[str]:
    """A laptop grid that takes half a minute: 7 checkpoints, 60 cells."""
    return [
        *("run", "--grid", "laptop", "--models", str(tiny_models["llama"]), "--data-root", str(invented_data)),
        *("--seeds", "0", "--limit", "3", "--backend", "hf"),
        *("--set", "train.max_examples=24", "--set", "eval.max_new_tokens=12", "--set", "train.learning_rate=0.003"),
    ]


def board(folder: Path, grid: str = "laptop") -> Path:
    return folder / "runs" / grid / "leaderboard" / "leaderboard.csv"


def cells(folder: Path) -> list[Path]:
    return sorted((folder / "runs/laptop/cells").glob("*.json"))


def test_stopped_runs_end_with_the_same_board(arguments: list[str], tmp_path: Path) -> None:
    """SIGKILL while training, Ctrl-C and SIGTERM while answering, a damaged record and checkpoint: the same bytes."""
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    whole.mkdir()
    stopped.mkdir()
    out, _ = run([*arguments, "--workers", "1"], whole)
    assert "60 of 60 cells done" in out
    arguments = [*arguments, "--workers", "2"]  # the number of workers changes nothing but the time

    curves = stopped / "runs/laptop/curves"
    code, _ = stop_when(lambda: any(curves.glob("*.jsonl")), arguments, stopped, by=signal.SIGKILL)
    assert code == -signal.SIGKILL
    code, err = stop_when(lambda: len(cells(stopped)) >= 3, arguments, stopped, by=signal.SIGINT)
    assert code == 130
    assert "interrupted; state is kept" in err
    assert "Traceback" not in err
    code, _ = stop_when(lambda: len(cells(stopped)) >= 20, arguments, stopped, by=signal.SIGTERM)
    assert code == 130
    before = {path: path.read_bytes() for path in cells(stopped)}
    code, _ = stop_when(lambda: len(cells(stopped)) > len(before) + 10, arguments, stopped, by=signal.SIGKILL)
    kept = {path: path.read_bytes() for path in before}
    assert kept == before  # finished cells are never touched again
    damaged = cells(stopped)[0]
    damaged.write_text(damaged.read_text().replace('"n_items": 3', '"n_items": 4'))
    _, err = run(arguments, stopped)
    assert "does not verify: will be made anew" in err
    assert board(stopped).read_bytes() == board(whole).read_bytes()
    assert [path.name for path in cells(stopped)] == [path.name for path in cells(whole)]
    assert not list(stopped.rglob("*.tmp"))
    assert not list((stopped / "runs/laptop").glob("weights/*"))

    stamps = {path: path.stat().st_mtime_ns for path in cells(whole)}
    out, err = run([*arguments, "--dry-run"], whole)
    assert "done 60, missing 0, failed 0" in out
    run(arguments, whole)
    assert {path: path.stat().st_mtime_ns for path in cells(whole)} == stamps
    run(["leaderboard", "--output", "runs/laptop/leaderboard", "--check"], whole)


def test_two_runs_on_one_folder(arguments: list[str], tmp_path: Path) -> None:
    first = start(arguments, tmp_path)
    try:
        while not (tmp_path / "runs/laptop/curves").exists():
            assert first.poll() is None
        _, err = run(arguments, tmp_path, expect=2)
        assert f"is in use by process {first.pid}" in err
    finally:
        first.kill()
        first.communicate()


def killed_worker(arguments: list[str], folder: Path) -> tuple[int, str]:
    """Start, SIGKILL a worker once something is trained; returns (exit code, stderr)."""
    folder.mkdir()
    process = start(arguments, folder)
    while not any((folder / "runs/laptop/curves").glob("*.jsonl")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    workers(process.pid)[0].kill()
    _, err = process.communicate(timeout=600)
    return process.returncode, err


def test_a_worker_that_dies_costs_its_checkpoint_only(arguments: list[str], tmp_path: Path) -> None:
    """SIGKILL to one of two workers: said, tried again. Without retries the others go on, the next run does it."""
    some = [*arguments, "--tasks", "gsm8k,boolq", "--workers", "2"]
    code, err = killed_worker(some, tmp_path / "again")
    assert code == 0, err
    assert err.count("its worker ended, killed (for memory?); trying again") == 1
    assert len(cells(tmp_path / "again")) == 8
    tmp_path /= "never"
    code, err = killed_worker([*some, "--retries", "0"], tmp_path)
    assert code == 1, err
    assert err.count("its worker ended, killed (for memory?) (log: logs/") == 2  # when it happens, and at the end
    assert "Traceback" not in err
    open_cells = 8 - len(cells(tmp_path))
    assert 1 <= open_cells <= 5  # base has two cells, a trained checkpoint one
    out, err = run(some, tmp_path)
    assert "8 of 8 cells done" in out
    assert f"[{open_cells}/{open_cells}, " in err


def test_workers_end_with_their_parent(arguments: list[str], tmp_path: Path) -> None:
    process = start([*arguments, "--workers", "2"], tmp_path)
    while not any((tmp_path / "runs/laptop/curves").glob("*.jsonl")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    left = workers(process.pid)
    assert len(left) == 2
    process.kill()
    process.communicate()
    _, alive = psutil.wait_procs(left, timeout=10)
    assert not alive


def workers(parent: int) -> list[psutil.Process]:
    """The worker processes of a run; multiprocessing has a helper of its own beside them."""
    children = psutil.Process(parent).children()
    return [child for child in children if any("spawn_main" in word for word in child.cmdline())]


def test_a_failed_checkpoint_is_named_and_the_rest_goes_on(arguments: list[str], tmp_path: Path) -> None:
    failing = [*arguments, "--tasks", "gsm8k,boolq", "--set", "methods.infosteer-regularization.lambda=1e38"]
    _, err = run(failing, tmp_path, expect=1)
    assert "step 1: the loss is not finite" in err
    assert "logs/" in err
    rows = list(csv.DictReader(board(tmp_path).open()))
    assert {row["method"] for row in rows if row["accuracy"]} == {"base", "sft", "infosteer-intervention"}


def test_paper_grid_through_the_hub(tiny_models: dict[str, Path], invented_data: Path, tmp_path: Path) -> None:
    """The paper's six names, four of them gated, fetched by the real clients from a loopback hub."""
    root = tmp_path / "hub"
    for name, family in PAPER.items():
        shutil.copytree(tiny_models[family], root / name)
    gated = {name: "hf_loopback" for name in PAPER if not name.startswith("Qwen")}
    work = tmp_path / "work"
    work.mkdir()
    command = [
        *("run", "--models", "all", "--grid", "paper", "--limit", "4", "--set", "train.max_examples=32"),
        *("--seeds", "0", "--data-root", str(invented_data), "--set", "eval.max_new_tokens=8"),
    ]
    with Hub(root, gated=gated) as hub:
        hub_environment = {
            "HF_ENDPOINT": hub.url,
            "HF_HUB_OFFLINE": "0",
            "HF_HOME": str(tmp_path / "home"),
            "INFOSTEER_CACHE": str(tmp_path / "cache"),
        }
        _, err = run(command, work, expect=2, **hub_environment)
        assert "licence" in err
        assert not (work / "runs").exists()
        out, _ = run(command, work, HF_TOKEN="hf_loopback", **hub_environment)
        assert hub.count("pytorch_model") == 0
    assert "360 of 360 cells done" in out
    rows = list(csv.DictReader(board(work, "paper").open()))
    assert len({row["model"] for row in rows}) == 6
    reported = [row for row in rows if row["model"] == "qwen2.5-1.5b" and row["task"] == "boolq"]
    assert {row["method"]: float(row["reported"]) for row in reported} == {
        "base": 64.2,
        "sft": 68.5,
        "infosteer-intervention": 69.3,
        "infosteer-regularization": 68.7,
    }


def test_everything_of_ones_own(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    """The example of docs/own-things.md: a model, a mix, a task and a method, one file each."""
    shutil.copytree(
        REPOSITORY / "examples" / "zoo", tmp_path, dirs_exist_ok=True, ignore=shutil.ignore_patterns("runs")
    )
    shutil.copytree(tiny_models["llama"], tmp_path / "my_model")
    run(["run", "--grid", "my_grid.yaml", "--models", "my_model"], tmp_path)
    rows = list(csv.DictReader(board(tmp_path, "zoo").open()))
    assert {row["method"] for row in rows} == {"base", "sft", "infosteer-intervention", "sft-frozen-embeddings"}
    assert {row["arm"] for row in rows if row["method"] == "infosteer-intervention"} == {"alpha=2.0,fraction=0.02"}
    assert {row["task"] for row in rows if not row["task"].startswith("mean:")} == {"zoo"}
    records = [json.loads(path.read_text()) for path in (tmp_path / "runs/zoo/checkpoints").glob("*.json")]
    weights = {(record["method"], record["seed"]): record["weight_digest"] for record in records}
    for seed in (0, 1):  # the example's method does change what is trained
        assert weights["sft", seed] != weights["sft-frozen-embeddings", seed]


def test_eval_of_any_checkpoint(tiny_models: dict[str, Path], invented_data: Path, tmp_path: Path) -> None:
    command = ["eval", "--checkpoint", str(tiny_models["gemma2"]), "--tasks", "boolq,svamp", "--limit", "2"]
    run([*command, "--data-root", str(invented_data), "--set", "eval.max_new_tokens=8"], tmp_path)
    rows = list(csv.DictReader(board(tmp_path, "eval").open()))
    assert {(row["task"], row["n_items"]) for row in rows if ":" not in row["task"]} == {("boolq", "2"), ("svamp", "2")}


def test_train_under_a_launcher(tiny_models: dict[str, Path], invented_data: Path, tmp_path: Path) -> None:
    """Two gloo ranks: one record, one checkpoint, and as many rows per step as on one."""
    command = [
        *("train", "--grid", "laptop", "--models", str(tiny_models["llama"]), "--data-root", str(invented_data)),
        *("--seeds", "0", "--methods", "infosteer-regularization", "--tasks", "gsm8k"),
        *("--set", "train.max_examples=24"),
    ]
    subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"),
            *("--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0", "-m", "infosteer_bench", *command),
        ],
        cwd=tmp_path,
        env=environment(OMP_NUM_THREADS="1", CUDA_VISIBLE_DEVICES=""),
        check=True,
        timeout=1200,
    )
    (record,) = (tmp_path / "runs/laptop/checkpoints").glob("*.json")
    content = json.loads(record.read_text())
    assert content["status"] == "success"
    assert content["training"]["world_size"] == 2
    assert content["training"]["steps"] == 3  # 24 rows by 4 x 2, on any number of ranks
    assert (tmp_path / "runs/laptop" / content["path"] / "model.safetensors").is_file()


@pytest.mark.vllm
def test_run_with_vllm(arguments: list[str], tmp_path: Path) -> None:
    """The same grid on a real vLLM engine, started once for all seven checkpoints."""
    command = [part if part != "hf" else "vllm" for part in arguments]
    out, _ = run(command, tmp_path, VLLM_CPU_KVCACHE_SPACE=os.environ.get("VLLM_CPU_KVCACHE_SPACE", "1"))
    assert "60 of 60 cells done" in out
    engines = {json.loads(path.read_text())["engine"] for path in cells(tmp_path)}
    assert engines == {"vllm"}


def test_console_start_is_light() -> None:
    """`--help` and the package import none of the heavy libraries."""
    code = (
        "import sys, infosteer_bench, infosteer_bench.cli as c; c.main(['--help']); c.main(['run', '--help']);"
        "bad = {'torch', 'transformers', 'vllm', 'pandas', 'datasets', 'lm_eval'} & set(sys.modules);"
        "assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=REPOSITORY, env=environment(), capture_output=True)
