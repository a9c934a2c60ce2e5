"""Fast path against the plain reference, on the key coefficients of every family and over random shapes and masks."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from infosteer_bench.memory.entropy import Normalize, key_entropy, key_entropy_reference, with_entropy
from infosteer_bench.memory.intervention import lift_smallest
from infosteer_bench.memory.tap import Tap, token_mean
from infosteer_bench.methods import METHODS
from infosteer_bench.models.families import decoder, ffn_layers
from infosteer_bench.models.load import load_model
from tests.tiny import FAMILY_NAMES

TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 1e-2}
NORMALIZE: tuple[Normalize, ...] = ("magnitude", "positive", "softmax")


def close(ours: Tensor, truth: Tensor, tolerance: float, *, unit: float) -> None:
    """Within `tolerance` of the largest value, or of a tenth of `unit` where all values are (nearly) zero."""
    assert torch.isfinite(ours).all()
    scale = max(float(truth.abs().max()), 0.1 * unit)
    torch.testing.assert_close(ours.double(), truth.double(), rtol=tolerance, atol=tolerance * scale)


def compare(k: Tensor, mask: Tensor, normalize: Normalize) -> None:
    """Masked mean and its gradient, against autograd of the definition in float64."""
    ours, truth = k.detach().clone().requires_grad_(), k.detach().double().requires_grad_()
    same, entropy = with_entropy(ours, normalize)
    assert torch.equal(same, k)
    assert entropy is not None
    assert torch.equal(entropy, key_entropy(k, normalize))
    value, expected = token_mean(entropy, mask), token_mean(_defined(truth, normalize), mask)
    value.backward()
    expected.backward()
    assert ours.grad is not None
    assert truth.grad is not None
    # the gradient is (a logarithm) / S: what is left of it in a one-hot row is rounding of that size
    sums = k.detach().abs().sum(-1)[mask]
    slope = 1 / float(sums[sums > 0].min()) if (sums > 0).any() else 1.0
    close(value.detach(), expected.detach(), TOLERANCE[k.dtype], unit=1.0)
    close(ours.grad, truth.grad, TOLERANCE[k.dtype], unit=slope / int(mask.sum()))
    assert (ours.grad[~mask] == 0).all(), "a token that does not count has no say"


def _defined(k: Tensor, normalize: Normalize) -> Tensor:
    """The reference where it is defined; rows without weight (S = 0) have entropy 0 by definition."""
    weights = {"magnitude": k.abs(), "positive": torch.relu(k), "softmax": torch.ones_like(k)}[normalize]
    empty = weights.sum(-1) == 0
    return torch.where(empty, 0.0, key_entropy_reference(torch.where(empty[..., None], 1.0, k), normalize))


@settings(max_examples=120, deadline=None)
# logarithms of numbers near 1e-6 are near -14: their differences lost the last digits before the weights were scaled
@example(seed=5, shape=(1, 1, 3), dtype=torch.float32, normalize="magnitude", kind="tiny", counted=0.0)
@given(
    seed=st.integers(0, 2**31 - 1),
    shape=st.tuples(st.integers(1, 3), st.integers(1, 7), st.integers(1, 257)),
    dtype=st.sampled_from(list(TOLERANCE)),
    normalize=st.sampled_from(NORMALIZE),
    kind=st.sampled_from(["normal", "gated", "zeros", "one-hot", "all zero", "huge", "tiny"]),
    counted=st.floats(0, 1),
)
def test_over_random_shapes_and_masks(seed, shape, dtype, normalize, kind, counted):
    generator = torch.Generator().manual_seed(seed)
    k = torch.randn(shape, generator=generator)
    if kind == "gated":
        k = torch.nn.functional.silu(k) * torch.randn(shape, generator=generator)
    elif kind == "zeros":
        k = torch.where(torch.rand(shape, generator=generator) < 0.5, 0.0, k)
    elif kind == "one-hot":
        k = torch.nn.functional.one_hot(torch.randint(shape[-1], shape[:-1], generator=generator), shape[-1]) * k
    elif kind == "all zero":
        k = torch.zeros(shape)
    elif kind in ("huge", "tiny"):
        k = k * (1e6 if kind == "huge" and normalize != "softmax" else 1e-6)
    mask = torch.rand(shape[:-1], generator=generator) < counted
    mask[0, 0] = True
    compare(k.to(dtype), mask, normalize)


@cache
def model_of(path: Any) -> Any:
    return load_model(path, dtype="float32")


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**31 - 1), shape=st.tuples(st.integers(1, 3), st.integers(1, 9)), counted=st.floats(0, 1))
@pytest.mark.parametrize("dtype", list(TOLERANCE), ids=["float32", "bf16"])
@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_on_the_coefficients_of_every_family(tiny_models, family, dtype, seed, shape, counted):
    model = model_of(tiny_models[family])
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(5, 200, shape, generator=generator)
    mask = torch.rand(shape, generator=generator) < counted
    mask[0, 0] = True
    layers = dict(enumerate(ffn_layers(model)))
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16)
    with torch.no_grad(), autocast, Tap(root=decoder(model), layers=layers, read=lambda k, _: k.clone()) as tap:
        model(ids, use_cache=False)
        readings = tap.take()
    assert len(readings) == 2
    for k in readings.values():
        assert k.dtype == dtype
        compare(k, mask, "magnitude")
        compare(k, mask, "positive")
        compare(k, mask, "softmax")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 161)),
    fraction=st.floats(0, 1),
    alpha=st.floats(0, 4),
    seed=st.integers(0, 2**31 - 1),
)
def test_lift_agrees_with_a_loop_over_tokens(dtype, shape, fraction, alpha, seed):
    k, width = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype), shape[-1]
    n = math.ceil(fraction * width)
    lifted = lift_smallest(k, n=n, alpha=alpha)
    assert (lifted.shape, lifted.dtype) == (k.shape, dtype)
    for row, ours in zip(k.reshape(-1, width).tolist(), lifted.reshape(-1, width).tolist(), strict=True):
        expected, mean = list(row), sum(abs(value) for value in row) / width
        for index in sorted(range(width), key=lambda i: (abs(row[i]), i))[:n]:
            expected[index] = (-alpha if row[index] < 0 else alpha) * mean
        assert ours == pytest.approx(expected, rel=TOLERANCE[dtype])


@pytest.mark.parametrize("average", ["after", "before"])
@pytest.mark.parametrize("normalize", NORMALIZE)
def test_a_micro_batch_of_padding_adds_nothing(tiny_models, average, normalize):
    """Beside another micro-batch that counts: no NaN, no gradient."""
    if average == "before" and normalize != "magnitude":
        pytest.skip("not defined")
    model = load_model(tiny_models["llama"], dtype="float32")
    method = METHODS.get("infosteer-regularization").configure({"average": average, "normalize": normalize})
    batch = {"input_ids": torch.full((2, 4), 5), "attention_mask": torch.zeros(2, 4, dtype=torch.long)}
    batch["labels"] = torch.full((2, 4), -100)
    mask = method.token_mask(batch)
    with method.attach(model, None):
        method.before_forward(mask, draw=0)
        model(batch["input_ids"], use_cache=False)
        penalty = method.penalty(batch, mask)
        assert float(penalty.detach()) == 0
        penalty.backward()
    assert all(p.grad is None or (p.grad == 0).all() for p in model.parameters())
