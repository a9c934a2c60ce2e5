"""Files of a finished run, damaged one at a time: the next run finds it, believes none of it and mends it."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from infosteer_bench.cli import main
from infosteer_bench.records import CellRecord, CheckpointRecord, read_items, read_records, read_sealed, samples_path

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

ARGUMENTS = [
    *("run", "--grid", "embedded", "--models", "mini-llama", "--methods", "base,sft", "--seeds", "0", "--limit", "3"),
    *("--tasks", "boolq,addsub", "--set", "train.max_examples=16", "--set", "eval.max_new_tokens=8", "--quiet"),
    *("--workers", "0", "--keep-checkpoints"),
]
KINDS = {
    "a checkpoint's record": "checkpoints/*sft*.json",
    "a base model's record": "checkpoints/*base*.json",
    "a cell's record": "cells/*.json",
    "a cell's items": "samples/*.parquet",
    "weights": "weights/*/model.safetensors",
    "a model's configuration": "weights/*/config.json",
    "a tokenizer": "weights/*/tokenizer.json",
    "a curve": "curves/*.jsonl",
    "answers": "answers/*.jsonl",
    "the plan": "plan.json",
    "the grid": "grid.json",
    "the audit": "audit.json",
    "high-water marks": "storage.json",
    "a board": "leaderboard/leaderboard.csv",
    "a board's page": "leaderboard/leaderboard.md",
    "a board's provenance": "leaderboard/provenance.json",
    "a board's cells": "leaderboard/records/cells.jsonl",
    "a board's items": "leaderboard/records/items.parquet",
    "a board's audit": "leaderboard/records/audit.json",
    "a board's web page": "leaderboard/index.html",
    "a board's figure": "leaderboard/figures/*.*",
    "a board's other tables": "leaderboard/[dr]*s.csv",  # deltas.csv, ranks.csv
    "the note of a finished board": "board.json",
}
SAID = {  # what the run says of it; the others are written anew by every run
    "a checkpoint's record": "does not match its digest: will be made anew",
    "a base model's record": "does not match its digest: will be made anew",
    "a cell's record": "does not verify: will be made anew",
    "a cell's items": "does not verify: will be made anew",
    "weights": "does not verify: removed, trained again",
    "a model's configuration": "does not verify: removed, trained again",
    "a tokenizer": "does not verify: removed, trained again",
    "a curve": "does not verify: set aside",
    "the plan": "does not verify: written anew",
    "the grid": "does not verify: written anew",
    "the audit": "does not verify: written anew",
    "high-water marks": "does not verify: written anew",
    "the note of a finished board": "does not verify: written anew",
}


def flipped(content: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(content))
    return content[:place] + bytes([content[place] ^ 1 << rng.randrange(8)]) + content[place + 1 :]


def truncated(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(1, len(content))]


def emptied(content: bytes, rng: random.Random) -> bytes:
    return b""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished run in it; its checkpoints are kept."""
    folder = tmp_path_factory.mktemp("finished")
    assert run_in(folder) == 0
    return folder


def run_in(folder: Path) -> int:
    before = Path.cwd()
    os.chdir(folder)
    try:
        return main(ARGUMENTS)
    finally:
        os.chdir(before)


