"""Entropy of the key distribution (paper 4.2, regularization): how evenly a token engages the memories of a layer.

With a_i >= 0 the weight of key i, S = sum_i a_i and U = sum_i a_i log a_i (docs/method.md, "Identities"):

    p_i = a_i / S,   H = -sum_i p_i log p_i = log S - U / S          [nats, between 0 and log F]
    dH/da_i = -(log a_i - log S + H) / S = -(log a_i - U / S) / S    [0 at a_i = 0; H = 0 at S = 0]

normalize="magnitude" (default): a = |k|, since k is signed in gated FFNs and k / sum k is no distribution.
normalize="positive": a = ReLU(k), the nearest defined reading of the paper's formula.
normalize="softmax": p = softmax(k), H = -sum_i p_i log p_i, dH/dk_i = -p_i (log p_i + H) = -p_i (k_i - sum_j p_j k_j).

The gradients are computed by their second forms: in the first, nearly even distributions cancel to nothing in float32.
Both are free of the scale of a (but for the factor 1 / S), so a / mean a stands in for a: its logarithms are near zero,
where those of 1e-6 are all near -14 and their differences lose the last digits.
Value and gradient are computed in float32 (float64 for float64 input), block by block (`rows`) or by one kernel each on
a CUDA GPU (`kernels`). Between forward and backward only k itself, which `down_proj` keeps anyway, and two numbers per
token are held: no further (B, T, F) tensor. Under torch.compile they are operators of their own
(`torch.ops.infosteer`), which it passes over; else an autograd function, which takes less time to dispatch.
"""

from __future__ import annotations

import functools
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from infosteer_bench.memory.rows import TINY, RowFunction, blocks, kernels_for, over_rows, own, wide

Normalize = Literal["magnitude", "softmax", "positive"]


def key_entropy(k: Tensor, normalize: Normalize = "magnitude") -> Tensor:
    """Entropy in nats of each token's key distribution.

    k: (..., F), any floating dtype. Returns (...), float32 (float64 for float64 input), differentiable.
    A row whose S is zero (below the smallest normal float32) has entropy 0 and gradient 0; NaN and infinity give NaN.
    """
    if torch.compiler.is_compiling():
        return torch.ops.infosteer.key_entropy(k, normalize)[0]
    return _Entropy.apply(k, normalize)  # type: ignore[return-value]


def with_entropy(
    k: Tensor, normalize: Normalize = "magnitude", *, measure: bool = True
) -> tuple[Tensor, Tensor | None]:
    """k and its `key_entropy`, so that the gradients of both come back in one pass over k.

    What follows must be computed from the k returned. measure=False is for the second run of gradient checkpointing: it
    holds k for backward as the first run did, and spares the entropy, which is None. Under torch.compile the gradients
    arrive apart, and the entropy is there in every run.
    """
    if torch.compiler.is_compiling():  # what is not measured here would not be held either
        return k, torch.ops.infosteer.key_entropy(k, normalize)[0]
    return _WithEntropy.apply(k, normalize, measure)  # type: ignore[return-value]


def key_entropy_reference(k: Tensor, normalize: Normalize = "magnitude") -> Tensor:
    """The same by plain autograd, straight from the definition with 0 log 0 = 0; slow, for tests and `profile`."""
    wider = k.to(wide(k))
    if normalize == "softmax":
        return torch.distributions.Categorical(logits=wider, validate_args=False).entropy()
    weights = wider.abs() if normalize == "magnitude" else torch.relu(wider)
    p = weights / weights.sum(-1, keepdim=True)
    return -(p * torch.where(p > 0, p, 1.0).log()).sum(-1)


def pooled_magnitudes(k: Tensor, mask: Tensor) -> Tensor:
    """Sum over the tokens of mask of |k|: k (B, T, F), mask (B, T) bool -> (F,), float32, differentiable.

    Knowledge entropy (Kim et al., arXiv 2410.01380) is `key_entropy` of it: the mean over tokens is taken first, and
    the entropy does not depend on the scale. Holds k and mask for backward, nothing else.
    """
    return torch.ops.infosteer.pooled_magnitudes(k, mask)


# Row functions (see `rows.over_rows`): made once per normalization. `centre` is U / S of a / mean a, or sum_j p_j k_j
# for softmax; `total` is S of a itself, or the logarithm of softmax's denominator.


def _mean(total: Tensor, width: int) -> Tensor:
    """The scale to divide by: the mean weight, or the smallest number that divides without loss."""
    return (total / width).clamp(min=TINY)


