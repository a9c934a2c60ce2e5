"""The trainer: TRL's SFTTrainer plus what every method needs, and no method by name.

What it adds, each in one place:

- the penalty's normalisation. A method gives a *sum* over the counted tokens of a micro-batch; it is divided by
  the counted tokens of the whole optimizer batch (all micro-batches, all ranks), like the language-model loss is by
  its label tokens. The Trainer then does not divide by the accumulation steps, and DDP averages over ranks, so the
  term is multiplied by the number of ranks, as TRL does with the loss. A term merely added would act with 1, 4, 16
  times its weight at accumulation 1, 4, 16 (docs/method.md, "Trap, measured").
- the curve: one JSON line per optimizer step (loss, its parts, gradient norm, key entropy).
- refusals: a batch with no counted token, a hook that fails, and a loss or gradient that is not finite stop the
  checkpoint before that step changes a weight, and name the step and the layer (`faults`).
"""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from trl.trainer.sft_trainer import SFTTrainer

from infosteer_bench.errors import CellFailure
from infosteer_bench.memory.entropy import key_entropy
from infosteer_bench.memory.tap import Tap, TapError, token_mean
from infosteer_bench.methods.base import Method
from infosteer_bench.models.families import decoder, ffn_layers
from infosteer_bench.training.faults import first_fault
from infosteer_bench.training.steps import keep_newest


class MethodTrainer(SFTTrainer):
    """SFTTrainer that trains under a `Method`.

    method: attached by the caller around `train()`.
    curve_path: JSONL file that gets one line per optimizer step, on rank 0.
    entropy_every: measure the mean key entropy (nats, all layers, tokens that are not padding, first micro-batch)
        every so many steps; None never. Measuring reads under no_grad and changes no weight.
    """

    def __init__(
        self,
        *args: Any,
        method: Method,
        curve_path: Path | None = None,
        entropy_every: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.method, self.curve_path, self.entropy_every = method, curve_path, entropy_every
        self.tokens_seen = 0
        self._counted: int | None = None
        self._micro = 0
        self._latest: Any = None
        self._step_sums: dict[str, float] = {}
        self._entropy_due = False

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> tuple[list[Any], Any]:
        """The micro-batches of one optimizer step; counts here what the penalty is divided by."""
        batches, num_items = super().get_batch_samples(*args, **kwargs)
        if batches:
            counts = torch.stack([self.method.token_mask(batch).sum() for batch in batches]).sum()
            counts = counts.to(self.accelerator.device)
            counted = int(self.accelerator.gather(counts.reshape(1)).sum())  # pyright: ignore
            if counted == 0 or num_items is None or int(num_items) == 0:
                raise CellFailure(f"step {self.state.global_step + 1}: the batch holds no counted token")
            self._counted, self._micro = counted, 0
            self.tokens_seen += sum(int(batch["attention_mask"].sum()) for batch in batches)
            self._step_sums = {"loss_lm": 0.0, "penalty": 0.0}
            self._entropy_due = bool(self.entropy_every) and self.state.global_step % (self.entropy_every or 1) == 0
        return batches, num_items

    def compute_loss(
        self, model: nn.Module, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Language-model loss plus the method's penalty, both in the Trainer's own scale."""
        if return_outputs or not model.training:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        mask = self.method.token_mask(inputs)
        self.method.before_forward(mask, draw=self._draw())
        self._micro, self._latest = self._micro + 1, inputs
        if self._entropy_due:
            self._entropy_due = False
            loss = self._measured_loss(model, inputs, num_items_in_batch)
        else:
            loss = super().compute_loss(model, inputs, num_items_in_batch=num_items_in_batch)
        penalty = self.method.penalty(inputs, mask)
        total = loss
        if penalty is not None:
            assert self._counted is not None
            penalty = penalty / self._counted * self.accelerator.num_processes
            self._step_sums["penalty"] += float(penalty.detach())
            total = loss + penalty.to(loss.dtype)
        self._step_sums["loss_lm"] += float(loss.detach())
        if not torch.isfinite(total.detach()):
            raise self._fault(
                f"the loss is not finite (language model {float(loss.detach())}, penalty {self._step_sums['penalty']})"
            )
        return total

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        """Forward and backward of one micro-batch. Raises CellFailure where a hook fails in either."""
        try:
            return super().training_step(*args, **kwargs)
        except TapError as error:
            raise CellFailure(f"step {self.state.global_step + 1}: {error}") from error

    def _get_grad_norm(self, *args: Any, **kwargs: Any) -> Any:
        """The gradient norm, asked for right before the optimizer's step: the place to refuse that step."""
        norm = super()._get_grad_norm(*args, **kwargs)
        if norm is not None and not math.isfinite(norm):
            raise self._fault(f"the gradient norm is {norm}")
        return norm

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        """Write a step checkpoint as transformers does, then seal it, and only then let go of the one before."""
        super()._save_checkpoint(*args, **kwargs)
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            keep_newest(Path(cast(str, self.args.output_dir)), self.state.global_step, self.curve_path)

    def _draw(self) -> int:
        """See `Method.before_forward`; ranks draw apart."""
        place = f"{self.args.seed}/{self.state.global_step}/{self.accelerator.process_index}/{self._micro}"
        return int.from_bytes(hashlib.sha256(place.encode()).digest()[:8], "big") >> 1

    def _fault(self, what: str) -> CellFailure:
        where = first_fault(cast(nn.Module, self.model), self._latest)
        return CellFailure(f"step {self.state.global_step + 1}: {what}; {where}")

    def _measured_loss(self, model: nn.Module, inputs: Any, num_items_in_batch: Any) -> Tensor:
        """The loss of one micro-batch with a monitor on every layer's key coefficients."""

        def read(k: Tensor, layer: int) -> Tensor:  # noqa: ARG001
            return key_entropy(k.detach())

        layers = dict(enumerate(ffn_layers(model)))
        with Tap(root=decoder(model), layers=layers, read=read, first=True) as tap:
            loss = super().compute_loss(model, inputs, num_items_in_batch=num_items_in_batch)
            mask = inputs["attention_mask"].bool()
            means = [token_mean(reading, mask) for reading in tap.take().values()]
        self._step_sums["key_entropy_nats"] = float(torch.stack(means).mean())
        return loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add this step's line to the curve, then log as usual (and to every tracker in `report_to`)."""
        if "loss" in logs:
            names = sorted(self._step_sums)
            values = torch.tensor([self._step_sums[name] for name in names], device=self.accelerator.device)
            values = self.accelerator.reduce(values, reduction="mean")
            logs.update(zip(names, values.tolist(), strict=True))  # pyright: ignore
            if self.curve_path is not None and self.accelerator.is_main_process:
                line = {"step": self.state.global_step, **{k: v for k, v in logs.items() if k in _CURVE}}
                with self.curve_path.open("a", encoding="utf-8") as out:
                    out.write(json.dumps(line) + "\n")
        super().log(logs, start_time)


_CURVE = ("loss", "loss_lm", "penalty", "grad_norm", "learning_rate", "key_entropy_nats")


# ruff: noqa: ARG002 - the callbacks' signatures are transformers'
class Watch(TrainerCallback):
    """Reports progress."""

    def __init__(self, on_step: Any = None) -> None:
        self.on_step = on_step
        self.last_loss: float | None = None

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Any = None, **kwargs: Any
    ) -> None:
        """Called after every optimizer step (logging_steps = 1)."""
        if "loss" in (logs or {}):
            self.last_loss = float(logs["loss"])

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Tell the caller where training is: step, steps in all."""
        if self.on_step is not None:
            self.on_step(state.global_step, state.max_steps)
