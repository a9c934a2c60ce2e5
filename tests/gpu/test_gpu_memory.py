"""The steering mathematics on a CUDA GPU: the same numbers as on the CPU, by whatever path the device takes."""

from __future__ import annotations

import json

import pytest
import torch

from infosteer_bench.cli import main
from infosteer_bench.memory.entropy import key_entropy, key_entropy_reference, pooled_magnitudes
from infosteer_bench.memory.intervention import lift_smallest
from infosteer_bench.memory.selection import smallest_indices

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU"),
]
SHAPES = [(2, 64, 8960), (1, 1, 161), (3, 7, 18_944)]
DTYPES = [torch.float32, torch.bfloat16]


def coefficients(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    gate, up = (torch.randn(shape, generator=generator) for _ in range(2))
    k = torch.nn.functional.silu(gate) * up
    k[..., 0, :] = 0.0
    return k.to(dtype)


@pytest.mark.parametrize("normalize", ["magnitude", "positive", "softmax"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_entropy(shape, dtype, normalize):
    k = coefficients(shape, dtype)
    here, there = k.clone().requires_grad_(), k.cuda().requires_grad_()
    for one in (here, there):
        key_entropy(one, normalize).sum().backward()
    torch.testing.assert_close(key_entropy(there, normalize).cpu(), key_entropy(here, normalize), rtol=1e-5, atol=1e-5)
    scale = float(here.grad.abs().max())
    tolerance = 1e-5 if dtype == torch.float32 else 1e-2
    torch.testing.assert_close(there.grad.cpu(), here.grad, rtol=tolerance, atol=tolerance * scale)
    live = k[..., 1:, :].cuda()
    if live.numel() and normalize != "positive":
        torch.testing.assert_close(
            key_entropy(live, normalize), key_entropy_reference(live, normalize), rtol=1e-5, atol=1e-5
        )


@pytest.mark.parametrize("dtype", DTYPES)
def test_pooled(dtype):
    k, mask = coefficients(SHAPES[0], dtype), torch.arange(128).reshape(2, 64) % 3 != 0
    here, there = pooled_magnitudes(k, mask), pooled_magnitudes(k.cuda(), mask.cuda())
    torch.testing.assert_close(there.cpu(), here, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("rank_by", ["magnitude", "signed"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_selection_is_the_same_and_the_lift_close(shape, dtype, rank_by):
    k, n = coefficients(shape, dtype), -(-shape[-1] // 100)
    here, there = smallest_indices(k, n, rank_by), smallest_indices(k.cuda(), n, rank_by)
    assert torch.equal(there.cpu().sort(-1).values, here.sort(-1).values)
    lifted = lift_smallest(k, n=n, alpha=2.0, rank_by=rank_by)
    torch.testing.assert_close(
        lift_smallest(k.cuda(), n=n, alpha=2.0, rank_by=rank_by).cpu(), lifted, rtol=1e-2, atol=1e-6
    )


def test_profile_runs(tmp_path):
    file = tmp_path / "cost.json"
    assert main(["profile", "train", "--layers", "2", "--rounds", "3", "--json", str(file)]) == 0
    found = json.loads(file.read_text())
    assert found["device"] == torch.cuda.get_device_name()
    assert found["setting"]["precision"] == "bf16"
