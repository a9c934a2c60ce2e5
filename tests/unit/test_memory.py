"""The mathematics of key-value memory against plain torch, scipy and the definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.checkpoint import checkpoint

from infosteer_bench.memory.entropy import key_entropy, key_entropy_reference, pooled_magnitudes, with_entropy
from infosteer_bench.memory.intervention import lift_smallest, lifted_count
from infosteer_bench.memory.layers import select_layers
from infosteer_bench.memory.selection import smallest_indices
from infosteer_bench.memory.tap import Tap, TapError

seeds = st.integers(0, 2**31 - 1)


def draw(seed: int, *shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


@settings(max_examples=60, deadline=None)
@given(seeds, st.integers(1, 4), st.integers(1, 5), st.integers(1, 33))
def test_entropy_equals_scipy(seed, batch, tokens, width):
    k = draw(seed, batch, tokens, width)
    expected = scipy.stats.entropy(np.abs(k.double().numpy()), axis=-1)
    torch.testing.assert_close(key_entropy(k).double(), torch.from_numpy(np.asarray(expected)), rtol=1e-5, atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(seeds, st.integers(1, 4), st.integers(2, 33), st.sampled_from(["magnitude", "softmax", "positive"]))
def test_entropy_gradient_equals_autograd_of_the_definition(seed, tokens, width, normalize):
    k = draw(seed, 2, tokens, width, dtype=torch.float64)
    k[..., 0] = k[..., 0].abs() + 0.1  # the definition of "positive" needs one positive entry
    ours, truth = k.clone().requires_grad_(), k.clone().requires_grad_()
    weights = torch.rand(2, tokens, dtype=torch.float64)
    (key_entropy(ours, normalize) * weights).sum().backward()
    (key_entropy_reference(truth, normalize) * weights).sum().backward()
    torch.testing.assert_close(ours.grad, truth.grad, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("normalize", ["magnitude", "softmax", "positive"])
@pytest.mark.parametrize("shape", [(2, 3, 7), (1, 1), (5, 1, 64)])
def test_entropy_gradcheck(normalize, shape):
    k = draw(3, *shape, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda k: key_entropy(k, normalize), (k,))


@pytest.mark.parametrize("normalize", ["magnitude", "softmax", "positive"])
@pytest.mark.parametrize("shape", [(2, 3, 7), (1, 1), (5, 1, 64), (3, 300_000)])
def test_with_entropy_is_k_and_its_entropy(normalize, shape):
    """Values and gradients of the two apart, whichever of them is asked for; 300,000: more than one block of rows."""
    k = draw(4, *shape, dtype=torch.float64)
    onto, weights = draw(5, *shape, dtype=torch.float64), draw(6, *shape[:-1], dtype=torch.float64)
    apart, joint = k.clone().requires_grad_(), k.clone().requires_grad_()
    same, entropy = with_entropy(joint, normalize)
    assert torch.equal(same, k)
    assert torch.equal(entropy, key_entropy(k, normalize))
    for a, b in ((1.0, 1.0), (1.0, 0.0), (0.0, 1.0)):
        terms = [a * (same * onto).sum()] * bool(a) + [b * (entropy * weights).sum()] * bool(b)
        expected = a * (apart * onto).sum() + b * (key_entropy(apart, normalize) * weights).sum()
        found = torch.autograd.grad(sum(terms), joint, retain_graph=True)
        torch.testing.assert_close(found, torch.autograd.grad(expected, apart), rtol=1e-12, atol=1e-12)
    if k.numel() < 100:
        assert torch.autograd.gradcheck(lambda k: with_entropy(k, normalize), (joint,))


def test_entropy_bfloat16_close_to_float32():
    k = draw(0, 4, 8, 896, dtype=torch.bfloat16).requires_grad_()
    wide = k.detach().float().requires_grad_()
    key_entropy(k).sum().backward()
    key_entropy_reference(wide).sum().backward()
    torch.testing.assert_close(key_entropy(k), key_entropy_reference(wide), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(k.grad.float(), wide.grad, rtol=1e-2, atol=1e-2 * float(wide.grad.abs().max()))


def test_entropy_at_the_edges():
    """All-zero rows, one-hot rows, exact zeros: finite and right (METHOD: gradient 0 at a_i = 0, H = 0 at S = 0)."""
    k = torch.tensor([[0.0, 0.0, 0.0], [0.0, -2.0, 0.0], [1.0, 1.0, 0.0], [3.0, -3.0, 3.0]]).requires_grad_()
    entropy = key_entropy(k)
    torch.testing.assert_close(entropy, torch.tensor([0.0, 0.0, math.log(2), math.log(3)]))
    entropy.sum().backward()
    assert torch.isfinite(k.grad).all()
    assert (k.grad[0] == 0).all()
    assert float(k.grad[2, 2]) == 0.0


def test_the_entropy_of_pooled_magnitudes_is_knowledge_entropy():
    k = draw(5, 2, 6, 9, dtype=torch.float64).requires_grad_()
    mask = torch.tensor([[1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 1, 0]]).bool()
    expected = scipy.stats.entropy(k.detach().abs()[mask].mean(0).numpy())
    assert float(key_entropy(pooled_magnitudes(k, mask)).detach()) == pytest.approx(float(expected), rel=1e-9)
    assert float(key_entropy(pooled_magnitudes(k, torch.zeros_like(mask))).detach()) == 0.0
    assert torch.autograd.gradcheck(lambda k: key_entropy(pooled_magnitudes(k, mask)), (k,))


@pytest.mark.parametrize(
    ("fraction", "width", "n"), [(0.07, 100, 7), (0.01, 8960, 90), (0.01, 384, 4), (0, 5, 0), (1, 5, 5), (0.001, 10, 1)]
)
def test_lifted_count_is_exact_decimal(fraction, width, n):
    assert lifted_count(fraction, width) == n


@settings(max_examples=120, deadline=None)
@given(
    seeds,
    st.integers(1, 4),
    st.integers(1, 40),
    st.floats(0, 1),
    st.booleans(),
    st.sampled_from([torch.bfloat16, torch.float16, torch.float32, torch.float64]),
    st.sampled_from(["magnitude", "signed"]),
)
def test_selection_is_a_stable_sort(seed, rows, width, fraction, coarse, dtype, rank_by):
    k = draw(seed, rows, width)
    if coarse:  # many ties, zeros of both signs among them
        k = k.round()
    k, n = k.to(dtype), max(1, lifted_count(fraction, width))
    expected = torch.sort(k.abs() if rank_by == "magnitude" else k, dim=-1, stable=True).indices[..., :n]
    assert torch.equal(smallest_indices(k, n, rank_by).sort(-1).values, expected.sort(-1).values)


def test_selection_in_blocks_and_threads_is_the_same():
    k = draw(1, 300, 8960, dtype=torch.bfloat16)
    expected = torch.sort(k.abs(), dim=-1, stable=True).indices[..., :90].sort(-1).values
    threads = torch.get_num_threads()
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            assert torch.equal(smallest_indices(k, 90).sort(-1).values, expected)
    finally:
        torch.set_num_threads(threads)


def test_lift_replaces_the_weakest_by_the_signed_mean_magnitude():
    k = torch.tensor([4.0, -0.1, 0.0, -2.0])
    lifted = lift_smallest(k, n=2, alpha=2.0)
    torch.testing.assert_close(lifted, torch.tensor([4.0, -3.05, 3.05, -2.0]))  # mean |k| = 1.525; sign(0) = +1
    literal = lift_smallest(k, n=1, alpha=1.0, rank_by="signed", value="signed_mean")
    torch.testing.assert_close(literal, torch.tensor([4.0, -0.1, 0.0, 0.475]))
    assert lift_smallest(k, n=0, alpha=2.0) is k


def test_lift_gradients():
    """No gradient to a replaced entry; the literal arm differentiates through the mean."""
    k = torch.tensor([4.0, -0.1, 1.0, -2.0], requires_grad=True)
    lift_smallest(k, n=1, alpha=1.0).sum().backward()
    assert k.grad.tolist() == [1.0, 0.0, 1.0, 1.0]
    k.grad = None
    lift_smallest(k, n=1, alpha=1.0, rank_by="signed", value="signed_mean", detach_value=False).sum().backward()
    assert k.grad.tolist() == [1.25, 1.25, 1.25, 0.25]


@pytest.mark.parametrize(
    ("spec", "n", "expected"),
    [
        ("all", 3, [0, 1, 2]),
        ("early", 24, list(range(8))),
        ("middle", 24, list(range(8, 16))),
        ("early+late", 6, [0, 1, 4, 5]),
        ((2, 0), 3, [0, 2]),
    ],
)
def test_select_layers(spec, n, expected):
    assert select_layers(spec, n) == expected


@pytest.mark.parametrize("spec", ["first", "early+", (3,), (), (1, 1)])
def test_select_layers_refuses(spec):
    with pytest.raises(ValueError, match="layers"):
        select_layers(spec, 3)


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down_proj = nn.Linear(4, 8), nn.Linear(8, 4)

    def forward(self, x):
        return self.down_proj(torch.tanh(self.up(x)))


class Stack(nn.Module):
    def __init__(self, checkpointed: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers, self.checkpointed = nn.ModuleList(Layer() for _ in range(3)), checkpointed

    def forward(self, x):
        for layer in self.layers:
            x = x + (checkpoint(layer, x, use_reentrant=False) if self.checkpointed else layer(x))
        return x


def entropy(k, layer):
    return key_entropy(k)


def clone(k, layer):
    return k.clone()


def zeros(k, layer):
    return torch.zeros_like(k)


@pytest.mark.parametrize("first", [False, True])
def test_tap_counts_once_under_gradient_checkpointing(first):
    gradients = []
    for checkpointed in (False, True):
        model = Stack(checkpointed)
        layers = {index: layer.down_proj for index, layer in enumerate(model.layers)}
        with Tap(root=model, layers=layers, read=entropy, first=first) as tap:
            out = model(draw(1, 2, 5, 4))
            readings = tap.take()
            assert list(readings) == [0, 1, 2]
            (out.sum() + sum(reading.sum() for reading in readings.values())).backward()
            with pytest.raises(TapError, match="layer 0: its key coefficients were not read"):
                tap.take()  # recomputation added nothing
            assert tap.invocations == (6 if checkpointed else 3)
        gradients.append([parameter.grad for parameter in model.parameters()])
    for plain, recomputed in zip(*gradients, strict=True):
        assert torch.equal(plain, recomputed)


def test_checkpointing_measures_once_where_tap_says_so():
    """`both` and `with_entropy`: the second run holds k and computes nothing; the gradients are those of `read`."""
    gradients, measured = [], []

    def both(k, layer, counts):
        measured.append(counts)
        found = with_entropy(k, measure=counts)
        assert (found[1] is None) == (not counts)
        return found

    for checkpointed, how in ((False, {"read": entropy}), (False, {"both": both}), (True, {"both": both})):
        model = Stack(checkpointed)
        layers = {index: layer.down_proj for index, layer in enumerate(model.layers)}
        with Tap(root=model, layers=layers, **how) as tap:
            out = model(draw(1, 2, 5, 4))
            (out.sum() + sum(reading.sum() for reading in tap.take().values())).backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    assert measured == [True] * 3 + [True] * 3 + [False] * 3
    for read, plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, read)
        assert torch.equal(plain, recomputed)


def test_a_tap_takes_both_or_each():
    model = Stack(False)
    with pytest.raises(ValueError, match="takes `both`, or"):
        Tap(root=model, layers={}, edit=zeros, both=lambda k, layer, counts: (k, None))


@pytest.mark.parametrize("shape", [(2, 3, 6), (6,)])
def test_with_entropy_takes_views_and_expanded_gradients(shape):
    k = draw(7, *shape, 2, dtype=torch.float64)[..., 0]
    ours, apart = k.detach().requires_grad_(), k.detach().clone().requires_grad_()
    same, entropy = with_entropy(ours)
    (same.sum() + entropy.sum()).backward()
    (apart.sum() + key_entropy(apart).sum()).backward()
    torch.testing.assert_close(ours.grad, apart.grad, rtol=1e-12, atol=1e-12)


def test_tap_leaves_nothing_behind_even_after_an_exception():
    model = Stack(False)
    layers = {0: model.layers[0].down_proj}

    def fail(k, layer):
        raise ValueError("odd")

    with pytest.raises(TapError, match="layer 0: ValueError: odd"), Tap(root=model, layers=layers, edit=fail):
        model(torch.zeros(1, 1, 4))
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert torch.isfinite(model(torch.zeros(1, 1, 4))).all()


def test_monitor_reads_before_the_edit():
    model = Stack(False)
    layers = {0: model.layers[0].down_proj}
    x = draw(2, 1, 3, 4)
    with Tap(root=model, layers=layers, read=clone) as tap:
        model(x)
        plain = tap.take()[0]
    with (
        Tap(root=model, layers=layers, edit=zeros),
        Tap(root=model, layers=layers, read=clone, first=True) as tap,
    ):
        model(x)
        assert torch.equal(tap.take()[0], plain)
