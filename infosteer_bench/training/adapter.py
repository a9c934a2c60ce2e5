"""Adapters by PEFT: wrapped around the model before the method prepares it, merged into its weights on export.

A tap on a wrapped `down_proj` sees the same input, so every method works under an adapter as it does without.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from infosteer_bench.errors import UserError
from infosteer_bench.grid import TrainConfig

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def with_adapter(model: PreTrainedModel, config: TrainConfig, *, seed: int) -> Any:
    """The model as it is, or with LoRA as `config.lora` says; the adapter's first values depend on `seed` alone.

    Raises UserError if `config.lora.targets` names no module of the model.
    """
    if config.adapter is None:
        return model
    from peft import LoraConfig, TaskType, get_peft_model

    lora = config.lora
    settings = LoraConfig(
        task_type=TaskType.CAUSAL_LM,
        r=lora.rank,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]  # PEFT's annotation says int, and divides
        lora_dropout=lora.dropout,
        target_modules=lora.targets if isinstance(lora.targets, str) else list(lora.targets),
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        try:
            return get_peft_model(model, settings)
        except ValueError as error:
            raise UserError(f"train.lora.targets={lora.targets}: {str(error).splitlines()[0]}") from None


def merged(model: Any) -> Any:
    """The plain model with the adapter's update added to its weights; a model without an adapter as it is."""
    return model.merge_and_unload() if hasattr(model, "merge_and_unload") else model


def refuse_sharded_adapter(trainer: Any, config: TrainConfig) -> None:
    """Raises UserError for an adapter under FSDP or DeepSpeed: its weights are in pieces where they would be merged."""
    from accelerate.utils import DistributedType

    if config.adapter and trainer.accelerator.distributed_type in (DistributedType.FSDP, DistributedType.DEEPSPEED):
        raise UserError(
            f"train.adapter={config.adapter} cannot be merged under {trainer.accelerator.distributed_type.value}",
            hint="launch it with plain data parallelism (an adapter needs little memory), or leave the adapter off",
        )
