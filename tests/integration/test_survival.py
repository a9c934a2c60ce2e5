"""Runs that meet a full disk."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from infosteer_bench.records import CellRecord, CheckpointRecord, read_records
from tests.integration.cli import run

pytestmark = pytest.mark.integration

ARGUMENTS = [
    *("run", "--grid", "embedded", "--models", "mini-llama", "--seeds", "0", "--limit", "3", "--tasks", "boolq,addsub"),
    *("--set", "train.max_examples=16", "--set", "eval.max_new_tokens=8"),
]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder with 10 MB of room of its own."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=10m", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        mounted = False
    if not mounted:
        pytest.skip("mounting a file system is not allowed here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_disk_that_fills(small_disk: Path, tmp_path: Path, workers: str) -> None:
    """Checkpoints of 7 MB where 10 are free: one line, whatever is on disk is whole, and with room the rest is done."""
    arguments = [*ARGUMENTS, "--workers", workers]
    whole = tmp_path / "whole"
    whole.mkdir()
    run(arguments, whole)
    out, err = run([*arguments, "--quiet"], small_disk, expect=2)
    assert not out
    assert [
        line for line in err.splitlines() if "the disk is full (runs); next: make room" in line
    ] == err.splitlines()[-1:]
    assert "Traceback" not in err
    for kind in (CheckpointRecord, CellRecord):
        _, problems = read_records(small_disk / "runs/embedded", kind)
        assert not problems
    for path in (small_disk / "runs/embedded").glob("*.json"):
        json.loads(path.read_text())
    subprocess.run(["mount", "-o", "remount,size=200m", str(small_disk)], check=True)
    run(arguments, small_disk)
    boards = [folder / "runs/embedded/leaderboard/leaderboard.csv" for folder in (whole, small_disk)]
    assert boards[0].read_bytes() == boards[1].read_bytes()
    assert not list((small_disk / "runs/embedded").rglob("*.tmp"))
