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

    root, layers = decoder(model), dict(enumerate(ffn_layers(model)))
    try:
        with (
            torch.no_grad(),
            Tap(root=root, layers=layers, read=read, first=True) as computed,
            Tap(root=root, layers=layers, read=read) as written,  # after the method's own
        ):
            model(**{name: value for name, value in batch.items() if name != "labels"})
            before, after = computed.take(), written.take()
    except TapError as error:
        return str(error)
    for index in layers:
        if before[index].any():
            return f"layer {index} is the first with {_kind(before[index])} in its key coefficients"
        if after[index].any():
            return f"layer {index} is the first into which the method wrote {_kind(after[index])}"
    for name, parameter in model.named_parameters():
        if parameter.grad is not None and not torch.isfinite(parameter.grad).all():
            return f"the key coefficients are finite in every layer; {name} is the first with such a gradient"
    return "the key coefficients are finite in every layer"


def _kind(flags: Tensor) -> str:
    has_nan, _ = flags.tolist()
    return "NaN" if has_nan else "infinity"
