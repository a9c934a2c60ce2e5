"""`profile runs`: the invented run is one that the real commands take for finished."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from infosteer_bench.cli import main


def test_whole_commands_are_timed_on_a_finished_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "runs.json"
    assert main(["profile", "runs", "--cells", "50", "--items", "4", "--plan", "100", "--json", str(path)]) == 0
    found = json.loads(path.read_text())
    # three models: base answers 15 tasks, three methods on two mixes 15 a seed
    assert (found["cells"], found["planned_cells"]) == (180, 180)
    assert all(0 < found[name] < 120 for name in ("leaderboard_s", "first_rerun_s", "rerun_s", "plan_s"))
    said = capsys.readouterr()
    assert "a finished run of 180 cells of 4 items" in said.out
    assert "profile: leaderboard" in said.err
