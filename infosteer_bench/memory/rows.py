"""Row by row over key coefficients: float32 inside, without holding a float32 copy of all of k.

What InfoSteer computes from k (B, T, F) is a function of one token's F numbers. On a CPU such a function gets a block
of rows at a time, so small that its temporaries stay in the processor's cache: on two CPU cores, F = 8960, that takes a
third of the time of the same operations over the whole tensor. On a CUDA GPU `kernels` has one kernel for it; where
that does not serve (float64, no triton) the operations run over the whole tensor, which is right and slow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

BLOCK = 1 << 19
"""Coefficients per block on a CPU: 2 MiB in float32."""

TINY = torch.finfo(torch.float32).tiny
"""Smallest normal float32: sums below it count as zero, and it stands in for 0 under a logarithm."""

RowFunction = Callable[..., tuple[Tensor, ...]]


def wide(k: Tensor) -> torch.dtype:
    """The dtype to compute in: float32, or float64 for float64 input."""
    return torch.promote_types(k.dtype, torch.float32)


def own(block: Tensor) -> Tensor:
    """A private copy of a block in the dtype to compute in."""
    return block.to(wide(block), copy=True)


def over_rows(function: RowFunction, k: Tensor, *per_row: Tensor) -> tuple[Tensor, ...]:
    """`function(rows of k (n, F), the same rows (n, 1) of each per_row)`, over all rows and put together.

    k: (..., F). per_row: tensors of shape (...), or (..., F), of which function gets (n, F). function: pure; its
    results are (n,) or (n, F), and come back as (...) or (..., F).
    """
    width, leading = k.shape[-1], k.shape[:-1]
    flat = k.detach().reshape(-1, width)
    rows = [values.reshape(-1, width if values.dim() == k.dim() else 1) for values in per_row]
    in_blocks = k.device.type == "cpu" and flat.numel() > BLOCK
    results = _by_blocks(function, flat, *rows) if in_blocks else function(flat, *rows)
    return tuple(result.view((*leading, *result.shape[1:])) for result in results)


def _by_blocks(function: RowFunction, flat: Tensor, *rows: Tensor) -> tuple[Tensor, ...]:
    """Each block's results are written where they belong at once: fresh memory costs more than the copy."""
    results: tuple[Tensor, ...] = ()
    done = 0
    for block in blocks(flat, *rows):
        parts = function(*block)
        results = results or tuple(part.new_empty((len(flat), *part.shape[1:])) for part in parts)
        for result, part in zip(results, parts, strict=True):
            result[done : done + len(part)] = part
        done += len(block[0])
    return results


def kernels_for(k: Tensor) -> Any:
    """The module `kernels` where it takes k, else None."""
    if not k.is_cuda:
        return None
    try:
        from infosteer_bench.memory import kernels
    except ImportError:  # no triton
        return None
    return kernels if kernels.usable(k) else None


def blocks(flat: Tensor, *rows: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """The same few rows of every tensor at a time."""
    step = max(1, BLOCK // flat.shape[-1])
    for start in range(0, flat.shape[0], step):
        yield tuple(tensor[start : start + step] for tensor in (flat, *rows))
