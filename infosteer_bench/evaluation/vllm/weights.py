"""What a checkpoint's safetensors say `WeightProbe` should have read, computed without vLLM."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from infosteer_bench.errors import CellFailure
from infosteer_bench.evaluation.vllm.worker import COLUMNS, ROWS, spread, tensor_digest

if TYPE_CHECKING:
    import torch

FUSED = {"qkv_proj": ("q_proj", "k_proj", "v_proj"), "gate_up_proj": ("gate_proj", "up_proj")}
"""vLLM's fused matrices, and the checkpoint's that they stack."""
NARROWING = ("o_proj", "down_proj")
_VOCAB_MULTIPLE = 64
"""vLLM pads the embedding to a multiple of it before it is shared out."""


@dataclass(frozen=True)
class Shard:
    """What one of vLLM's `size` workers holds of a model (tensor parallelism; Shoeybi et al. 2019, "Megatron-LM").

    The rows of matrices that widen (q, k, v, gate, up) and of the embedding are shared out, and the columns of those
    that narrow again (o, down). A key or value head that several query heads use lies on all the workers of these.
    vocab_size: rows of the embedding that are tokens. kv_heads: of keys and values.
    """

    vocab_size: int
    kv_heads: int
    rank: int = 0
    size: int = 1

    def rows(self, tensor: torch.Tensor, source: str) -> torch.Tensor:
        """Of the matrix (or bias) `source`, as q_proj."""
        parts = min(self.size, self.kv_heads) if source in ("k_proj", "v_proj") else self.size
        return tensor.chunk(parts)[self.rank * parts // self.size]

    def columns(self, tensor: torch.Tensor) -> torch.Tensor:
        """Of a matrix whose input the workers share."""
        return tensor.chunk(self.size, dim=1)[self.rank]

    def tokens(self, tensor: torch.Tensor) -> torch.Tensor:
        """Rows of an embedding, or of an output matrix."""
        each = math.ceil(self.vocab_size / _VOCAB_MULTIPLE) * _VOCAB_MULTIPLE // self.size
        return tensor[: self.vocab_size][self.rank * each : (self.rank + 1) * each]


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


def expected_digests(checkpoint: Path, names: list[str], *, dtype: str, shard: Shard) -> dict[str, str]:
    """The digest that each of `names` (vLLM's) must have in a worker if `checkpoint` is what is loaded.

    Raises CellFailure for a tensor that the checkpoint lacks.
    """
    weights = Weights(checkpoint, dtype)
    return {name: tensor_digest(_expected(weights, name, shard)) for name in names}


def _expected(weights: Weights, name: str, shard: Shard) -> torch.Tensor:
    import torch

    module, _, part = name.rpartition(".")
    parent, _, leaf = module.rpartition(".")
    if leaf == "lm_head" and name not in weights:
        name = "model.embed_tokens.weight"  # tied: the checkpoint has the matrix once
    if part == "packed":  # the embedding as output matrix
        name = f"{module}.weight"
    if leaf in FUSED:
        tensor = torch.cat([shard.rows(weights.read(f"{parent}.{source}.{part}"), source) for source in FUSED[leaf]])
    else:
        tensor = weights.read(name)
    if leaf in ("lm_head", "embed_tokens"):
        tensor = shard.tokens(tensor)
    elif leaf in NARROWING and part == "weight":
        tensor = shard.columns(tensor)
    if leaf == "embed_tokens" and part == "weight":
        return tensor[spread(len(tensor), ROWS)]
    return tensor.t()[spread(tensor.shape[1], COLUMNS)] if tensor.ndim == 2 else tensor
