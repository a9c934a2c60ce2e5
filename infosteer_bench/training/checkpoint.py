"""From a resolved model, a method and a tokenised mix to a checkpoint folder.

    result = train_checkpoint(model_path=..., family=..., method=..., mix=..., config=..., seed=0, paths=...)

The weights go to a temporary folder that is renamed when complete, so a killed run leaves no half checkpoint. Float32
master weights throughout; `precision=bf16` adds autocast (docs/method.md: in pure bf16, 43 % of N(0, 0.02) weights do
not move under a 5e-5 update). Settings of Accelerate (FSDP, DeepSpeed) apply as launched.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infosteer_bench.device import peak_memory_bytes, reset_peak_memory
from infosteer_bench.errors import CellFailure
from infosteer_bench.grid import TrainConfig
from infosteer_bench.methods.base import Method
from infosteer_bench.records import sync_folder
from infosteer_bench.training.recipe import accumulation_per_rank, recipe_warnings
from infosteer_bench.training.steps import last_step, restore_curve

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from infosteer_bench.data.mixes import TokenizedMix
    from infosteer_bench.models.families import Family
    from infosteer_bench.training.trainer import MethodTrainer

TOKENIZER_FILES = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json"),
    *("merges.txt", "tokenizer.model", "chat_template.jinja", "generation_config.json"),
)


@dataclass(frozen=True)
class TrainPaths:
    """weights: folder of the finished checkpoint; curve: JSONL; scratch: step checkpoints while training."""

    weights: Path
    curve: Path
    scratch: Path


@dataclass(frozen=True)
class TrainResult:
    """What a checkpoint cost. Times in seconds, memory in bytes (the device's peak; on CPU the process's)."""

    steps: int
    rows: int
    tokens: int
    label_tokens: int
    loss_final: float | None
    time_s: float
    step_time_s: float
    peak_memory_bytes: int | None
    device: str
    world_size: int
    resumed_from_step: int | None = None  # then tokens, times and memory are of the part after it
    warnings: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for the record."""
        return asdict(self)


def train_checkpoint(
    *,
    model_path: Path,
    family: Family,
    method: Method,
    mix: TokenizedMix,
    config: TrainConfig,
    seed: int,
    paths: TrainPaths,
    on_step: Callable[[int, int], None] | None = None,
    on_problem: Callable[[str], None] | None = None,
) -> TrainResult:
    """Fine-tune once and write the checkpoint. Raises CellFailure where training itself goes wrong.

    on_step: called with (step, steps in all). on_problem: told of step checkpoints that could not be believed.
    """
    import torch

    from infosteer_bench.models.load import load_model, load_tokenizer
    from infosteer_bench.training.adapter import with_adapter

    model = load_model(model_path, dtype="float32")
    tokenizer = load_tokenizer(model_path)
    # Trainer and TRL write these two into the model's config; the export shall differ from the base in weights only
    kept = {name: getattr(model.config, name, None) for name in ("use_cache", "pad_token_id")}
    model = method.prepare(with_adapter(model, config, seed=seed), family)
    trainer = build_trainer(
        model, tokenizer, method=method, mix=mix, config=config, seed=seed, paths=paths, on_step=on_step
    )
    resume = _resumed(trainer, config, paths, on_problem)
    reset_peak_memory()
    started = time.perf_counter()
    with method.attach(model, family):
        output = trainer.train(resume_from_checkpoint=str(paths.scratch / f"checkpoint-{resume}") if resume else None)
    elapsed = time.perf_counter() - started
    peak = peak_memory_bytes()
    for name, value in kept.items():
        setattr(model.config, name, value)
    export(trainer, method, paths.weights, source=model_path, dtype=getattr(torch, config.export_dtype))
    if trainer.accelerator.is_main_process:
        shutil.rmtree(paths.scratch, ignore_errors=True)
    steps = trainer.state.global_step
    return TrainResult(
        steps=steps,
        rows=mix.n_rows,
        tokens=trainer.tokens_seen * trainer.accelerator.num_processes,
        label_tokens=mix.n_label_tokens,
        loss_final=_last_loss(trainer),
        time_s=round(elapsed, 3),
        step_time_s=round(output.metrics["train_runtime"] / max(steps - (resume or 0), 1), 4),
        peak_memory_bytes=peak,
        device=str(trainer.accelerator.device),
        world_size=trainer.accelerator.num_processes,
        resumed_from_step=resume,
        warnings=recipe_warnings(mix.n_rows, config),
    )


def _resumed(
    trainer: MethodTrainer, config: TrainConfig, paths: TrainPaths, on_problem: Callable[[str], None] | None
) -> int | None:
    """The step to go on from, the same in every rank: the first one looks, repairs and says."""
    from accelerate.utils import broadcast_object_list

    found: list[Any] = [None]
    if trainer.accelerator.is_main_process:
        found = [last_step(paths.scratch, on_problem) if config.save_steps else None]
        restore_curve(paths.curve, paths.scratch, found[0])
    return broadcast_object_list(found)[0]