@functools.cache
def _value(normalize: str) -> RowFunction:
    """rows (n, F) -> entropy, centre, total, each (n,)."""

    def softmax(rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        k = own(rows)
        total = torch.logsumexp(k, dim=-1)
        centre = k.sub(total[:, None]).exp_().mul_(k).sum(-1)
        return (total - centre).clamp(min=0.0), centre, total

    def weights(rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        a = own(rows).relu_() if normalize == "positive" else own(rows).abs_()
        total = a.sum(-1)
        total = torch.where(total < TINY, 0.0, total)
        mean = _mean(total, a.shape[-1])
        a.div_(mean[:, None])
        scaled_total = total / mean
        centre = a.clamp(min=TINY).log_().mul_(a).sum(-1) / scaled_total
        entropy = (scaled_total.log() - centre).clamp(min=0.0)
        empty = total == 0
        return torch.where(empty, 0.0, entropy), torch.where(empty, 0.0, centre), total

    return softmax if normalize == "softmax" else weights


@functools.cache
def _slope(normalize: str) -> RowFunction:
    """rows (n, F), per row (n, 1) centre, total, incoming gradient g -> g dH/dk (n, F) in the dtype of rows.

    One more argument (n, F) is what that is added to.
    """

    def softmax(rows: Tensor, centre: Tensor, total: Tensor, grad: Tensor, *onto: Tensor) -> tuple[Tensor]:
        k = own(rows)
        slope = k.sub(total).exp_().mul_(k.sub_(centre)).mul_(-grad)
        return (_added(slope, *onto).to(rows.dtype),)

    def weights(rows: Tensor, centre: Tensor, total: Tensor, grad: Tensor, *onto: Tensor) -> tuple[Tensor]:
        k = own(rows).relu_() if normalize == "positive" else own(rows)
        scale = torch.where(total == 0, 0.0, -grad / total)
        # sign(0) = 0 gives the defined gradient 0 at a_i = 0
        relative = k.abs().div_(_mean(total, k.shape[-1])).clamp_(min=TINY)
        slope = relative.log_().sub_(centre).mul_(scale).mul_(k.sign_())
        return (_added(slope, *onto).to(rows.dtype),)

    return softmax if normalize == "softmax" else weights


def _added(slope: Tensor, onto: Tensor | None = None) -> Tensor:
    return slope if onto is None else slope.add_(onto)


def _measure(k: Tensor, normalize: str) -> tuple[Tensor, Tensor]:
    """H of every token (...), and its centre and total (..., 2)."""
    if kernels := kernels_for(k):
        return kernels.entropy(k, normalize)
    entropy, *kept = over_rows(_value(normalize), k)
    return entropy, torch.stack(kept, dim=-1)


def _differentiate(k: Tensor, kept: Tensor, grad: Tensor, normalize: str, onto: Tensor | None = None) -> Tensor:
    """The gradient in k's dtype, (..., F), added to `onto`."""
    if kernels := kernels_for(k):
        return kernels.slope(k, kept, grad, onto, normalize)
    return over_rows(_slope(normalize), k, kept[..., 0], kept[..., 1], grad, *([] if onto is None else [onto]))[0]


class _Entropy(torch.autograd.Function):
    """The operator below for a model that is not compiled, without the time that dispatching an operator takes."""

    @staticmethod
    def forward(ctx: Any, k: Tensor, normalize: str) -> Tensor:
        ctx.normalize = normalize
        entropy, kept = _measure(k, normalize)
        ctx.save_for_backward(k, kept)
        return entropy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        k, kept = ctx.saved_tensors
        return _differentiate(k, kept, grad, ctx.normalize), None


class _WithEntropy(torch.autograd.Function):
    """k -> k and its entropy.

    The two numbers per token stay with the first run, out of checkpointing's hands: they need no second one.
    """

    @staticmethod
    def forward(ctx: Any, k: Tensor, normalize: str, measure: bool) -> tuple[Tensor, Tensor | None]:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(k)
        ctx.normalize = normalize
        entropy, ctx.kept = _measure(k, normalize) if measure else (None, None)
        return k, entropy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, onto: Tensor | None, grad: Tensor | None) -> tuple[Tensor | None, ...]:
        if grad is None:
            return onto, None, None
        (k,) = ctx.saved_tensors
        return _differentiate(k, ctx.kept, grad, ctx.normalize, onto), None, None


@torch.library.custom_op("infosteer::key_entropy", mutates_args=())
def _key_entropy(k: Tensor, normalize: str) -> tuple[Tensor, Tensor]:
    return _measure(k, normalize)


@_key_entropy.register_fake
def _(k: Tensor, normalize: str) -> tuple[Tensor, Tensor]:  # noqa: ARG001
    like = functools.partial(torch.empty, dtype=wide(k), device=k.device)
    return like(k.shape[:-1]), like((*k.shape[:-1], 2))


@torch.library.custom_op("infosteer::key_entropy_slope", mutates_args=())
def _key_entropy_slope(k: Tensor, kept: Tensor, grad: Tensor, normalize: str) -> Tensor:
    return _differentiate(k, kept, grad, normalize)


@_key_entropy_slope.register_fake
def _(k: Tensor, kept: Tensor, grad: Tensor, normalize: str) -> Tensor:  # noqa: ARG001
    return torch.empty(k.shape, dtype=k.dtype, device=k.device)


def _keep(ctx: Any, inputs: tuple[Tensor, str], output: tuple[Tensor, Tensor]) -> None:
    k, ctx.normalize = inputs
    ctx.save_for_backward(k, output[1])


def _key_entropy_backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor, None]:
    k, kept = ctx.saved_tensors
    return torch.ops.infosteer.key_entropy_slope(k, kept, grad, ctx.normalize), None


_key_entropy.register_autograd(_key_entropy_backward, setup_context=_keep)


@torch.library.custom_op("infosteer::pooled_magnitudes", mutates_args=())
def _pooled_magnitudes(k: Tensor, mask: Tensor) -> Tensor:
    """(F,): sum over counted tokens of |k|."""
    pooled = torch.zeros(k.shape[-1], dtype=wide(k), device=k.device)
    for rows, counted in blocks(k.reshape(-1, k.shape[-1]), mask.reshape(-1, 1)):
        pooled += torch.where(counted, own(rows).abs_(), 0.0).sum(0)
    return pooled


@_pooled_magnitudes.register_fake
def _(k: Tensor, mask: Tensor) -> Tensor:  # noqa: ARG001
    return torch.empty(k.shape[-1:], dtype=wide(k), device=k.device)


def _pooled_keep(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:  # noqa: ARG001
    ctx.save_for_backward(*inputs)


def _pooled_backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
    k, mask = ctx.saved_tensors
    return k.sign() * mask.unsqueeze(-1) * grad.to(k.dtype), None


_pooled_magnitudes.register_autograd(_pooled_backward, setup_context=_pooled_keep)
