"""SIGKILL at random moments, again and again: the run ends with the same board, nothing twice, nothing left over."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from pathlib import Path

import psutil
import pytest

from infosteer_bench.records import CellRecord, CheckpointRecord, read_items, read_records, read_sealed, samples_path
from tests.integration.cli import run, start

pytestmark = [pytest.mark.integration, pytest.mark.timeout(3000)]

ARGUMENTS = [
    *("run", "--grid", "smoke", "--models", "mini-qwen2", "--backend", "hf", "--workers", "2"),
    *("--set", "train.save_steps=1"),  # so that trainings are resumed, too
]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nothing happened to."""
    folder = tmp_path_factory.mktemp("undisturbed")
    run(ARGUMENTS, folder)
    return folder / "runs/smoke"


@pytest.mark.parametrize(
    ("seed", "kills"), [pytest.param(0, 5, id="five"), pytest.param(1, 20, id="twenty", marks=pytest.mark.slow)]
)
def test_killed_at_random(seed: int, kills: int, undisturbed: Path, tmp_path: Path) -> None:
    """Each kill hits the command alone, one of its workers, or all of them at once."""
    rng = random.Random(seed)
    run_dir = tmp_path / "runs/smoke"
    for _ in range(kills):
        process = start(ARGUMENTS, tmp_path)
        before = footprint(run_dir)
        while process.poll() is None and footprint(run_dir) == before:
            time.sleep(0.02)
        time.sleep(rng.uniform(0, 3))
        victims = rng.choice([command, one_worker, everything])(process.pid, rng)
        for victim in victims:
            try:
                os.kill(victim, signal.SIGKILL)
            except ProcessLookupError:
                continue
        if process.pid in victims:
            process.communicate(timeout=600)
        else:  # the command goes on with a new worker; the next kill is its own
            time.sleep(rng.uniform(0, 3))
            process.kill()
            process.communicate(timeout=600)
    run(ARGUMENTS, tmp_path)
    for name in ("leaderboard/leaderboard.csv", "plan.json"):
        assert (run_dir / name).read_bytes() == (undisturbed / name).read_bytes()
    nothing_twice_nothing_left_over(run_dir)


def footprint(run_dir: Path) -> tuple[int, int]:
    """Changes as soon as a worker has begun to train or to answer."""
    files = [path for kind in ("curves", "answers", "cells") for path in (run_dir / kind).glob("*")]
    return len(files), sum(path.stat().st_size for path in files if path.exists())


def command(pid: int, rng: random.Random) -> list[int]:
    return [pid]


def one_worker(pid: int, rng: random.Random) -> list[int]:
    workers = everything(pid, rng)[1:]
    return [rng.choice(workers)] if workers else [pid]


def everything(pid: int, rng: random.Random) -> list[int]:
    try:
        children = psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return [pid]
    return [pid, *(child.pid for child in children)]


def nothing_twice_nothing_left_over(run_dir: Path) -> None:
    """Every file belongs to the plan and verifies; no answer stands twice."""
    plan = read_sealed(run_dir / "plan.json")
    checkpoints, problems = read_records(run_dir, CheckpointRecord)
    cells, more = read_records(run_dir, CellRecord)
    assert not problems + more
    assert sorted(checkpoints) == sorted(plan["checkpoints"])
    assert sorted(cells) == sorted(plan["cells"])
    assert {path.stem for path in (run_dir / "samples").iterdir()} == set(cells)
    for key, cell in cells.items():
        assert cell.status == "success"
        assert len(read_items(samples_path(run_dir, key))) == cell.n_items
    for path in (run_dir / "answers").iterdir():
        keys = [json.loads(line)[0] for line in path.read_text().splitlines()]
        assert len(set(keys)) == len(keys), f"{path.name}: an answer stands twice"
    trained = {key for key, record in checkpoints.items() if record.curve_sha256}
    assert {path.stem for path in (run_dir / "curves").iterdir()} == trained
    for key in trained:
        steps = [json.loads(line)["step"] for line in (run_dir / "curves" / f"{key}.jsonl").read_text().splitlines()]
        assert steps == list(range(1, checkpoints[key].training["steps"] + 1))
    left = [path for folder in ("weights", "scratch") for path in (run_dir / folder).glob("*")]
    assert not left + list(run_dir.rglob("*.tmp"))
