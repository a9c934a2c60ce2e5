"""Show every token of a text slice to a model, and every layer's key coefficients to a visitor.

    read_keys(model, text.rows, layers=[0, 1], visit=lambda layer, k, mask: ...)

Only the decoder runs: no analysis of this room needs logits. Rows of like length share a batch, whose size does not
depend on the machine, so that sums come out in one order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from infosteer_bench.memory.tap import Tap
from infosteer_bench.models.families import decoder, ffn_layers

BATCH_TOKENS = 1024
"""Of a batch, padding included, unless one row has more."""

Visit = Callable[[int, Tensor, Tensor], None]
"""Called with the layer's index, k (B, T, F) and mask (B, T) bool: true where a token is no padding."""


@torch.no_grad()
def read_keys(
    model: nn.Module, rows: Sequence[Sequence[int]], *, visit: Visit, layers: Sequence[int] | None = None
) -> None:
    """Run the decoder over `rows` of token ids on the model's device; layers: None for all.

    Raises TapError where a visit fails; it names the layer.
    """
    inner, modules = decoder(model), ffn_layers(model)
    device = next(inner.parameters()).device
    chosen = {index: modules[index] for index in (range(len(modules)) if layers is None else layers)}
    for input_ids, mask in batches(rows):
        here = mask.to(device)

        def read(k: Tensor, layer: int, here: Tensor = here) -> Tensor:
            visit(layer, k, here)
            return torch.empty(0)

        with Tap(root=inner, layers=chosen, read=read) as tap:
            inner(input_ids=input_ids.to(device), attention_mask=here.long(), use_cache=False)
            tap.take()


def batches(rows: Sequence[Sequence[int]]) -> Iterator[tuple[Tensor, Tensor]]:
    """(input_ids (B, T), mask (B, T) bool), longest rows first, padded on the right with id 0, which nothing reads."""
    ordered = sorted(rows, key=len, reverse=True)
    start = 0
    while start < len(ordered):
        width = len(ordered[start])
        group = ordered[start : start + max(1, BATCH_TOKENS // width)]
        start += len(group)
        input_ids = torch.zeros(len(group), width, dtype=torch.long)
        mask = torch.zeros(len(group), width, dtype=torch.bool)
        for place, row in enumerate(group):
            input_ids[place, : len(row)] = torch.tensor(row)
            mask[place, : len(row)] = True
        yield input_ids, mask
