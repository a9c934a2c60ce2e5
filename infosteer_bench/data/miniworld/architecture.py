"""The three architectures at a million parameters, with the world's tokenizer.

    model = make_model("llama", n_tokens=len(tokenizer), seed=0)

Shapes: hidden 128, FFN width F = 384, 6 layers, 4 heads of 32 (a head size that vLLM's CPU and CUDA kernels take),
2 key-value heads, tied embeddings.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from infosteer_bench.data.miniworld.heads import shape_heads

if TYPE_CHECKING:
    from transformers import PreTrainedModel

FAMILIES = ("qwen2", "llama", "gemma2")
HIDDEN, WIDTH, LAYERS, HEADS, KV_HEADS = 128, 384, 6, 4, 2
ROPE_THETA = 100.0
"""Texts are 128 tokens at most: at 10,000 most rotary pairs would hardly turn in so short a text."""
PAD_ID, BOS_ID, EOS_ID = 1, 2, 3


def puts_bos(family: str) -> bool:
    """Whether this family's tokenizers begin a text with BOS, as the real ones do (Llama, Gemma) or do not (Qwen)."""
    return family != "qwen2"


def make_config(family: str, *, n_tokens: int) -> Any:
    """The transformers configuration; the embedding has a multiple of 64 rows."""
    from transformers import Gemma2Config, LlamaConfig, Qwen2Config

    common: dict[str, Any] = {
        "vocab_size": n_tokens + -n_tokens % 64,
        "hidden_size": HIDDEN,
        "intermediate_size": WIDTH,
        "num_hidden_layers": LAYERS,
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


def make_model(family: str, *, n_tokens: int, seed: int) -> PreTrainedModel:
    """A model with random weights; the same seed gives the same weights."""
    import torch
    from transformers import AutoModelForCausalLM

    from infosteer_bench.models.families import family_of

    config = make_config(family, n_tokens=n_tokens)
    attention = family_of(config).attention
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config, attn_implementation=attention)
    shape_heads(model, rope_theta=ROPE_THETA, seed=seed)
    return model
