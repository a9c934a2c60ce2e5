"""Agreement of two passes, counted item by item, and the report and table made of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from infosteer_bench.cli import main
from infosteer_bench.commands.parity import SHOWN, table
from infosteer_bench.evaluation import engine as engine_module
from infosteer_bench.evaluation import parity as parity_module
from infosteer_bench.evaluation.evaluate import EvalSettings
from infosteer_bench.evaluation.parity import agreement, ask, report
from infosteer_bench.grid import EvalConfig, PromptConfig
from infosteer_bench.models.catalog import MINI_MODELS as MODELS
from infosteer_bench.tasks.catalog import read_tasks


def row(n: int, extracted: str | None, generation: str = "text", option_rank: float | None = None) -> dict[str, Any]:
    answers = json.dumps({"robust": extracted, "strict": None})
    found = {"doc_id": n, "prompt_digest": str(n), "extracted": answers, "generation": generation}
    return {**found, "option_rank": option_rank}


def test_agreement_counts_answers_texts_and_ranks() -> None:
    first = [row(0, "a"), row(1, "b"), row(2, None), row(3, "d", option_rank=1.0)]
    second = [row(0, "a", "other text"), row(1, "c"), row(2, None), row(3, "d", option_rank=0.0)]
    found = agreement(first, second)
    assert (found["n_items"], found["same_answers"], found["same_texts"]) == (4, 2, 3)
    assert [one["doc_id"] for one in found["differing"]] == [1, 3]
    assert json.loads(found["differing"][0]["second"]["extracted"])["robust"] == "c"


def test_passes_over_other_items_are_not_compared() -> None:
    with pytest.raises(AssertionError, match="another item"):
        agreement([row(0, "a")], [row(1, "a")])
    with pytest.raises(ValueError, match="shorter"):
        agreement([row(0, "a"), row(1, "a")], [row(0, "a")])


def test_two_engines_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Real answers by hf under both names, so that everything agrees; then one answer is changed."""
    asking = EvalSettings(
        EvalConfig(dtype="float32", limit=3, max_new_tokens=8, batch_size=4), PromptConfig(), Path("miniworld")
    )
    infos = {name: info for name, info in read_tasks().items() if name in ("boolq", "gsm8k")}
    rows_per_batch: list[int] = []
    real = parity_module.make_engine

    def make(name: str, *, eval_config: EvalConfig) -> Any:
        rows_per_batch.append(eval_config.batch_size)
        return real("hf", eval_config=eval_config)

    monkeypatch.setattr(parity_module, "make_engine", make)
    told: list[str] = []
    passes = [
        one
        for backend in ("hf", "vllm")
        for one in ask(backend, MODELS / "mini-llama", infos, asking, weight_digest="0", on_progress=told.append)
    ]
    assert rows_per_batch == [4, 2, 4], "hf the second time with half the rows; the other engine stays"
    assert told[1] == "hf, the second time: answering 2 tasks"
    found = report(passes)
    assert found["all"]["engines"] == {"n_items": 6, "same_answers": 6, "same_texts": 6, "same_answers_percent": 100.0}
    assert found["all"]["again"]["hf"]["same_answers"] == 6
    assert found["tasks"]["gsm8k"]["engines"]["differing"] == []
    lines = table({"model": "m", "dtype": "float32", **found})
    assert "0 items with different answers by hf and vllm" in lines
    passes[2].results["gsm8k"].rows[1].update(extracted='{"robust":"12"}')
    found = report(passes)
    assert found["all"]["engines"]["same_answers"] == 5
    assert found["tasks"]["gsm8k"]["again"]["vllm"]["same_answers"] == 2
    (line,) = [line for line in table({"model": "m", "dtype": "float32", **found}) if line.startswith("  gsm8k 1: hf")]
    assert '"12"' in line


def test_a_long_list_is_cut_on_the_screen_only() -> None:
    found = agreement([row(n, "a") for n in range(50)], [row(n, "b") for n in range(50)])
    pair = {**found, "same_answers": 0}
    tasks = {"boolq": {"engines": pair, "again": {"hf": pair, "vllm": pair}, "time_s": {"hf": 1.0, "vllm": 2.0}}}
    lines = table({"model": "m", "dtype": "float32", "tasks": tasks, "all": tasks["boolq"]})
    assert f"  and {50 - SHOWN} more" in lines
    assert len(found["differing"]) == 50


def test_parity_needs_both_engines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["eval", "--checkpoint", str(MODELS / "mini-llama"), "--parity", "--output", str(tmp_path / "runs")]
    assert main([*arguments, "--backend", "hf"]) == 2
    assert "--parity compares both engines" in capsys.readouterr().err
    monkeypatch.setattr(engine_module, "vllm_installed", lambda: False)
    assert main(arguments) == 2
    assert "no vllm is installed here" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
