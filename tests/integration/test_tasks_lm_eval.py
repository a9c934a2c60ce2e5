"""Plain lm_eval, given only our folder of YAMLs, runs the very tasks that our own commands run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny import build_tiny

from infosteer_bench.benchmark import GROUPS
from infosteer_bench.models.catalog import MINI_MODELS
from infosteer_bench.records import CellRecord, read_items, read_records, samples_path
from infosteer_bench.tasks.catalog import read_tasks, tasks_dir
from infosteer_bench.tasks.filters import RULES
from tests.integration.cli import run

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.integration
def test_plain_lm_eval_runs_all_fifteen(tmp_path: Path, data_root: Path) -> None:
    """The stock command line, our folder, a random model: 15 tasks and the groups come out, with every score."""
    model = build_tiny("llama", tmp_path / "tiny-llama")
    environment = {**os.environ, "INFOSTEER_DATA_ROOT": str(data_root), "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    command = [
        *(sys.executable, "-m", "lm_eval", "run", "--model", "hf", "--model_args", f"pretrained={model},dtype=float32"),
        *("--include_path", str(tasks_dir()), "--tasks", "infosteer_all", "--limit", "2", "--device", "cpu"),
        *("--batch_size", "8", "--gen_kwargs", "max_gen_toks=8"),
        *("--log_samples", "--output_path", str(tmp_path / "out")),
    ]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=500)
    assert done.returncode == 0, done.stderr[-3000:]
    (results,) = (tmp_path / "out").rglob("results_*.json")
    report = json.loads(results.read_text(encoding="utf-8"))
    scores = report["results"]
    for name, info in read_tasks().items():
        found = scores[f"infosteer_{name}"]
        for rule in RULES:
            assert 0 <= found[f"exact_match,{rule}"] <= 1
            assert 0 <= found[f"unparsed,{rule}"] <= 1
        assert ("option_rank,none" in found) == (info.kind == "choice")
        assert "truncated,none" not in found
        assert report["n-samples"][f"infosteer_{name}"]["effective"] == 2
        assert report["versions"][f"infosteer_{name}"] == 1.0
    for group in ("id", "ood", "all"):
        members = [scores[f"infosteer_{name}"]["unparsed,robust"] for name in GROUPS[group]]
        assert report["groups"][f"infosteer_{group}"]["unparsed,robust"] == pytest.approx(sum(members) / len(members))
    # A random model says nothing that can be read, and ranks options by chance: the scores are of its own answers.
    (samples,) = (tmp_path / "out").rglob("samples_infosteer_boolq_*.jsonl")
    rows = [json.loads(line) for line in samples.read_text(encoding="utf-8").splitlines()]
    for row in (row for row in rows if row["filter"] == "none"):
        ranked = [float(likelihood) for ((likelihood, _),) in row["resps"][1:]]
        best = row["doc"]["options"][ranked.index(max(ranked))]
        assert row["option_rank"] == float(best == row["target"])


@pytest.mark.integration
def test_our_hf_engine_scores_as_lm_evals_own(tmp_path: Path) -> None:
    """The same checkpoint, YAMLs and limit by stock `lm_eval --model hf` and by `eval`: the same answers and scores."""
    data, model = tmp_path / "data", MINI_MODELS / "mini-llama"
    run(["miniworld", "data", "--output", str(data)], tmp_path)
    environment = {**os.environ, "INFOSTEER_DATA_ROOT": str(data), "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    command = [
        *(sys.executable, "-m", "lm_eval", "run", "--model", "hf", "--model_args", f"pretrained={model},dtype=float32"),
        *("--include_path", str(tasks_dir()), "--tasks", "infosteer_all", "--limit", "8", "--device", "cpu"),
        *("--batch_size", "16", "--gen_kwargs", "max_gen_toks=32"),
        *("--log_samples", "--output_path", str(tmp_path / "out")),
    ]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    (results,) = (tmp_path / "out").rglob("results_*.json")
    theirs = json.loads(results.read_text(encoding="utf-8"))["results"]

    options = ["--data-root", str(data), "--limit", "8", "--set", "eval.max_new_tokens=32"]
    run(["eval", "--checkpoint", str(model), "--backend", "hf", *options], tmp_path)
    cells, problems = read_records(tmp_path / "runs/eval", CellRecord)
    assert len(cells) == 15
    assert not problems
    for key, cell in cells.items():
        scores = theirs[f"infosteer_{cell.task}"]
        for rule in RULES:
            assert cell.exact_match[rule] == pytest.approx(100 * scores[f"exact_match,{rule}"], abs=1e-9)
            assert cell.unparsed[rule] == pytest.approx(100 * scores[f"unparsed,{rule}"], abs=1e-9)
        if cell.option_rank is not None:
            assert cell.option_rank == pytest.approx(100 * scores["option_rank,none"], abs=1e-9)
        (samples,) = (tmp_path / "out").rglob(f"samples_infosteer_{cell.task}_*.jsonl")
        rows = [json.loads(line) for line in samples.read_text(encoding="utf-8").splitlines()]
        texts = {row["doc_id"]: row["resps"][0][0] for row in rows if row["filter"] == "robust"}
        ours = {row["doc_id"]: row["generation"] for row in read_items(samples_path(tmp_path / "runs/eval", key))}
        assert ours == texts
