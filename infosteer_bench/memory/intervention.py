"""Intervention on the key coefficients (paper 4.2): the weakest p % are replaced by alpha times the layer's mean.

    default (ours):  k_s <- sign(k_s) * alpha * mean_i |k_i|     for the n entries of smallest magnitude, sign(0) = +1
    literal arm:     k_s <- alpha * mean_i k_i                   for the n entries of smallest signed value

n = ceil(fraction * F) per token, in exact decimal arithmetic. It is a replacement, not an addition or a scaling:
no gradient flows to a replaced entry through its own old value.

Controls answer "would any change of this kind do the same?": the same replacement at other keys (`random_keys`,
`largest_keys`), at the same keys with a random sign (`random_sign`), and Gaussian noise on all keys whose length per
token is that of the lift's own change (`noise`). They draw from a private generator, so the data order stays the same.

The default arm in bfloat16 on a CUDA GPU is one kernel (`kernels`), in models that are not compiled; everything else is
put together from torch's operations and `selection`.
"""

from __future__ import annotations

from decimal import ROUND_CEILING, Decimal
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from infosteer_bench.memory.rows import kernels_for
from infosteer_bench.memory.selection import RankBy, smallest_indices

Value = Literal["mean_magnitude", "signed_mean"]
Control = Literal["none", "random_keys", "largest_keys", "random_sign", "noise"]


def lifted_count(fraction: float, width: int) -> int:
    """ceil(fraction * F) as written in decimal: 0.07 of 100 is 7, where binary floats say 8."""
    return int((Decimal(str(fraction)) * width).to_integral_value(ROUND_CEILING))


def lift_smallest(
    k: Tensor,
    *,
    n: int,
    alpha: float,
    rank_by: RankBy = "magnitude",
    value: Value = "mean_magnitude",
    keep_sign: bool = True,
    detach_value: bool = True,
    control: Control = "none",
    generator: torch.Generator | None = None,
) -> Tensor:
    """Replace the n weakest key coefficients of every token, or do what `control` says instead.

    k: (..., F). Returns the same shape and dtype. With n = 0 it returns k itself.
    keep_sign applies to value="mean_magnitude"; the signed mean carries its own sign.
    detach_value: no gradient through the mean (the literal arm differentiates through it).
    generator: on k's device, for the controls that draw. Holds the chosen indices for backward, n per token
    (the default arm in bfloat16 on a CUDA GPU: one bit per coefficient).
    """
    if n == 0:
        return k
    default = (rank_by, value, detach_value, control) == ("magnitude", "mean_magnitude", True, "none")
    if default and not torch.compiler.is_compiling() and (kernels := kernels_for(k)) and kernels.liftable(k):
        return _Lift.apply(k, n, alpha, keep_sign, kernels)  # type: ignore[return-value]
    if control == "noise":
        lifted = lift_smallest(
            k.detach(), n=n, alpha=alpha, rank_by=rank_by, value=value, keep_sign=keep_sign, detach_value=detach_value
        )
        return k + _noise(k, length=_row_norm(lifted - k.detach()), generator=generator)
    chosen = _choose(k.detach(), n, rank_by, control, generator)
    level = _level(k.detach() if detach_value else k, value) * alpha  # (..., 1)
    replaced = k.detach().gather(-1, chosen)
    if control == "random_sign":
        heads = torch.rand(chosen.shape, generator=generator, device=k.device) < 0.5
        level = torch.where(heads, -level, level)
    elif keep_sign and value == "mean_magnitude":
        level = torch.where(replaced < 0, -level, level)
    return k.scatter(-1, chosen, level.to(k.dtype).expand_as(chosen))


class _Lift(torch.autograd.Function):
    """The default arm in one pass over k; holds one bit per coefficient for backward."""

    @staticmethod
    def forward(ctx: Any, k: Tensor, n: int, alpha: float, keep_sign: bool, kernels: Any) -> Tensor:
        lifted, marks = kernels.lift(k, n, alpha, keep_sign=keep_sign)
        ctx.save_for_backward(marks)
        ctx.kernels = kernels
        return lifted

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (marks,) = ctx.saved_tensors
        return ctx.kernels.blank(grad, marks), None, None, None, None


def _choose(k: Tensor, n: int, rank_by: RankBy, control: Control, generator: torch.Generator | None) -> Tensor:
    """Indices (..., n) of the entries to replace."""
    if control == "random_keys":
        return smallest_indices(torch.rand(k.shape, generator=generator, device=k.device), n)
    if control == "largest_keys":
        ranked = -k.abs() if rank_by == "magnitude" else -k
        return smallest_indices(ranked, n, "signed")
    return smallest_indices(k, n, rank_by)


def _level(k: Tensor, value: Value) -> Tensor:
    """Mean of |k| or of k over a token's keys, in float32: (..., F) -> (..., 1). No float32 copy of k is kept."""
    wider = torch.promote_types(k.dtype, torch.float32)
    if value == "signed_mean":
        return k.mean(-1, keepdim=True, dtype=wider)
    return torch.linalg.vector_norm(k, ord=1, dim=-1, keepdim=True, dtype=wider) / k.shape[-1]


def _row_norm(k: Tensor) -> Tensor:
    return torch.linalg.vector_norm(k, dim=-1, keepdim=True, dtype=torch.promote_types(k.dtype, torch.float32))


def _noise(k: Tensor, *, length: Tensor, generator: torch.Generator | None) -> Tensor:
    """Gaussian directions of the given length per row, in k's dtype."""
    drawn = torch.randn(k.shape, generator=generator, device=k.device, dtype=length.dtype)
    return (drawn * (length / _row_norm(drawn))).to(k.dtype)
