"""Intervention on the key coefficients (paper 4.2): the weakest p % are replaced by alpha times the layer's mean.

    default (ours):  k_s <- sign(k_s) * alpha * mean_i |k_i|     for the n entries of smallest magnitude, sign(0) = +1
    literal arm:     k_s <- alpha * mean_i k_i                   for the n entries of smallest signed value

n = ceil(fraction * F) per token, in exact decimal arithmetic. It is a replacement, not an addition or a scaling:
no gradient flows to a replaced entry through its own old value.
"""

from __future__ import annotations

from decimal import ROUND_CEILING, Decimal
from typing import Literal

import torch
from torch import Tensor

RankBy = Literal["magnitude", "signed"]
Value = Literal["mean_magnitude", "signed_mean"]


def lifted_count(fraction: float, width: int) -> int:
    """ceil(fraction * F) as written in decimal: 0.07 of 100 is 7, where binary floats say 8."""
    return int((Decimal(str(fraction)) * width).to_integral_value(ROUND_CEILING))


def smallest_mask(score: Tensor, n: int) -> Tensor:
    """Boolean mask, exactly n true entries per row, of the n smallest of score (..., F); ties go to the lower index."""
    if n == 0:
        return torch.zeros_like(score, dtype=torch.bool)
    threshold = torch.topk(score, n, dim=-1, largest=False, sorted=False).values.amax(-1, keepdim=True)
    below, equal = score < threshold, score == threshold
    wanted = n - below.sum(-1, keepdim=True)
    return below | (equal & (equal.cumsum(-1) <= wanted))


def lift_smallest(
    k: Tensor,
    *,
    n: int,
    alpha: float,
    rank_by: RankBy = "magnitude",
    value: Value = "mean_magnitude",
    keep_sign: bool = True,
    detach_value: bool = True,
) -> Tensor:
    """Replace the n weakest key coefficients of every token.

    k: (..., F). Returns the same shape and dtype. With n = 0 it returns k itself.
    keep_sign applies to value="mean_magnitude"; the signed mean carries its own sign.
    detach_value: no gradient through the mean (the literal arm differentiates through it).
    """
    if n == 0:
        return k
    wide = k.to(torch.promote_types(k.dtype, torch.float32))
    with torch.no_grad():
        chosen = smallest_mask(wide.abs() if rank_by == "magnitude" else wide, n)
    level = (wide.abs() if value == "mean_magnitude" else wide).mean(-1, keepdim=True) * alpha
    if detach_value:
        level = level.detach()
    if keep_sign and value == "mean_magnitude":
        level = torch.where(wide.detach() < 0, -level, level)
    return torch.where(chosen, level.to(k.dtype), k)
