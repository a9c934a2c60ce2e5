"""Greedy decoding of one batch whose rows end when they end: what is finished leaves the batch.

`transformers.generate` goes on with every row until the last one ends; in a queue of many tasks one long answer would
hold up all the short ones beside it. A test compares the answers with generate's, row by row.

Shapes: B rows still in the batch, P prompt tokens (left-padded), V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache

from infosteer_bench.evaluation.lm import Ask
from infosteer_bench.models.families import cache_option

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from infosteer_bench.evaluation.lm import EngineLM

_STOP_WINDOW = 16
"""Newest tokens searched for a stop string, at least."""


@torch.inference_mode()
def write(model: PreTrainedModel, lm: EngineLM, asks: Sequence[Ask], ids: Tensor, mask: Tensor) -> list[list[int]]:
    """Each row's new tokens, up to and with the one that ended it.

    ids, mask: (B, P). lm: decodes the newest tokens, to find stop strings.
    """
    written: list[list[int]] = [[] for _ in asks]
    held = still_open = list(range(len(asks)))  # rows in the cache, and those of them that go on
    cache = DynamicCache(config=model.config)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    while True:
        logits = model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            use_cache=True,
            logits_to_keep=1,
            **cache_option(model, cache),
        ).logits  # (B, 1, V)
        tokens = logits[:, -1].float().argmax(-1)
        newest = dict(zip(held, tokens.tolist(), strict=True))
        for row in still_open:
            written[row].append(newest[row])
        stopped = _stopped(lm, asks, written, still_open)
        still_open = [
            row
            for row in still_open
            if row not in stopped
            and newest[row] not in asks[row].stop_ids
            and len(written[row]) < asks[row].max_new_tokens
        ]
        if not still_open:
            return written
        if 2 * len(still_open) <= len(held):  # not at every end: leaving copies the cache
            keep = torch.tensor([held.index(row) for row in still_open], device=ids.device)
            cache.batch_select_indices(keep)
            tokens, mask, positions, held = tokens[keep], mask[keep], positions[keep], still_open
        ids = tokens[:, None]
        mask = torch.cat([mask, mask.new_ones(len(held), 1)], dim=1)
        positions = positions[:, -1:] + 1


def _stopped(lm: EngineLM, asks: Sequence[Ask], written: list[list[int]], rows: list[int]) -> set[int]:
    """Rows in whose newest text a stop string stands. All rows began together, so they are of one length."""
    asked = [row for row in rows if asks[row].stops]
    if not asked:
        return set()
    # A token holds a byte at least, so this many newest tokens always hold a stop string that just ended.
    window = max([_STOP_WINDOW, *(len(stop.encode()) + 4 for row in asked for stop in asks[row].stops)])
    tails = lm.decode_rows(np.asarray([written[row][-window:] for row in asked], dtype=np.int64))
    return {row for row, tail in zip(asked, tails, strict=True) if any(stop in tail for stop in asks[row].stops)}
