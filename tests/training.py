"""Train a tiny model for three steps through the real training path: `train(model, folder, method)`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from infosteer_bench.data.mixes import TokenizedMix
from infosteer_bench.grid import TrainConfig
from infosteer_bench.methods.base import Method
from infosteer_bench.models.families import family_of
from infosteer_bench.training.checkpoint import TrainPaths, TrainResult, train_checkpoint
from tests.gradients import ragged_rows

FAST = TrainConfig(
    batch_size=2,
    gradient_accumulation=2,
    warmup_steps=0,
    learning_rate=1e-3,
    precision="float32",
    export_dtype="float32",
    gradient_checkpointing=False,
    entropy_every=1,
)


def mix_of(rows: list[dict[str, list[int]]]) -> TokenizedMix:
    """Rows as a mix."""
    labels = sum(label != -100 for row in rows for label in row["labels"])
    tokens = sum(len(row["input_ids"]) for row in rows)
    return TokenizedMix(rows=rows, n_rows=len(rows), dropped_overlong={}, n_tokens=tokens, n_label_tokens=labels)


def train(
    model: Path,
    folder: Path,
    method: Method,
    config: TrainConfig = FAST,
    seed: int = 0,
    rows: Any = None,
    on_step: Callable[[int, int], None] | None = None,
) -> TrainResult:
    """Twelve ragged rows, unless others are given; writes folder/weights and folder/curve.jsonl."""
    return train_checkpoint(
        model_path=model,
        family=family_of(json.loads((model / "config.json").read_text())),
        method=method,
        mix=mix_of(rows or ragged_rows(12)),
        config=config,
        seed=seed,
        paths=TrainPaths(folder / "weights", folder / "curve.jsonl", folder / "scratch"),
        on_step=on_step,
    )


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """What `train` wrote."""
    return load_file(folder / "weights" / "model.safetensors")


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    """Bit for bit."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
