"""The Triton kernels in triton's interpreter, on a CPU: the same numbers as the paths of other devices."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from infosteer_bench.memory.entropy import key_entropy
from infosteer_bench.memory.intervention import lift_smallest

pytest.importorskip("triton")
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"  # read by triton when it is imported: a process of its own
interpreted = pytest.mark.skipif(not INTERPRETED, reason="runs within test_in_the_interpreter")
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of numpy, in which the interpreter divides


@pytest.mark.skipif(INTERPRETED, reason="is what runs this")
def test_in_the_interpreter():
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-n", "0", "-p", "no:cacheprovider", __file__],
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, "TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""},
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stdout[-4000:]


def drawn(kind: str, *shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    gate, up, coin = (torch.randn(shape, generator=generator) for _ in range(3))
    k = torch.nn.functional.silu(gate) * up
    if kind == "ties":
        k = (3 * k).round() / 3
    elif kind == "zeros":
        k = torch.where(coin < 0, k.sign() * 0.0, k)
        k[0] = 0.0
    elif kind == "one-hot":
        k = torch.nn.functional.one_hot(torch.arange(shape[0]) % shape[1], shape[1]) * k
    return k


@interpreted
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("normalize", ["magnitude", "positive", "softmax"])
@pytest.mark.parametrize("kind", ["gated", "zeros", "one-hot"])
@pytest.mark.parametrize("shape", [(1, 1), (2, 1025)])
def test_entropy_and_its_gradient(shape, kind, normalize, dtype):
    from infosteer_bench.memory import kernels

    k, weights = drawn(kind, *shape).to(dtype).requires_grad_(), torch.rand(shape[0])
    expected = key_entropy(k, normalize)
    expected.backward(weights)
    found, kept = kernels.entropy(k.detach(), normalize)
    torch.testing.assert_close(found, expected.detach(), rtol=1e-5, atol=1e-5)
    assert kept.numel() == 2 * shape[0]
    tolerance = 1e-5 if dtype == torch.float32 else 1e-2
    assert k.grad is not None
    scale = max(float(k.grad.abs().max()), 0.1 / max(float(k.detach().abs().max()), 1e-3))
    slope = kernels.slope(k.detach(), kept, weights, None, normalize)
    torch.testing.assert_close(slope, k.grad, rtol=tolerance, atol=tolerance * scale)
    onto = k.detach() * scale
    both = kernels.slope(k.detach(), kept, weights, onto, normalize)
    torch.testing.assert_close(both, k.grad + onto, rtol=tolerance, atol=tolerance * scale)


@interpreted
@pytest.mark.parametrize("keep_sign", [True, False])
@pytest.mark.parametrize("kind", ["gated", "ties", "zeros", "one-hot"])
@pytest.mark.parametrize("shape", [(1, 2), (2, 2050)])
def test_the_lift_and_its_gradient(shape, kind, keep_sign):
    from infosteer_bench.memory import kernels

    k = drawn(kind, *shape).bfloat16()
    width = shape[1]
    for n in sorted({1, -(-width // 100), width // 2, width}):
        chosen = torch.sort(k.abs(), dim=-1, stable=True).indices[:, :n]
        replaced = torch.zeros(shape, dtype=torch.bool).scatter(-1, chosen, True)
        lifted, marks = kernels.lift(k, n, 2.0, keep_sign=keep_sign)
        bits = np.unpackbits(marks.numpy(), axis=-1, bitorder="little")
        assert np.array_equal(bits[:, :width], replaced.numpy())
        assert not bits[:, width:].any()
        assert torch.equal(lifted[~replaced], k[~replaced])
        expected = lift_smallest(k, n=n, alpha=2.0, keep_sign=keep_sign)
        torch.testing.assert_close(lifted, expected, rtol=1e-2, atol=0)
        grad = drawn("gated", *shape).bfloat16()
        assert torch.equal(kernels.blank(grad, marks), torch.where(replaced, 0.0, grad))
