"""Model families: which architectures are supported, and where their key-value memory lives.

In every family the key coefficients k are the input of the gated FFN's `down_proj`, and memory vector i is column i of
its weight (METHOD.md, "The memory view"). Shapes: hidden size D, FFN width F; down_proj.weight is (D, F).
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from infosteer_bench.errors import UserError

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Family:
    """name: as in --models and the leaderboard; architecture: as in config.json; group: qwen, llama or gemma.

    attention: the transformers implementation that computes the architecture as published; None for the default.
    """

    name: str
    architecture: str
    model_type: str
    group: str
    attention: str | None = None


FAMILIES = {
    family.name: family
    for family in (
        Family("qwen2", "Qwen2ForCausalLM", "qwen2", "qwen"),
        Family("qwen3", "Qwen3ForCausalLM", "qwen3", "qwen"),
        Family("llama", "LlamaForCausalLM", "llama", "llama"),
        # transformers' default (sdpa) leaves out Gemma2's soft-capping of attention logits
        Family("gemma2", "Gemma2ForCausalLM", "gemma2", "gemma", attention="eager"),
        Family("gemma3", "Gemma3ForCausalLM", "gemma3_text", "gemma"),
    )
}


def family_of(config: Any) -> Family:
    """The family of a config: a transformers config, or config.json as a dict.

    Raises UserError for an architecture that is not supported.
    """
    read = config.get if isinstance(config, dict) else lambda key: getattr(config, key, None)
    architectures, model_type = read("architectures"), read("model_type")
    given = architectures[0] if isinstance(architectures, list | tuple) and architectures else None
    for family in FAMILIES.values():
        # A config without `architectures` (a bare transformers config) is told by its model type.
        if given == family.architecture or (given is None and model_type == family.model_type):
            return family
    raise UserError(
        f"architecture {given or model_type or 'unknown'!r} is not supported",
        allowed=", ".join(family.architecture for family in FAMILIES.values()),
    )


def decoder(model: nn.Module) -> nn.Module:
    """The inner text model (embeddings and layers), whose forward runs once per forward of `model`.

    Found by structure, so PEFT, DDP, FSDP and torch.compile wrappers do not matter.
    Raises UserError if there is none.
    """
    for module in model.modules():
        # `_modules`, not hasattr: wrappers such as FSDP pass unknown attributes on to what they wrap.
        if "layers" in module._modules and "embed_tokens" in module._modules:
            return module
    raise UserError(
        f"{type(model).__name__} has no decoder layers of a known layout",
        allowed=", ".join(family.architecture for family in FAMILIES.values()),
    )


def cache_option(model: nn.Module, cache: Any) -> dict[str, Any]:
    """The cache of earlier tokens by the name that this model's forward has for it: newer ones warn of the old."""
    return {"cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values": cache}


def ffn_layers(model: nn.Module) -> list[nn.Module]:
    """The decoder layers' `down_proj` modules, first layer first; their input is the key coefficients (.., F).

    A LoRA-wrapped down_proj is returned as the wrapper, whose input is the same. Raises UserError if a layer has not
    exactly one.
    """
    found = []
    for index, layer in enumerate(decoder(model)._modules["layers"].children()):  # type: ignore[union-attr]
        inside = [m._modules["down_proj"] for m in layer.modules() if m._modules.get("down_proj") is not None]
        if len(inside) != 1 or inside[0] is None:
            raise UserError(f"layer {index} of {type(model).__name__} has {len(inside)} down_proj modules, expected 1")
        found.append(inside[0])
    return found
