"""What a checkpoint's safetensors say `WeightProbe` should have read, computed without vLLM."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from infosteer_bench.errors import CellFailure
from infosteer_bench.evaluation.vllm_worker import COLUMNS, ROWS, spread, tensor_digest

if TYPE_CHECKING:
    import torch

FUSED = {"qkv_proj": ("q_proj", "k_proj", "v_proj"), "gate_up_proj": ("gate_proj", "up_proj")}
"""vLLM's fused matrices, and the checkpoint's that they stack."""


class Weights:
    """The tensors of a checkpoint by name, read one at a time, in a dtype."""

    def __init__(self, checkpoint: Path, dtype: str) -> None:
        index = checkpoint / "model.safetensors.index.json"
        if index.is_file():
            names = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
            self._files = {name: checkpoint / file for name, file in names.items()}
        else:
            from safetensors import safe_open

            self._files = {}
            for path in sorted(checkpoint.glob("*.safetensors")):
                with safe_open(path, "pt") as handle:
                    self._files |= dict.fromkeys(handle.keys(), path)
        self._dtype = dtype

    def __contains__(self, name: str) -> bool:
        return name in self._files

    def read(self, name: str) -> torch.Tensor:
        """One tensor. Raises CellFailure if the checkpoint has none of that name."""
        import torch
        from safetensors import safe_open

        if name not in self._files:
            raise CellFailure(f"the engine holds {name}, which the checkpoint lacks")
        with safe_open(self._files[name], "pt") as handle:
            return handle.get_tensor(name).to(getattr(torch, self._dtype))


def expected_digests(checkpoint: Path, names: list[str], *, dtype: str, vocab_size: int) -> dict[str, str]:
    """The digest that each of `names` (vLLM's) must have if `checkpoint` is what is loaded.

    vocab_size: rows of the embedding that are tokens; vLLM pads the rest. Raises CellFailure for a tensor that the
    checkpoint lacks.
    """
    weights = Weights(checkpoint, dtype)
    return {name: tensor_digest(_expected(weights, name, vocab_size)) for name in names}


def _expected(weights: Weights, name: str, vocab_size: int) -> torch.Tensor:
    import torch

    module, _, part = name.rpartition(".")
    parent, _, leaf = module.rpartition(".")
    if leaf == "lm_head" and name not in weights:
        name = "model.embed_tokens.weight"  # tied: the checkpoint has the matrix once
    if part == "packed":  # the embedding as output matrix
        name = f"{module}.weight"
    if leaf in FUSED:
        tensor = torch.cat([weights.read(f"{parent}.{source}.{part}") for source in FUSED[leaf]])
    else:
        tensor = weights.read(name)
    if leaf == "embed_tokens" and part == "weight":
        return tensor[spread(vocab_size, ROWS)]
    if leaf in ("lm_head", "embed_tokens"):
        tensor = tensor[:vocab_size]
    return tensor.t()[spread(tensor.shape[1], COLUMNS)] if tensor.ndim == 2 else tensor
