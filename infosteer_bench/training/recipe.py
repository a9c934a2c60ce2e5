"""Arithmetic of a training recipe: steps, batches, memory. Imports nothing heavy, so that plans can use it."""

from __future__ import annotations

import math

from infosteer_bench.errors import UserError
from infosteer_bench.grid import TrainConfig

OPTIMIZER_PACKAGES = {"adamw_8bit": "bitsandbytes", "paged_adamw_8bit": "bitsandbytes", "adamw_torch_8bit": "torchao"}
"""What must be installed for them besides our own requirements."""


def training_bytes(config: TrainConfig, parameters: int) -> int:
    """Memory of weights, gradients and optimizer of all ranks together, without activations.

    Per parameter: float32 weight and gradient, and AdamW's two moments, in one byte each for an 8-bit optimizer. With
    an adapter the frozen weights alone (it is small).
    """
    if config.adapter:
        return 4 * parameters
    moments = 2 if "8bit" in config.optimizer else {"sgd": 0, "adafactor": 0}.get(config.optimizer, 8)
    return (4 + 4 + moments) * parameters


def planned_steps(n_rows: int, config: TrainConfig) -> int:
    """Optimizer steps that `config` takes over `n_rows` rows."""
    per_step = config.batch_size * config.gradient_accumulation
    return config.max_steps or math.ceil(math.ceil(n_rows / per_step) * config.epochs)


def accumulation_per_rank(config: TrainConfig, world_size: int) -> int:
    """Micro-batches per optimizer step and rank, such that the optimizer's batch is the same on any number of ranks:
    the batch is part of a checkpoint's identity, the number of ranks is not.

    Raises UserError where the accumulation does not divide.
    """
    if config.gradient_accumulation % world_size:
        raise UserError(
            f"gradient_accumulation {config.gradient_accumulation} does not divide among {world_size} ranks",
            hint="start a number of ranks that divides it, or change train.gradient_accumulation for every run",
        )
    return config.gradient_accumulation // world_size


def recipe_warnings(n_rows: int, config: TrainConfig) -> list[str]:
    """What is odd about the recipe for a mix of this size."""
    steps = planned_steps(n_rows, config)
    if config.warmup_steps > 0.2 * steps:
        return [f"warm-up takes {config.warmup_steps} of {steps} steps (more than 20 %)"]
    return []
