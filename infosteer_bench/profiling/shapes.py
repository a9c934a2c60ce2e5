"""The widths of the catalog's models, as their config.json on the hub has them; weights are random.

A test builds each on the meta device and counts its parameters against the catalog.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from infosteer_bench.errors import unknown_name
from infosteer_bench.models.catalog import CATALOG
from infosteer_bench.models.families import FAMILIES

if TYPE_CHECKING:
    from transformers import PretrainedConfig


def _shape(hidden: int, ffn: int, layers: int, heads: int, kv: int, vocab: int, head_dim: int, tied: bool) -> dict:
    return {
        "hidden_size": hidden,
        "intermediate_size": ffn,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv,
        "vocab_size": vocab,
        "head_dim": head_dim,
        "tie_word_embeddings": tied,
    }


SHAPES: dict[str, dict[str, Any]] = {
    "qwen2.5-1.5b": _shape(1536, 8960, 28, 12, 2, 151_936, 128, True),
    "qwen2.5-7b": _shape(3584, 18_944, 28, 28, 4, 152_064, 128, False),
    "llama-3.2-1b": _shape(2048, 8192, 16, 32, 8, 128_256, 64, True),
    "llama-3-8b": _shape(4096, 14_336, 32, 32, 8, 128_256, 128, False),
    "gemma-2-2b": _shape(2304, 9216, 26, 8, 4, 256_000, 256, True),
    "gemma-2-9b": _shape(3584, 14_336, 42, 16, 8, 256_000, 256, True),
    "smollm2-135m": _shape(576, 1536, 30, 9, 3, 49_152, 64, True),
    "qwen2.5-0.5b": _shape(896, 4864, 24, 14, 2, 151_936, 64, True),
    "gemma-3-270m": _shape(640, 2048, 18, 4, 1, 262_144, 256, True),
}


def shape_names() -> list[str]:
    """The catalog ids that `profile` knows: all of them."""
    return list(CATALOG)


def shape_config(name: str, n_layers: int | None = None) -> PretrainedConfig:
    """The transformers config of a catalog id, with `n_layers` decoder layers (None: its own number).

    Raises UserError for an unknown name.
    """
    from transformers import AutoConfig

    if name not in CATALOG:
        raise unknown_name("shape", name, shape_names())
    row = CATALOG[name]
    if row.folder is not None:
        values = json.loads((row.folder / "config.json").read_text(encoding="utf-8"))
    else:
        values = {"model_type": FAMILIES[row.family].model_type, **SHAPES[name]}
    if n_layers is not None:
        values = {**values, "num_hidden_layers": n_layers}
        values.pop("layer_types", None)  # one entry per layer: filled in anew
    return AutoConfig.for_model(**values)