def build_trainer(
    model: PreTrainedModel,
    tokenizer: Any,
    *,
    method: Method,
    mix: TokenizedMix,
    config: TrainConfig,
    seed: int,
    paths: TrainPaths,
    on_step: Callable[[int, int], None] | None = None,
) -> MethodTrainer:
    """The trainer with the recipe of `config`; rows come tokenised, so TRL neither renders nor cuts."""
    import torch
    from datasets import Dataset
    from transformers.trainer_callback import PrinterCallback, ProgressCallback
    from trl.trainer.sft_config import SFTConfig

    from infosteer_bench.training.adapter import refuse_sharded_adapter
    from infosteer_bench.training.trainer import MethodTrainer, Watch

    rows = mix.rows
    if not config.completion_only:
        rows = [{"input_ids": row["input_ids"], "labels": list(row["input_ids"])} for row in rows]
    arguments = SFTConfig(
        output_dir=str(paths.scratch),
        num_train_epochs=config.epochs,
        max_steps=config.max_steps or -1,
        learning_rate=config.learning_rate,
        warmup_steps=config.warmup_steps,
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        lr_scheduler_type=config.lr_scheduler,
        optim=config.optimizer,
        per_device_train_batch_size=config.batch_size,
        gradient_accumulation_steps=accumulation_per_rank(config, int(os.environ.get("WORLD_SIZE", "1"))),
        **_checkpointing(SFTConfig, config.gradient_checkpointing),
        bf16=config.precision == "bf16",
        fp16=False,
        use_cpu=not torch.cuda.is_available(),
        seed=seed,
        data_seed=seed,
        max_length=None,
        packing=False,
        completion_only_loss=False,  # the labels column says it already
        dataset_kwargs={"skip_prepare_dataset": True},
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="steps" if config.save_steps else "no",
        save_steps=config.save_steps or 500,
        report_to=list(config.report_to) or "none",
        disable_tqdm=True,
        average_tokens_across_devices=True,
        ddp_find_unused_parameters=False,
        dataloader_pin_memory=torch.cuda.is_available(),
    )
    if arguments.n_gpu > 1:
        # several visible GPUs without a launcher: one is used; DataParallel would change the batch
        arguments._n_gpu = 1
    trainer = MethodTrainer(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        callbacks=[Watch(on_step)],
        method=method,
        curve_path=paths.curve,
        entropy_every=config.entropy_every,
    )
    refuse_sharded_adapter(trainer, config)
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    return trainer


def _checkpointing(arguments: type, wanted: bool) -> dict[str, Any]:
    """Gradient checkpointing by the name that this transformers has for it: newer ones warn of the older name.

    Reentrant checkpointing would run the first forward without a graph and lose the penalty's gradient.
    """
    kind = "activation" if hasattr(arguments, "activation_checkpointing") else "gradient"
    return {f"{kind}_checkpointing": wanted, f"{kind}_checkpointing_kwargs": {"use_reentrant": False}}


def export(trainer: MethodTrainer, method: Method, target: Path, *, source: Path, dtype: Any) -> None:
    """Write the trained weights in `dtype` with the base model's own tokenizer files, whole or not at all."""
    from accelerate.utils import DistributedType

    from infosteer_bench.training.adapter import merged

    accelerator = trainer.accelerator
    model = merged(accelerator.unwrap_model(trainer.model))
    sharded = accelerator.distributed_type in (DistributedType.FSDP, DistributedType.DEEPSPEED)
    options: dict[str, Any] = {}
    if sharded:
        state: dict[str, Any] = accelerator.get_state_dict(trainer.model_wrapped) or {}
        options["state_dict"] = {name: tensor.to(dtype) for name, tensor in state.items()}
    else:
        model.to(dtype)
    if not accelerator.is_main_process:
        accelerator.wait_for_everyone()
        return
    partial = target.with_name(target.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    method.export(model, partial, **options)
    config_file = partial / "config.json"
    config = json.loads(config_file.read_text(encoding="utf-8"))
    config_file.write_text(
        json.dumps({**config, "dtype": str(dtype).removeprefix("torch.")}, indent=2) + "\n", encoding="utf-8"
    )
    for name in TOKENIZER_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, partial / name)
    if not list(partial.glob("*.safetensors")):
        raise CellFailure(f"{method.name} exported no safetensors file")
    for file in partial.iterdir():
        with file.open("rb") as handle:
            os.fsync(handle.fileno())
    sync_folder(partial)
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)
    sync_folder(target.parent)
    accelerator.wait_for_everyone()


def _last_loss(trainer: MethodTrainer) -> float | None:
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return round(float(losses[-1]), 6) if losses else None
