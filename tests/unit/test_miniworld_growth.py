"""A model that grows from above, and the loss that makes its lower layers say what is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from infosteer_bench.data.render import IGNORE
from infosteer_dev.miniworld.architecture import (
    FAMILIES,
    LAYERS,
    LOWER,
    UPPER,
    make_model,
    put_layers_below,
    untie_head,
)
from infosteer_dev.miniworld.measure import answers, losses_of

TOKENS = 192


def upper(family: str) -> Any:
    return make_model(family, n_tokens=TOKENS, seed=0, layers=UPPER)


def text(rows: int = 3, width: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.randint(4, TOKENS, (rows, width), generator=torch.Generator().manual_seed(1))
    labels = ids.clone()
    labels[:, ::3] = IGNORE
    return ids, labels


@pytest.mark.parametrize("family", FAMILIES)
def test_the_upper_layers_go_on_as_they_were(family: str):
    """Without what the new layers add, the grown model says what the upper one said."""
    top, (ids, _) = upper(family), text()
    with torch.no_grad():
        before = top(input_ids=ids).logits
        model: Any = put_layers_below(top, family, seed=0)
        again: Any = put_layers_below(upper(family), family, seed=0)
        assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
        assert model.config.num_hidden_layers == LAYERS
        assert model.lm_head.weight is model.model.embed_tokens.weight
        silent = -1.0 if family == "gemma2" else 0.0  # Gemma2's norms scale by 1 + weight
        for layer in model.model.layers[:LOWER]:
            if family == "gemma2":
                layer.post_attention_layernorm.weight.fill_(silent)
                layer.post_feedforward_layernorm.weight.fill_(silent)
            else:
                layer.self_attn.o_proj.weight.fill_(silent)
                layer.mlp.down_proj.weight.fill_(silent)
        assert torch.allclose(model(input_ids=ids).logits, before, atol=1e-3)
        assert model.model(input_ids=ids, output_hidden_states=True).hidden_states[0].pow(2).mean().sqrt() > 0.5


@pytest.mark.parametrize("family", FAMILIES)
def test_new_layers_are_soft_so_the_upper_ones_still_read_words(family: str):
    ids, _ = text()
    model: Any = put_layers_below(upper(family), family, seed=0)
    with torch.no_grad():
        states = model.model(input_ids=ids, output_hidden_states=True, use_cache=False).hidden_states
    words, below = states[0], states[LOWER]
    assert torch.nn.functional.cosine_similarity(words, below, dim=-1).mean() > 0.7
    assert not torch.equal(words, below)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_early_loss_is_the_head_on_the_lower_layers(family: str):
    """Against the layer's own output, caught by a hook, and cross-entropy written out."""
    ids, labels = text()
    model: Any = make_model(family, n_tokens=TOKENS, seed=0)
    known = torch.where(ids % 3 == 0, (ids + 1) % TOKENS, torch.full_like(ids, IGNORE))
    caught: list[torch.Tensor] = []
    hook = model.model.layers[LOWER - 1].register_forward_hook(
        lambda module, args, out: caught.append(out[0] if isinstance(out, tuple) else out)
    )
    loss, early = losses_of(model, ids, labels, known=known)
    hook.remove()
    assert torch.allclose(loss, answers(model, ids, labels)[0])
    head = torch.nn.functional.linear(model.model.norm(caught[0]), model.lm_head.weight)
    if family == "gemma2":
        cap = model.config.final_logit_softcapping
        head = cap * torch.tanh(head / cap)
    expected, counted = 0.0, 0
    for row in range(ids.shape[0]):
        for place in range(1, ids.shape[1]):
            target = labels[row, place].item()
            if target != IGNORE:
                counted += 1
            value = known[row, place].item()
            if value != IGNORE:
                expected -= head[row, place - 1].log_softmax(-1)[int(value)].item()
    assert early.item() == pytest.approx(expected / counted, rel=1e-5)
    assert losses_of(model, ids, labels)[1].item() == 0


@pytest.mark.parametrize("family", FAMILIES)
def test_a_head_of_its_own_says_the_same(family: str, tmp_path: Path):
    ids, _ = text()
    model: Any = make_model(family, n_tokens=TOKENS, seed=0)
    with torch.no_grad():
        before = model(input_ids=ids).logits
        untie_head(model, family)
        assert torch.equal(model(input_ids=ids).logits, before)
        model.save_pretrained(tmp_path)
        kept: Any = AutoModelForCausalLM.from_pretrained(
            tmp_path, attn_implementation=model.config._attn_implementation
        )
        assert torch.equal(kept(input_ids=ids).logits, before)
    tied = model.lm_head.weight is model.model.embed_tokens.weight
    assert tied == (family == "gemma2") == kept.config.tie_word_embeddings
