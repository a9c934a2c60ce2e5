"""Initial attention weights that already look back a few tokens, so that finding things in context is learned early.

Induction - finding an earlier place by its content - forms late in pretraining: from plainly random weights, six-layer
models of this width had not learned to repeat a list of words after 3.7 million tokens, from these after 1.5 million.

- "Mimetic" initialisation (Trockman and Kolter 2023): queries equal keys, so that a token attends to places of like
  content; outputs are transposed values, so that what is fetched stays itself.
- Heads 0 to 2 of a new model's first layer attend 1, 2 and 3 tokens back: their queries and keys read one embedding
  dimension that is constant over the vocabulary, and RoPE turns it into a score that is highest at that distance.

Training may keep, change or lose all of it. Nothing about any creature is in these weights, and the feed-forward
layers, the memory that methods steer, begin at random.
"""

from __future__ import annotations

from typing import Any

CONSTANT = 0.3
"""Value of embedding dimension 0 for every token."""
POSITION_SCALE, OUTPUT_SCALE = 1.2, 0.5
PAIRS = 6
"""Rotary pairs of the highest frequencies, which tell neighbouring positions apart."""
DISTANCES = (1, 2, 3)


def shape_heads(model: Any, *, rope_theta: float, seed: int) -> None:
    """Set embedding dimension 0 and all attention weights of a model of `architecture` in place."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    config = model.config
    hidden, heads, groups = config.hidden_size, config.num_attention_heads, config.num_key_value_heads
    size = hidden // heads

    def orthogonal() -> Any:
        """(groups, size, hidden): rows that read orthogonal directions, none of them the constant one."""
        rows = torch.nn.init.orthogonal_(torch.empty(groups * size, hidden), generator=generator)
        rows[:, 0] = 0
        return rows.reshape(groups, size, hidden)

    with torch.no_grad():
        model.model.embed_tokens.weight[:, 0] = CONSTANT
        for index, layer in enumerate(model.model.layers):
            keys, values = orthogonal(), orthogonal()
            queries = [keys[head * groups // heads] for head in range(heads)]
            outputs = [OUTPUT_SCALE * values[head * groups // heads].T for head in range(heads)]
            if index == 0:
                keys = torch.zeros_like(keys)
                keys[:, :PAIRS, 0] = POSITION_SCALE
                queries[: len(DISTANCES)] = [_look_back(distance, size, hidden, rope_theta) for distance in DISTANCES]
            attention = layer.self_attn
            attention.q_proj.weight.copy_(torch.cat(queries))
            attention.k_proj.weight.copy_(keys.flatten(0, 1))
            attention.v_proj.weight.copy_(values.flatten(0, 1))
            attention.o_proj.weight.copy_(torch.cat(outputs, dim=1))


def _look_back(distance: int, size: int, hidden: int, rope_theta: float) -> Any:
    """(size, hidden) query weights whose score with a constant key is highest `distance` tokens back.

    RoPE (Su et al. 2021) gives the pair (j, j + size/2) the score cos((i - k) w_j + phase), w_j = theta^(-2j/size), for
    a query at i and a key at k: phase -distance w_j puts every pair's maximum at i - k = distance.
    """
    import torch

    angles = distance * rope_theta ** (-torch.arange(PAIRS) / (size // 2))
    query = torch.zeros(size, hidden)
    query[:PAIRS, 0] = POSITION_SCALE * torch.cos(angles)
    query[size // 2 : size // 2 + PAIRS, 0] = -POSITION_SCALE * torch.sin(angles)
    return query
