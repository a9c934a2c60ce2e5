"""Entropy of the key distribution (paper 4.2, regularization): how evenly a token engages the memories of a layer.

For the default, normalize="magnitude" (METHOD: k is signed in gated FFNs, so k / sum k is no distribution):

    a = |k|,  S = sum_i a_i,  U = sum_i a_i log a_i
    p_i = a_i / S,   H = -sum_i p_i log p_i = log S - U / S          [nats, between 0 and log F]
    dH/da_i = -(log a_i - log S + H) / S                             [0 at a_i = 0; H = 0 at S = 0]

Value and gradient are computed in float32 (float64 for float64 input). Between forward and backward only k itself,
which `down_proj` keeps anyway, and two numbers per token are held: no further (B, T, F) tensor.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

Normalize = Literal["magnitude", "softmax", "positive"]


def key_entropy(k: Tensor, normalize: Normalize = "magnitude") -> Tensor:
    """Entropy in nats of each token's key distribution.

    k: (..., F), any floating dtype. Returns (...), float32 (float64 for float64 input), differentiable.
    normalize: "magnitude" |k|/sum|k|; "softmax" softmax(k); "positive" ReLU(k)/sum ReLU(k), the nearest
    defined reading of the paper's formula.
    """
    if normalize == "softmax":
        return _softmax_entropy(k)
    if normalize == "positive":
        return _MagnitudeEntropy.apply(torch.relu(k))
    return _MagnitudeEntropy.apply(k)


def pooled_entropy(k: Tensor, mask: Tensor) -> Tensor:
    """Knowledge entropy of Kim et al. (arXiv 2410.01380): average |k| over tokens first, then take the entropy.

    k: (B, T, F), mask: (B, T) bool. Returns a scalar in nats, differentiable; 0 where nothing is counted.
    """
    magnitude = k.to(_wide(k)).abs() * mask.unsqueeze(-1)
    return _MagnitudeEntropy.apply(magnitude.sum(dim=(0, 1)) / mask.sum().clamp(min=1))


def key_entropy_reference(k: Tensor, normalize: Normalize = "magnitude") -> Tensor:
    """The same by plain autograd, straight from the definition with 0 log 0 = 0; slow, for tests."""
    wide = k.to(_wide(k))
    if normalize == "softmax":
        return torch.distributions.Categorical(logits=wide).entropy()
    weights = wide.abs() if normalize == "magnitude" else torch.relu(wide)
    p = weights / weights.sum(-1, keepdim=True)
    return -(p * torch.where(p > 0, p, 1.0).log()).sum(-1)


def _wide(k: Tensor) -> torch.dtype:
    return torch.promote_types(k.dtype, torch.float32)


def _softmax_entropy(k: Tensor) -> Tensor:
    log_p = torch.log_softmax(k.to(_wide(k)), dim=-1)
    return -(log_p.exp() * log_p).sum(-1)


class _MagnitudeEntropy(torch.autograd.Function):
    """H(|k| / sum |k|) per token, with the hand-written gradient of the module docstring."""

    @staticmethod
    def forward(ctx: Any, k: Tensor) -> Tensor:
        a = k.to(_wide(k)).abs()
        total = a.sum(-1)
        empty = total == 0
        total = torch.where(empty, 1.0, total)  # all-zero rows: H = 0 by definition
        log_total = total.log()
        entropy = (log_total - torch.xlogy(a, a).sum(-1) / total).clamp(min=0.0)
        entropy = torch.where(empty, 0.0, entropy)
        ctx.save_for_backward(k, total, entropy)
        return entropy

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Tensor:
        k, total, entropy = ctx.saved_tensors
        wide = k.to(_wide(k))
        a = wide.abs()
        log_p = torch.where(a > 0, a, 1.0).log_() - total.log().unsqueeze(-1)
        scale = (grad_outputs[0] / total).unsqueeze(-1)
        # sign(0) = 0 gives the defined gradient 0 at a_i = 0
        return (-(log_p + entropy.unsqueeze(-1)) * scale * wide.sign()).to(k.dtype)
