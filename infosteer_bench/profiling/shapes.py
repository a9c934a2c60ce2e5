"""The catalog's models as transformers configs; their weights are random.

A test builds each on the meta device and counts its parameters against the catalog.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from infosteer_bench.errors import unknown_name
from infosteer_bench.models.catalog import CATALOG
from infosteer_bench.models.families import FAMILIES

if TYPE_CHECKING:
    from transformers import PretrainedConfig


_NAMES = {
    "hidden": "hidden_size",
    "ffn": "intermediate_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads",
    "vocab": "vocab_size",
    "head_dim": "head_dim",
    "tied": "tie_word_embeddings",
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
        assert row.shape is not None  # a row without a folder has one
        widths = {_NAMES[key]: value for key, value in asdict(row.shape).items()}
        values = {"model_type": FAMILIES[row.family].model_type, **widths}
    if n_layers is not None:
        values = {**values, "num_hidden_layers": n_layers}
        values.pop("layer_types", None)  # one entry per layer: filled in anew
    return AutoConfig.for_model(**values)