@pytest.mark.parametrize("damage", [flipped, truncated, emptied])
@pytest.mark.parametrize("kind", KINDS)
def test_damage_is_found_and_repaired(
    kind: str,
    damage: Callable[[bytes, random.Random], bytes],
    finished: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    rng = random.Random(f"{kind} {damage.__name__}")
    folder = Path(shutil.copytree(finished, tmp_path / "run"))
    run_dir = folder / "runs/embedded"
    path = rng.choice(sorted(run_dir.glob(KINDS[kind])))
    whole = path.read_bytes()
    path.write_bytes(damage(whole, rng))
    if kind == "answers":  # nobody looks at them while all cells are done
        rng.choice(sorted((run_dir / "cells").glob(f"{path.stem.rpartition('--')[0]}--*"))).unlink()
    capsys.readouterr()
    assert run_in(folder) == 0
    said = capsys.readouterr()
    if kind in SAID:
        assert ("damaged: " in said.err, "repaired: 1 file(s)" in said.out) == (True, True), said
        assert SAID[kind].replace("does not match its digest: ", "") in said.err
    same = ("leaderboard/leaderboard.csv", "plan.json")
    for name in same:
        assert (run_dir / name).read_bytes() == (finished / "runs/embedded" / name).read_bytes()
    assert everything_verifies(run_dir) == everything_verifies(finished / "runs/embedded")
    if kind == "a curve":
        assert not path.exists()
        assert path.with_name(path.name + ".damaged").exists()
    elif kind == "a tokenizer" or kind.startswith("weights"):
        assert path.read_bytes() == whole
    assert run_in(folder) == 0
    assert "damaged" not in capsys.readouterr().err, "repaired for good"


def everything_verifies(run_dir: Path) -> tuple[list[str], list[str]]:
    """Keys of checkpoints and cells, all of them read back; their items too."""
    checkpoints, problems = read_records(run_dir, CheckpointRecord)
    cells, more = read_records(run_dir, CellRecord)
    assert not problems + more
    for key, cell in cells.items():
        assert len(read_items(samples_path(run_dir, key))) == cell.n_items
    assert sorted(path.stem for path in (run_dir / "samples").iterdir()) == sorted(cells)
    for name in ("plan.json", "grid.json", "audit.json", "storage.json"):
        assert read_sealed(run_dir / name)
    return sorted(checkpoints), sorted(cells)


def test_damaged_digests_in_the_cache_are_computed_anew(finished: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(finished, tmp_path / "run"))
    digests = sorted((Path(os.environ["INFOSTEER_CACHE"]) / "digests").iterdir())
    assert digests
    for place, path in enumerate(digests):
        path.write_bytes((flipped, truncated, emptied)[place % 3](path.read_bytes(), random.Random(place)))
    cells = folder / "runs/embedded/cells"
    before = {path: path.stat().st_mtime_ns for path in cells.iterdir()}
    assert run_in(folder) == 0
    assert {path: path.stat().st_mtime_ns for path in cells.iterdir()} == before, "nothing was done again"


@pytest.mark.parametrize("damage", [flipped, truncated, emptied])
@pytest.mark.parametrize(
    "name", ["model.safetensors", "optimizer.pt", "scheduler.pt", "trainer_state.json", "seal.json"]
)
def test_a_damaged_step_checkpoint_is_not_resumed_from(
    name: str, damage: Callable[[bytes, random.Random], bytes], tmp_path: Path
) -> None:
    """Removed, said, and the training begins at an older step or anew."""
    from infosteer_bench.training.steps import keep_newest, last_step, restore_curve

    rng = random.Random(f"{name} {damage.__name__}")
    curve = tmp_path / "curve.jsonl"
    for step in (2, 4):
        folder = tmp_path / f"scratch/checkpoint-{step}"
        folder.mkdir(parents=True)
        for file in ("model.safetensors", "optimizer.pt", "scheduler.pt", "trainer_state.json"):
            (folder / file).write_bytes(rng.randbytes(400))
        curve.write_text("".join(f'{{"step": {n}}}\n' for n in range(1, step + 1)))
        keep_newest(tmp_path / "scratch", step, curve)
    assert [path.name for path in (tmp_path / "scratch").iterdir()] == ["checkpoint-4"]
    said: list[str] = []
    assert last_step(tmp_path / "scratch", said.append) == 4
    restore_curve(curve, tmp_path / "scratch", 4)
    assert len(curve.read_text().splitlines()) == 4
    path = tmp_path / "scratch/checkpoint-4" / name
    path.write_bytes(damage(path.read_bytes(), rng))
    assert last_step(tmp_path / "scratch", said.append) is None
    assert said == ["the checkpoint of step 4 does not verify: its steps are trained again"]
    assert not list((tmp_path / "scratch").iterdir())
    restore_curve(curve, tmp_path / "scratch", None)
    assert curve.read_text() == ""
