"""Choosing a backend, answers that know how they ended, and what an engine refuses. No model is loaded."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from typing import Any

import pytest

from infosteer_bench.errors import UserError
from infosteer_bench.evaluation import Generation, choose_backend, make_engine
from infosteer_bench.evaluation import engine as engine_module
from infosteer_bench.evaluation.engine import refuse_runtime, tensor_parallel
from infosteer_bench.grid import EvalConfig


@pytest.mark.parametrize("vllm", [True, False])
@pytest.mark.parametrize("cuda", [True, False])
def test_auto_takes_vllm_only_with_a_gpu(monkeypatch: pytest.MonkeyPatch, vllm: bool, cuda: bool) -> None:
    monkeypatch.setattr(engine_module, "vllm_installed", lambda: vllm)
    monkeypatch.setattr(engine_module, "has_cuda", lambda: cuda)
    backend, reason = choose_backend("auto")
    assert backend == ("vllm" if vllm and cuda else "hf")
    assert reason.startswith(f"backend {backend}")
    assert reason.endswith(".")
    assert ("no vllm" in reason) == (not vllm)


def test_asked_for_backends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "vllm_installed", lambda: False)
    assert choose_backend("hf")[0] == "hf"
    with pytest.raises(UserError, match=r"no vllm is installed.*pip install"):
        choose_backend("vllm")
    with pytest.raises(UserError, match="no vllm is installed"):
        make_engine("vllm", eval_config=EvalConfig())
    with pytest.raises(UserError, match=r"unknown backend 'tgi'.*auto, hf, vllm"):
        choose_backend("tgi")
    monkeypatch.setattr(engine_module, "vllm_installed", lambda: True)
    assert choose_backend("vllm")[0] == "vllm"


def test_generation_is_a_string_that_survives_copies() -> None:
    answer = Generation("true", finish_reason="length", n_tokens=7)
    assert answer == "true"
    for twin in (copy.deepcopy(answer), pickle.loads(pickle.dumps(answer))):
        assert (twin, twin.finish_reason, twin.n_tokens) == ("true", "length", 7)


def test_what_an_engine_cannot_honour_is_refused_by_name() -> None:
    steered = {"name": "infosteer-intervention", "version": 1, "settings": {"alpha": 2}}
    for engine in ("hf", "vllm"):
        refuse_runtime(engine, None)
        refuse_runtime(engine, steered)
    with pytest.raises(UserError, match=r"infosteer-intervention steers while answering, which engine other cannot do"):
        refuse_runtime("other", steered)
    with pytest.raises(UserError, match=r"comes from a file of yours"):
        refuse_runtime("vllm", {**steered, "source": "0" * 64})
    with pytest.raises(UserError, match=r"spread over 2 processes; next: --set eval\.tensor_parallel=1"):
        refuse_runtime("vllm", steered, shards=2)


@pytest.mark.parametrize(
    ("billions", "dtype", "gpus", "wanted"),
    [
        (8, "bfloat16", 0, 1),
        (8, "bfloat16", 4, 1),  # 16 GB of 48
        (8, "bfloat16", 1, 1),
        (30, "bfloat16", 4, 2),  # 60 GB
        (30, "float32", 4, 4),  # 120 GB
        (30, "float32", 3, 2),  # three do not share the heads; out of memory then says so
        (70, "bfloat16", 8, 4),
    ],
)
def test_as_many_gpus_answer_as_the_weights_need(
    monkeypatch: pytest.MonkeyPatch, billions: int, dtype: Any, gpus: int, wanted: int
) -> None:
    monkeypatch.setattr(engine_module, "visible_gpus", lambda: tuple(map(str, range(gpus))))
    monkeypatch.setattr(engine_module.device, "gpu_bytes", lambda: 80 * 10**9 if gpus else 0)
    assert tensor_parallel(EvalConfig(dtype=dtype), billions * 10**9) == wanted
    assert tensor_parallel(EvalConfig(dtype=dtype, tensor_parallel=2), billions * 10**9) == 2


def test_choosing_imports_nothing_heavy() -> None:
    code = (
        "import sys, infosteer_bench.evaluation as e; e.choose_backend('hf')\n"
        "print([m for m in ('torch', 'transformers', 'lm_eval', 'vllm', 'pandas') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_quiet_inside_quiet_puts_levels_back() -> None:
    """The inner one finds the level as it wants it, and must leave it so; the outer one's own level comes back."""
    import logging

    from infosteer_bench.evaluation.quiet import quiet

    logger = logging.getLogger("lm_eval")
    logger.setLevel(logging.INFO)
    with quiet():
        with quiet():
            assert logger.level == logging.ERROR
        assert logger.level == logging.ERROR
    assert logger.level == logging.INFO
