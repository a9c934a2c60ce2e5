"""What can be told without a network: a plan's size, and which data files are here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from infosteer_bench.benchmark import TASKS
from infosteer_bench.cli import main
from infosteer_bench.data import download
from infosteer_bench.data.mixes import build_mix
from infosteer_bench.data.roots import open_source
from infosteer_bench.grid import BUILTIN_MIXES, PromptConfig, load_grid
from infosteer_bench.runs.estimate import estimate, tokens_per_row
from infosteer_bench.runs.outline import outline
from infosteer_bench.runs.plan import Plan
from infosteer_bench.runs.status import Status


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("INFOSTEER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("INFOSTEER_DATA_URL", "http://127.0.0.1:9")  # the discard port: nobody listens
    monkeypatch.setattr(download, "ATTEMPTS", 1)


def planned(name: str, *settings: str) -> Plan:
    plan = outline(load_grid(name, overrides=settings))
    assert plan is not None
    return plan


def test_the_paper_s_grid_is_counted() -> None:
    plan = planned("paper")
    assert (len(plan.checkpoints), plan.n_cells) == (114, 900)
    cost = estimate(plan, Status(open_tasks={one.key: list(one.tasks) for one in plan.checkpoints}))
    assert (cost.n_train, cost.largest) == (108, "gemma-2-9b")
    assert cost.memory_bytes == pytest.approx(147.9e9, rel=1e-3)


def test_rows_are_limited_as_in_a_run() -> None:
    plan = planned("laptop", "train.max_examples=1000")
    assert {len(mix.rows) for mix in plan.inputs.mixes.values()} == {1000}


@pytest.mark.parametrize("name", BUILTIN_MIXES)
def test_the_known_numbers_are_those_of_the_real_files(data_root: Path, name: str) -> None:
    """HellaSwag's training file is not among the real data here."""
    spec = BUILTIN_MIXES[name]
    spec = spec.model_copy(update={"sources": tuple(one for one in spec.sources if one != "hellaswag")})
    grid = load_grid("laptop", overrides=["train.max_examples=null"])
    grid = grid.model_copy(update={"mixes": (spec,), "tasks": spec.tasks})
    plan = outline(grid)
    assert plan is not None
    (mix, *_) = plan.inputs.mixes.values()
    real = build_mix(spec, open_source(data_root), prompt=PromptConfig(), max_examples=None)
    assert len(mix.rows) == pytest.approx(len(real.rows), rel=5e-3)
    assert tokens_per_row(mix) == pytest.approx(tokens_per_row(real), rel=0.2)
    for task in spec.tasks:
        if (file := data_root / TASKS[task].test_file).is_file():
            assert len(json.loads(file.read_text(encoding="utf-8"))) == TASKS[task].test_items


@pytest.mark.parametrize("setting", ["models=[mini-llama]", "include_path=tasks", "models=[Some/Model]"])
def test_what_the_package_does_not_know_has_no_outline(setting: str) -> None:
    assert outline(load_grid("laptop", overrides=[setting])) is None


def test_a_dry_run_without_a_network_gives_a_plan(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--grid", "laptop", "--dry-run", "--output", str(tmp_path / "runs")]) == 0
    said = capsys.readouterr()
    assert "cells: 450" in said.out
    assert said.err.count("cannot be had") == 1
    assert "what is done cannot be told" in said.err
    assert "done" not in said.out
    assert not (tmp_path / "runs").exists()


def test_a_run_without_a_network_is_told_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--grid", "laptop", "--output", str(tmp_path / "runs")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_data_list_asks_no_network(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "list"]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert {line.split("  ")[0] for line in said.out.splitlines()} == {"to fetch"}


def test_data_fetch_without_a_network_says_so_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "fetch"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert len(said.err.splitlines()) == 1
