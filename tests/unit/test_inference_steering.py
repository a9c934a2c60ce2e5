"""`apply_at_inference`: the checkpoint says what it needs, and the engine does it and counts, or refuses."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from infosteer_bench.evaluation.hf import HFEngine
from infosteer_bench.evaluation.lm import EngineLM
from infosteer_bench.grid import EvalConfig
from infosteer_bench.methods import METHODS
from infosteer_bench.models.load import load_model
from tests.gradients import _reference_edit

PAIRS = [([5, 6, 7, 8], [9]), ([10, 11], [12])]


def _scores(lm: EngineLM) -> list[Any]:
    return [score for _, score in sorted(item for batch in lm.score_ids(PAIRS) for item in batch)]


def runtime(**settings: object) -> dict | None:
    return METHODS.get("infosteer-intervention").configure({**settings, "apply_at_inference": True}).runtime


def test_training_only_needs_nothing() -> None:
    assert METHODS.get("infosteer-intervention").configure({}).runtime is None


def test_hf_engine_lifts_while_answering(tiny_models: dict[str, Path]) -> None:
    path = tiny_models["llama"]
    engine = HFEngine(EvalConfig(dtype="float32"))
    engine.load(path, weight_digest="a", runtime=None)
    plain = _scores(engine.lm)
    engine.load(path, weight_digest="a", runtime=runtime(fraction=0))
    assert _scores(engine.lm) == plain
    engine.load(path, weight_digest="a", runtime=runtime(fraction=0.05, alpha=2))
    lifted = _scores(engine.lm)
    assert lifted != plain

    model = load_model(path, dtype="float32")
    for name, module in model.named_modules():
        if name.endswith("down_proj"):
            module.register_forward_pre_hook(lambda _, args: (_reference_edit("infosteer-intervention", args[0], []),))
    with torch.no_grad():
        for (context, continuation), (score, _) in zip(PAIRS, lifted, strict=True):
            logits = model(torch.tensor([context + continuation])).logits[0, len(context) - 1]
            assert score == pytest.approx(float(logits.log_softmax(-1)[continuation[0]]), abs=1e-5)

    model = engine.lm.model
    engine.close()
    assert not any(module._forward_pre_hooks for module in model.modules())


def _worker(path: Path, *, tensor_parallel: int = 1) -> Any:
    """vLLM's worker as the steering sees it, around transformers' model."""
    from infosteer_bench.evaluation.vllm.steering import SteeringExtension

    slot = SteeringExtension()
    model = load_model(path, dtype="float32")
    slot.model_runner = SimpleNamespace(get_model=lambda: model, model_config=SimpleNamespace(hf_config=model.config))
    slot.parallel_config = SimpleNamespace(tensor_parallel_size=tensor_parallel, pipeline_parallel_size=1)
    return slot


def test_inside_the_worker_a_method_replaces_the_one_before(tiny_models: dict[str, Path]) -> None:
    slot = _worker(tiny_models["gemma3"])
    model, ids = slot.model_runner.get_model(), torch.tensor([[5, 6, 7]])
    with torch.inference_mode():
        plain = model(ids).logits
        assert slot.steer(runtime(fraction=0.2, alpha=5)) == 0
        strong = model(ids).logits
        assert slot.steering_invocations() == 2  # two layers
        assert slot.steer(runtime(fraction=0.0)) == 0
        assert torch.equal(model(ids).logits, plain)
        assert not torch.equal(strong, plain)
        assert slot.steer(None) is None
        assert slot.steering_invocations() is None
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_a_worker_refuses_what_it_could_not_prove(tiny_models: dict[str, Path]) -> None:
    with pytest.raises(RuntimeError, match="spread over 2 workers"):
        _worker(tiny_models["llama"], tensor_parallel=2).steer(runtime())
    with pytest.raises(RuntimeError, match="without an `invocations` counter"):
        _worker(tiny_models["llama"]).steer({"name": "sft", "settings": {}})
