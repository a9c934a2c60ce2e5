"""What ships for `run --models all`: the embedded models are whole, are what their records say, and need no network."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from infosteer_bench.benchmark import TASKS
from infosteer_bench.cli import main
from infosteer_bench.data.miniworld.items import task_items
from infosteer_bench.data.miniworld.world import make_world
from infosteer_bench.data.render import Renderer
from infosteer_bench.device import has_cuda
from infosteer_bench.grid import PromptConfig, load_grid
from infosteer_bench.models.catalog import CATALOG
from infosteer_bench.models.load import load_tokenizer, resolve_model
from infosteer_bench.models.weights import weight_digest
from infosteer_bench.runs.choose import _default_grid
from infosteer_dev.miniworld.build import Recipe, made_by
from infosteer_dev.miniworld.tokenizer import make_tokenizer

EMBEDDED = [row for row in CATALOG.values() if row.folder is not None]


@pytest.mark.parametrize("row", EMBEDDED, ids=lambda row: row.id)
def test_a_shipped_model_is_what_its_record_says(row):
    resolved = resolve_model(row.id, model_root=None)
    record = json.loads((row.folder / "build.json").read_text(encoding="utf-8"))
    assert resolved.parameters == row.parameters == record["parameters"]
    assert resolved.family.name == row.family == record["family"]
    assert weight_digest(row.folder) == record["weight_digest"]
    assert (row.folder / "model.safetensors").stat().st_size < 4_000_000
    world = make_world()
    assert record["made_by"] == made_by(Recipe(), world)
    assert record["world_seed"] == world.seed
    assert record["world_sizes"] == {group: len(creatures) for group, creatures in world.groups.items()}


@pytest.mark.parametrize("row", EMBEDDED, ids=lambda row: row.id)
def test_its_tokenizer_reads_every_prompt_back(row):
    """transformers' own choice of class for Qwen2 drops most words of a word-level tokenizer."""
    tokenizer, world, renderer = load_tokenizer(row.folder), make_world(), Renderer(PromptConfig())
    assert tokenizer.get_vocab() == make_tokenizer(world, bos=True).get_vocab()
    for task in TASKS:
        for record in task_items(world, task, count=20):
            prompt = renderer.prompt(record, TASKS[task].kind)
            ids = tokenizer(prompt)["input_ids"]
            assert tokenizer.unk_token_id not in ids
            assert tokenizer.decode(ids, skip_special_tokens=True) == prompt


def test_the_default_grid_without_a_gpu(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr("infosteer_bench.runs.choose.has_cuda", lambda: False)
    assert _default_grid(["all"]) == "embedded"
    assert "no CUDA GPU was found" in capsys.readouterr().err
    assert _default_grid(["gemma", "mini-llama"]) == "embedded"
    assert _default_grid(["qwen2.5-0.5b"]) == "laptop"
    monkeypatch.setattr("infosteer_bench.runs.choose.has_cuda", lambda: True)
    assert _default_grid(["all"]) == "paper"


def test_the_whole_grid_plans_without_network(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    arguments = ["run", "--grid", "embedded", "--models", "all", "--dry-run", "--output", str(tmp_path)]
    assert main(arguments) == 0
    out, err = capsys.readouterr()
    assert "checkpoints: 57 (54 to train" in out
    assert "cells: 450 " in out
    assert "stand-in" not in err
    assert load_grid("embedded").data_root == "miniworld"


@pytest.mark.skipif(has_cuda(), reason="where a GPU may be, torch is asked")
def test_planning_imports_no_torch(tmp_path: Path):
    """A rerun of a finished grid ends in a second or two; torch alone takes as long to import."""
    program = (
        "import sys; from infosteer_bench.cli import main; code = main(sys.argv[1:]); "
        "sys.exit(code or any(name in sys.modules for name in ('torch', 'transformers', 'lm_eval')))"
    )
    arguments = ["run", "--models", "all", "--dry-run", "--output", str(tmp_path)]
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_strengths_are_compared_with_the_same_recipe():
    grid, strengths = load_grid("embedded"), load_grid("embedded-strengths")
    assert strengths.train == grid.train
    assert strengths.models == grid.models
    assert not set(strengths.seeds) & set(grid.seeds)
