"""Who works where: how many workers, on which GPUs or on how many threads, and which checkpoints go together.

Small models gain little from a second thread (their matrices are too small), and nearly everything from a second
process. They run on one thread however many workers there are, as sums over several threads end in other digits
(measured on mini-gemma2): the board is the same, byte for byte, for any number of workers. Larger models share the
cores among the workers, and their last digits may depend on how many there are.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from infosteer_bench.device import gpu_bytes, visible_gpus
from infosteer_bench.errors import UserError
from infosteer_bench.evaluation.engine import tensor_parallel
from infosteer_bench.runs.runner import Job, Slots
from infosteer_bench.training.recipe import OPTIMIZER_PACKAGES, accumulation_per_rank, training_bytes

if TYPE_CHECKING:
    from infosteer_bench.grid import TrainConfig
    from infosteer_bench.models.load import ResolvedModel
    from infosteer_bench.runs.plan import Plan
    from infosteer_bench.runs.status import Status

SMALL_PARAMETERS = 10_000_000
"""Models below are trained as fast by one thread as by two, within a fifth (measured on 1.7 million: 15 s and 11 s)."""
_FILLED = 0.8
"""Share of a GPU that weights, gradients and optimizer may fill; activations need the rest."""
MOST_WORKERS = 8
"""By default; each holds the libraries and a model, about 1 GB."""


def gpus_for(plan: Plan, model: ResolvedModel, slots: Slots | None = None) -> int:
    """How many GPUs a worker needs for this model, to train or to answer; 1 also where there is none.

    slots: what there is; None: this machine's. Raises UserError as `ranks` does, and for more to answer than there are.
    """
    answering = 1
    if plan.inputs.engine == "vllm":
        gpus, each = _gpus(slots)
        answering = tensor_parallel(plan.grid.eval, model.parameters or 0, gpus=gpus, gpu_bytes=each)
        if gpus and answering > gpus:
            raise UserError(f"eval.tensor_parallel={answering}: {gpus} GPU(s) are visible")
    return max(ranks(plan, model, slots), answering)


def _gpus(slots: Slots | None) -> tuple[int, int]:
    """How many GPUs there are, and how much memory each has."""
    if slots is None:
        return len(visible_gpus()), gpu_bytes()
    return len(slots.gpus), gpu_bytes() if slots.gpu_bytes is None else slots.gpu_bytes


def ranks(plan: Plan, model: ResolvedModel, slots: Slots | None = None) -> int:
    """How many processes train a checkpoint of this model together, each on a GPU of its own.

    As `train.ranks` says, or as many GPUs as weights, gradients and optimizer fill, within what is visible and what
    divides the gradient accumulation (the optimizer's batch is part of a checkpoint's identity).
    Raises UserError for more than there are GPUs, a number that does not divide, or what cannot be trained in
    pieces. slots: as in `gpus_for`.
    """
    train, (gpus, each) = plan.grid.train, _gpus(slots)
    if train.ranks is not None:
        if gpus and train.ranks > gpus:
            raise UserError(f"train.ranks={train.ranks}: {gpus} GPU(s) are visible, and each rank needs its own")
        accumulation_per_rank(train, train.ranks)
        number = train.ranks
    elif not gpus or train.offload or train.adapter:
        number = 1
    else:
        needed = training_bytes(train, model.parameters or 0) / (_FILLED * each)
        divisors = [n for n in range(1, gpus + 1) if train.gradient_accumulation % n == 0]
        number = next((n for n in divisors if n >= needed), divisors[-1])
    if number > 1 or train.offload:
        _refuse_pieces(train, model)
    return number


def _refuse_pieces(train: TrainConfig, model: ResolvedModel) -> None:
    """Raise UserError for what cannot be trained in pieces: PEFT's merge and bitsandbytes' optimizers want it whole."""
    if train.adapter:
        raise UserError(
            f"train.adapter={train.adapter} is trained by one process that holds the whole model",
            hint="leave out train.ranks and train.offload, or train without an adapter",
        )
    if OPTIMIZER_PACKAGES.get(train.optimizer) == "bitsandbytes":
        raise UserError(
            f"train.optimizer={train.optimizer} updates whole weights, and {model.id} would be trained in pieces",
            hint="--set train.optimizer=adamw_torch_8bit can do both",
        )


def choose_slots(plan: Plan, asked: int | None, *, most: int | None = None) -> Slots:
    """One worker per GPU at most; without GPUs one per core where all models are small, else one.

    asked: that many instead; 0 is no worker at all, everything in this process. most: not more (checkpoints on disk).
    Raises UserError for more than there are GPUs, or than can have an engine each.
    """
    gpus = visible_gpus()
    limit, why = (1, "engine vllm takes the whole CPU") if plan.inputs.engine != "hf" else (None, "")
    if gpus:
        limit, why = len(gpus), f"{len(gpus)} GPU(s) are visible, and each serves one worker"
    if asked is not None and limit is not None and asked > limit:
        raise UserError(f"--workers {asked}: {why}", allowed=f"0 (in this process) to {limit}")
    if asked is None:
        small = all(map(is_small, plan.inputs.models))
        asked = limit or (min(cores(), MOST_WORKERS) if small else 1)
    return Slots(asked if most is None else min(asked, most), gpus)


def jobs(plan: Plan, status: Status, slots: Slots) -> list[Job]:
    """The plan's open checkpoints as jobs, those of models that need most GPUs first, so that every slot has work.

    Together go checkpoints of one base model, trained and then answered with one engine. Small models on a CPU go
    alone: nothing is saved by an order there, and a worker is never left with the longest row.
    """
    by_gpus: dict[int, dict[str, list[str]]] = {}
    for planned in plan.checkpoints:
        if status.has_work(planned.key):
            gpus = gpus_for(plan, planned.model, slots) if slots.gpus else 0
            by_gpus.setdefault(gpus, {}).setdefault(planned.model.id, []).append(planned.key)
    found: list[Job] = []
    for gpus, groups in sorted(by_gpus.items(), reverse=True):
        room = min(slots.number, len(slots.gpus) // gpus) if gpus else slots.number
        parts = math.ceil(max(1, room) / len(groups))
        alone = not gpus and plan.inputs.engine == "hf" and slots.number > 1
        for keys in groups.values():
            size = 1 if alone else math.ceil(len(keys) / parts)
            pieces = [tuple(keys[start : start + size]) for start in range(0, len(keys), size)]
            found += [Job(piece, status.of(piece), gpus) for piece in pieces]
    return found


def at_once(work: Sequence[Job], slots: Slots) -> int:
    """How many of these jobs are worked on at the same time, at most: the small ones, as far as GPUs and slots go."""
    number, left = 0, len(slots.gpus)
    for job in sorted(work, key=lambda job: job.gpus):
        if number == slots.number or job.gpus > left:
            break
        number, left = number + 1, left - job.gpus
    return number


def is_small(model: ResolvedModel) -> bool:
    """Whether a model is known to be too small for a second thread."""
    return (model.parameters or SMALL_PARAMETERS) < SMALL_PARAMETERS


@contextmanager
def own_threads(model: ResolvedModel, workers: int = 1) -> Iterator[None]:
    """torch's threads for a model in one of `workers` processes: one if it is small, else what is left of the cores."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1 if is_small(model) else max(1, before // workers))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
