"""The three architectures at one and a half million parameters, with the world's tokenizer.

    top = make_model("llama", n_tokens=len(tokenizer), seed=0, layers=UPPER)
    model = put_layers_below(top, "llama", seed=0)

Shapes: hidden 128, FFN width F = 384, 7 layers, 4 heads of 32 (a head size that vLLM's CPU and CUDA kernels take),
2 key-value heads; embeddings are tied until `untie_head`.

A model grows from above: its upper layers learn to find words in lists before there are any below them. The lower
layers come later and learn to say early what the upper ones are used to: at "the zorvik eats", the
embedding of what it eats. What the upper layers can do with a word that they read they can then do with one that is
remembered. Layer-wise growth is an old way to train (Gong et al. 2019, "Efficient training of BERT by progressively
stacking"); from all layers at once, the same texts led to no use of what was known for several times as long.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from infosteer_dev.miniworld.heads import OUTPUT_SCALE, shape_heads

if TYPE_CHECKING:
    from transformers import PreTrainedModel

FAMILIES = ("qwen2", "llama", "gemma2")
HIDDEN, WIDTH, LAYERS, HEADS, KV_HEADS = 128, 384, 7, 4, 2
LOWER = 4
"""Layers that come later; the early loss of `build` reads what the last of them gives out."""
UPPER = LAYERS - LOWER
ROPE_THETA = 100.0
"""Texts are 128 tokens at most: at 10,000 most rotary pairs would hardly turn in so short a text."""
PAD_ID, BOS_ID, EOS_ID = 1, 2, 3


def puts_bos(family: str) -> bool:
    """Whether this family's tokenizers begin a text with BOS, as the real ones do (Llama, Gemma) or do not (Qwen)."""
    return family != "qwen2"


def make_config(family: str, *, n_tokens: int, layers: int = LAYERS) -> Any:
    """The transformers configuration; the embedding has a multiple of 64 rows."""
    from transformers import Gemma2Config, LlamaConfig, Qwen2Config

    common: dict[str, Any] = {
        "vocab_size": n_tokens + -n_tokens % 64,
        "hidden_size": HIDDEN,
        "intermediate_size": WIDTH,
        "num_hidden_layers": layers,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "max_position_embeddings": 512,
        "tie_word_embeddings": True,
        # 0.02 is made for widths of a thousand and more; at 128 the signal would fade from layer to layer
        "initializer_range": 0.06,
        "rope_parameters": {"rope_type": "default", "rope_theta": ROPE_THETA},
        "pad_token_id": PAD_ID,
        "bos_token_id": BOS_ID if puts_bos(family) else None,
        "eos_token_id": EOS_ID,
    }
    head = HIDDEN // HEADS
    if family == "qwen2":
        return Qwen2Config(**common, use_sliding_window=False)
    if family == "llama":
        return LlamaConfig(**common, head_dim=head)
    return Gemma2Config(**common, head_dim=head, query_pre_attn_scalar=head, sliding_window=256)


def make_model(family: str, *, n_tokens: int, seed: int, layers: int = LAYERS) -> PreTrainedModel:
    """A model with random weights; the same seed gives the same weights."""
    import torch
    from transformers import AutoModelForCausalLM

    from infosteer_bench.models.families import family_of

    config = make_config(family, n_tokens=n_tokens, layers=layers)
    attention = family_of(config).attention
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config, attn_implementation=attention)
    shape_heads(model, rope_theta=ROPE_THETA, seed=seed)
    return model


ATTENTION_SHARE, FFN_SHARE = 0.6, 0.1
"""Factors on the outputs of new layers: soft, so that the upper layers still read words. Gemma2 norms these outputs and
takes the factors as the norms' gain, its attention's times OUTPUT_SCALE as in the other families."""


def put_layers_below(top: Any, family: str, *, seed: int) -> PreTrainedModel:
    """A model of LAYERS layers: LOWER new ones, then those of `top`, with its embeddings and its final norm.

    Embeddings are brought to a root mean square of 1 first, where Gemma2's are by its own scale, and the function of
    the upper layers stays what it is. Left at 0.1, what the new layers learn to say in their first hundred steps drowns
    every word, and with it what the upper layers had learned.
    """
    import torch

    model: Any = make_model(family, n_tokens=top.config.vocab_size, seed=seed)
    weights = {}
    for name, tensor in top.state_dict().items():
        if name.startswith("model.layers."):
            index, rest = name.removeprefix("model.layers.").split(".", 1)
            name = f"model.layers.{int(index) + LOWER}.{rest}"
        weights[name] = tensor
    new, unknown = model.load_state_dict(weights, strict=False)
    assert not unknown
    assert all(int(name.split(".")[2]) < LOWER for name in new), new
    every_token = torch.arange(top.config.vocab_size, device=top.device)[:, None]
    with torch.no_grad():
        words = top.model(input_ids=every_token, output_hidden_states=True, use_cache=False).hidden_states[0]
        loudness = words.pow(2).mean().sqrt().item()
        lower, upper = model.model.layers[:LOWER], model.model.layers[LOWER:]
        if family == "gemma2":  # its norms behind attention and FFN decide how loud these are
            for layer in lower:
                layer.post_attention_layernorm.weight.fill_(OUTPUT_SCALE * ATTENTION_SHARE * loudness - 1)
                layer.post_feedforward_layernorm.weight.fill_(FFN_SHARE * loudness - 1)
            return model
        model.model.embed_tokens.weight.div_(loudness)
        model.model.norm.weight.mul_(loudness)  # the head is the embedding
        for layer in upper:
            layer.self_attn.o_proj.weight.div_(loudness)
            layer.mlp.down_proj.weight.div_(loudness)
        for layer in lower:
            layer.self_attn.o_proj.weight.mul_(ATTENTION_SHARE)
            layer.mlp.down_proj.weight.mul_(FFN_SHARE)
    return model


HEAD_SCALE = 1 / 32
"""A power of two, so that nothing is rounded."""


def untie_head(model: Any, family: str) -> None:
    """Give Qwen2 and Llama a head of their own, as Qwen2.5-7B and Llama-3-8B have; the function stays what it is.

    It is the embedding times HEAD_SCALE, and the final norm makes up for it. An optimizer of Adam's kind moves every
    weight by about the learning rate, so that a small head, as Gemma2's embedding is by its own scale, takes on new
    words for an answer before the layers below have lost what they knew: with the head tied to embeddings of 0.8,
    fine-tuning left 36 % of answers right where 88 % were known.
    """
    import torch

    if family == "gemma2":
        return
    model.config.tie_word_embeddings = False
    with torch.no_grad():
        model.lm_head.weight = torch.nn.Parameter(model.model.embed_tokens.weight * HEAD_SCALE)
        model.model.norm.weight.div_(HEAD_SCALE)
