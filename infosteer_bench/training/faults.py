"""Where a number went wrong: the first layer with key coefficients, or parameter with a gradient, that are not finite.

Looked for only after the loss or the gradient norm was found not to be finite, so training pays nothing for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from infosteer_bench.memory.tap import Tap, TapError
from infosteer_bench.models.families import decoder, ffn_layers


def first_fault(model: nn.Module, batch: Mapping[str, Any]) -> str:
    """One phrase: runs `batch` forward once more, the method's own hooks included, and looks at k in every layer."""

    def read(k: Tensor, layer: int) -> Tensor:  # noqa: ARG001
        return torch.stack([k.isnan().any(), k.isinf().any()])

    layers = dict(enumerate(ffn_layers(model)))
    try:
        with torch.no_grad(), Tap(root=decoder(model), layers=layers, read=read, first=True) as tap:
            model(**{name: value for name, value in batch.items() if name != "labels"})
            found = {index: flags.tolist() for index, flags in tap.take().items()}
    except TapError as error:
        return str(error)
    for index, (has_nan, has_inf) in found.items():
        if has_nan or has_inf:
            kind = "NaN" if has_nan else "infinity"
            return f"layer {index} is the first with {kind} in its key coefficients"
    for name, parameter in model.named_parameters():
        if parameter.grad is not None and not torch.isfinite(parameter.grad).all():
            return f"the key coefficients are finite in every layer; {name} is the first with such a gradient"
    return "the key coefficients are finite in every layer"
