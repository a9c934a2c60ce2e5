"""Tiny models whose answers vary: the weights of `tiny.build_tiny` are so small that they repeat one token.

path = build_loud("llama", tmp_path / "loud-llama", seed=1)
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tiny import build_tiny


def build_loud(family: str, path: Path, seed: int = 0) -> Path:
    """As build_tiny, every matrix drawn with a standard deviation of 0.12."""
    file = build_tiny(family, path, seed) / "model.safetensors"
    generator = torch.Generator().manual_seed(seed + 100)
    tensors = load_file(file)
    for name in sorted(tensors):
        if tensors[name].ndim == 2:
            tensors[name] = torch.randn(tensors[name].shape, generator=generator) * 0.12
    save_file(tensors, file, metadata={"format": "pt"})
    return path
