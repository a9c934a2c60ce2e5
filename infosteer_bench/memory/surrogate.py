"""Information surrogate of a memory vector (paper 4.3, App. B): the tokens that it speaks of.

    phi_i = v_i W_decode    (V)        v_i: memory vector, column i of down_proj.weight; W_decode: lm_head.weight
    P_i   = softmax(phi_i)
    Spec(v_i) = 1 - H(P_i) / log V     0: all tokens alike; 1: one token only

Literally so: no final norm, no soft cap, no scale in between. The length of v_i therefore counts, and where weights are
small P_i is nearly even; the order of memories within a layer, and the top tokens, are what can be read.

Shapes: F memories of a layer, D hidden size, V vocabulary, K top tokens, C tokens of a concept.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

CHUNK = 1 << 25
"""Logits (memories x V) held at a time: 128 MiB in float32, and two more of them while entropy is taken."""


@dataclass(frozen=True)
class Surrogates:
    """Of the memories of one layer, in order.

    entropy: (F,) nats. specificity: (F,). top_ids, top_probabilities: (F, K), most probable first.
    concept: (F,) mean of log P_i over the concept's tokens, nats; None without a concept. log_vocabulary: log V.
    """

    entropy: Tensor
    specificity: Tensor
    top_ids: Tensor
    top_probabilities: Tensor
    concept: Tensor | None
    log_vocabulary: float


@torch.no_grad()
def surrogates(
    values: Tensor, decode: Tensor, *, top_k: int, concept: Sequence[int] = (), chunk: int | None = None
) -> Surrogates:
    """Surrogates of all memory vectors of a layer, in float32, some memories at a time.

    values: (D, F), `down_proj.weight` as it is stored. decode: (V, D), `lm_head.weight`. top_k: at most V.
    concept: ids of its tokens, each counted once. Their mean log-probability, not their mass: the mass of "quantum
    physics" could be all on "quantum". chunk: memories at a time; None: as many as CHUNK logits allow.
    Results are on the CPU.
    """
    decode = decode.float()
    step = chunk or max(1, CHUNK // decode.shape[0])
    wanted = torch.tensor(sorted(set(concept)), device=decode.device, dtype=torch.long)
    parts: list[tuple[Tensor, ...]] = []
    for start in range(0, values.shape[1], step):
        rows = values[:, start : start + step].T.float()
        log_p = torch.log_softmax(rows @ decode.T, dim=-1)  # (step, V)
        top, ids = log_p.topk(top_k, dim=-1)
        about = log_p[:, wanted].mean(-1) if len(wanted) else log_p.new_zeros(len(rows))
        # P = 0 where float32 underflows: times log P, which is never -inf for finite logits, that is 0.
        entropy = log_p.exp().mul_(log_p).sum(-1).neg_()
        parts.append(tuple(part.cpu() for part in (entropy, ids, top.exp(), about)))
    entropy, ids, probabilities, about = (torch.cat(column) for column in zip(*parts, strict=True))
    entropy = entropy.clamp(min=0.0)
    most = math.log(decode.shape[0])
    return Surrogates(entropy, 1.0 - entropy / most, ids, probabilities, about if len(wanted) else None, most)
