"""`profile eval`: variants that answer differently, times that add up, the same answers both ways."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file

from infosteer_bench.cli import main
from infosteer_bench.models.catalog import MINI_MODELS as MODELS
from infosteer_bench.models.load import weight_digest
from infosteer_bench.profiling.evaluate import NOISE, make_variant


def test_variants_are_other_models_of_the_same_shape(tmp_path: Path) -> None:
    source = MODELS / "mini-llama"
    first, again, second = (
        make_variant(source, tmp_path / name, seed=seed) for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    assert weight_digest(first) == weight_digest(again)
    assert len({weight_digest(path) for path in (source, first, second)}) == 3
    one, plain = (load_file(path / "model.safetensors") for path in (first, source))
    for name, tensor in plain.items():
        assert one[name].dtype == tensor.dtype
        change = (one[name].float() - tensor.float()).norm() / tensor.float().norm()
        assert 0.3 * NOISE < change < 3 * NOISE
    assert (first / "config.json").read_bytes() == (source / "config.json").read_bytes()


def test_both_ways_by_hf(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "folder" / "eval.json"
    options = ["--checkpoints", "3", "--limit", "2", "--tasks", "boolq,gsm8k", "--set", "eval.max_new_tokens=8"]
    assert main(["profile", "eval", "--backend", "hf", *options, "--json", str(path)]) == 0
    said = capsys.readouterr()
    found = json.loads(path.read_text())
    assert found["setting"] == {
        "backend": "hf",
        "dtype": "float32",
        "checkpoints": 3,
        "tasks": ["boolq", "gsm8k"],
        "limit": 2,
        "max_new_tokens": 8,
    }
    assert (found["items"], found["same_items"]) == (12, 12)
    assert found["different_answers_between_checkpoints"] > 0
    for way in ("live", "fresh"):
        parts = found[way]["per_checkpoint"]
        assert len(parts) == 3
        total = sum(one[name] for one in parts for name in ("load_s", "generate_s", "other_s", "close_s"))
        assert found[way]["total_s"] == pytest.approx(total, abs=0.01)
        assert all(one["generate_s"] > 0 and one["other_s"] > 0 for one in parts)
        assert found[way]["checkpoints_per_hour"] == pytest.approx(3 * 3600 / total, rel=0.01)
    assert found["ratio"] == pytest.approx(found["fresh"]["total_s"] / found["live"]["total_s"], rel=0.01)
    assert f"fresh takes {found['ratio']:.2f} times as long; 12 of 12 items" in said.out
    assert "fresh engine, checkpoint 3 of 3" in said.err


def test_what_cannot_be_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profile", "eval", "--json", str(tmp_path)]) == 2
    assert main(["profile", "eval", "--model", "mini-lama"]) == 2
    assert main(["profile", "eval", "--tasks", "boolk"]) == 2
    assert main(["profile"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 4
    assert "mini-llama" in lines[1]
    assert "boolq" in lines[2]
