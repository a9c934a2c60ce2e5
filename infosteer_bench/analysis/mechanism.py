"""What stands beside a score: how evenly a checkpoint engages its memories, on a fixed slice of held-out text.

    entry = measure(model, text)             # {"overall": {"entropy_nats": ...}, "by_layer": {...}, ...}

It reads the weights as they are; what a method would do to k at inference (`apply_at_inference`) is not in it.
`memory.statistics.TokenStatistics` says what each number is.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from infosteer_bench.analysis.reading import read_keys
from infosteer_bench.errors import CellFailure
from infosteer_bench.memory.statistics import STATISTICS, TokenStatistics
from infosteer_bench.memory.tap import TapError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from infosteer_bench.data.slices import TextSlice

VERSION = 1
"""Raised whenever the same weights and tokens would give another number."""


def measure(model: nn.Module, text: TextSlice) -> dict[str, Any]:
    """The statistics of every layer and their mean over layers, as a record keeps them (JSON, 6 digits).

    Raises CellFailure where a coefficient is not finite.
    """
    found: dict[int, TokenStatistics] = {}

    def visit(layer: int, k: Tensor, mask: Tensor) -> None:
        found.setdefault(layer, TokenStatistics(k.shape[-1])).add(k, mask)

    try:
        read_keys(model, text.rows, visit=visit)
    except TapError as error:
        raise CellFailure(f"mechanism: {error}") from error
    layers = [found[index].summary() for index in sorted(found)]
    by_layer = {name: [layer[name] for layer in layers] for name in STATISTICS}
    overall = {name: math.fsum(values) / len(values) for name, values in by_layer.items()}
    for name, value in overall.items():
        if not math.isfinite(value):
            raise CellFailure(f"mechanism: {name} is {value}")
    return {
        "version": VERSION,
        "slice": text.facts(),
        "width": found[min(found)].width,
        "n_layers": len(layers),
        "dtype": str(next(model.parameters()).dtype).removeprefix("torch."),
        "overall": {name: rounded(value) for name, value in overall.items()},
        "by_layer": {name: [rounded(value) for value in values] for name, values in by_layer.items()},
    }


def rounded(value: float) -> float:
    """To six digits: the last ones depend on the machine."""
    return float(f"{value:.6g}")
