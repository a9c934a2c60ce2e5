"""The trainer's gradients equal plain autograd on the concatenated batch: the whole point of a fair comparison."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.gradients import SETTINGS, reference_gradients, trainer_gradients
from tests.tiny import build_tiny


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {family: build_tiny(family, root / family) for family in ("llama", "gemma2", "qwen2", "qwen3", "gemma3")}


def assert_same(ours: dict[str, torch.Tensor], truth: dict[str, torch.Tensor]) -> None:
    """Equal to 1e-5 of each parameter's largest gradient; every parameter has one, and not all are zero."""
    assert ours.keys() == truth.keys()
    assert ours
    for name, expected in truth.items():
        scale = float(expected.abs().max())
        torch.testing.assert_close(
            ours[name], expected, rtol=1e-5, atol=1e-5 * scale, msg=lambda m, n=name: f"{n}: {m}"
        )
    assert max(float(gradient.abs().max()) for gradient in truth.values()) > 1e-3


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("accumulation", [1, 4])
@pytest.mark.parametrize("method", SETTINGS)
def test_llama(models, tmp_path, method, accumulation, checkpointing):
    batch = 8 // accumulation
    ours = trainer_gradients(
        models["llama"],
        tmp_path,
        method=method,
        batch=batch,
        accumulation=accumulation,
        checkpointing=checkpointing,
    )
    assert_same(ours, reference_gradients(models["llama"], method=method, n_rows=8))


@pytest.mark.parametrize("method", ["sft", "infosteer-regularization", "infosteer-intervention"])
@pytest.mark.parametrize("family", ["gemma2", "qwen2", "qwen3", "gemma3"])
def test_other_families(models, tmp_path, family, method):
    """In float64: d|k|/dk jumps at k = 0, so a coefficient within float32's rounding of 0 may take either sign."""
    ours = trainer_gradients(
        models[family], tmp_path, method=method, batch=2, accumulation=4, checkpointing=True, dtype=torch.float64
    )
    assert_same(ours, reference_gradients(models[family], method=method, n_rows=8, dtype=torch.float64))


def test_methods_differ(models):
    """The settings are strong enough that a method that did nothing would be found out."""
    plain = reference_gradients(models["llama"], method="sft", n_rows=8)
    for method in SETTINGS:
        if method != "sft":
            other = reference_gradients(models["llama"], method=method, n_rows=8)
            change = max(float((other[n] - plain[n]).abs().max() / plain[n].abs().max()) for n in plain)
            assert change > 1e-3, method


def test_two_gloo_ranks(models, tmp_path):
    root = Path(__file__).parents[2]
    subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", "0"),
            *("--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0"),
            *(str(root / "tests" / "gradients.py"), str(tmp_path), str(models["llama"]), *SETTINGS),
        ],
        check=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": str(root), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
        cwd=root,
    )
    for method in SETTINGS:
        ours = torch.load(tmp_path / f"{method}.pt")
        assert_same(ours, reference_gradients(models["llama"], method=method, n_rows=8))
