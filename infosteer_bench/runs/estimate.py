"""What a plan will cost before it is run: operations, hours, disk and memory, and what would not fit.

    cost = estimate(plan, found)          # what is still to do
    cost.hours(throughput)                # at so many FLOP/s, see `measured_throughput` and `machine_throughput`

Operations are counted as is usual for transformers (Kaplan et al. 2020, section 2.1; P parameters, T tokens): 2PT for a
forward pass, 6PT for a training step, 8PT where gradient checkpointing runs the forward pass twice. Tokens are taken
as characters / CHARACTERS_PER_TOKEN, since counting them would need every tokenizer; answers as if each were of
`eval.max_new_tokens`, so what is said of answering is an upper bound.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infosteer_bench.benchmark import TASKS
from infosteer_bench.device import has_cuda
from infosteer_bench.evaluation.engine import BYTES
from infosteer_bench.records import CheckpointRecord
from infosteer_bench.runs.plan import Plan, PlannedCheckpoint
from infosteer_bench.runs.status import Status
from infosteer_bench.runs.storage import Storage
from infosteer_bench.training.recipe import training_bytes

if TYPE_CHECKING:
    from infosteer_bench.data.mixes import Mix

CHARACTERS_PER_TOKEN = 4.0
REACHED = 0.35
"""Share of the machine's matrix products that a training is taken to reach, before one has been measured."""
ASSUMED_ITEMS = 2000
"""Items of a task whose test file is not read here (a user's own)."""


@dataclass(frozen=True)
class Cost:
    """n_train: checkpoints to train. train_flop, answer_flop: operations, the latter at most. disk_bytes: checkpoints
    at once. memory_bytes: of the largest training, without activations. largest: that model's id. offload: that memory
    is the machine's, not its GPUs'."""

    n_train: int
    train_flop: float
    answer_flop: float
    trained_tokens: float
    disk_bytes: int
    memory_bytes: int
    largest: str | None
    offload: bool = False

    def hours(self, flop_per_s: float) -> tuple[float, float]:
        """(training, answering) in hours of one device."""
        return self.train_flop / flop_per_s / 3600, self.answer_flop / flop_per_s / 3600


def estimate(plan: Plan, found: Status, storage: Storage | None = None) -> Cost:
    """The cost of what is still to do. Models whose parameters nobody knows count as nothing."""
    storage = storage or Storage()
    train_flop = answer_flop = tokens = 0.0
    items = {task: _items(plan, task) for task in plan.inputs.tasks}
    per_row: dict[str, float] = {}  # by mix: counting characters is what takes the time
    sizes: dict[str, list[int]] = {}
    memory: dict[str, int] = {}
    for planned in plan.checkpoints:
        left = found.open_tasks[planned.key]
        if not left:
            continue
        parameters = planned.model.parameters or 0
        # prompts taken as long as the answers may be
        answer_flop += 2 * parameters * sum(items[task] for task in left) * 2 * plan.grid.eval.max_new_tokens
        if planned.method.trains and planned.key not in found.records:
            assert planned.mix is not None
            if planned.mix.digest not in per_row:
                per_row[planned.mix.digest] = tokens_per_row(planned.mix)
            trained = trained_tokens(plan, planned, per_row[planned.mix.digest])
            tokens += trained
            train_flop += _step_factor(plan) * parameters * trained
            sizes.setdefault(planned.model.id, []).append(parameters * BYTES[plan.grid.train.export_dtype])
            memory[planned.model.id] = training_bytes(plan.grid.train, parameters)
    largest = max(memory, key=lambda name: memory[name], default=None)
    return Cost(
        n_train=sum(map(len, sizes.values())),
        train_flop=train_flop,
        answer_flop=answer_flop,
        trained_tokens=tokens,
        disk_bytes=_disk(sizes.values(), storage),
        memory_bytes=memory[largest] if largest else 0,
        largest=largest,
        offload=plan.grid.train.offload,
    )


def tokens_per_row(mix: Mix) -> float:
    """Mean tokens of a row, its end included, as far as characters tell."""
    characters = sum(len(row.prompt) + len(row.completion) for row in mix.rows)
    return characters / max(1, len(mix.rows)) / CHARACTERS_PER_TOKEN + 1


def trained_tokens(plan: Plan, planned: PlannedCheckpoint, per_row: float) -> float:
    """Tokens that a checkpoint's training sees: rows of its mix as far as they are trained on, over all epochs."""
    train, mix = plan.grid.train, planned.mix
    assert mix is not None
    rows = train.epochs * len(mix.rows)
    if train.max_steps is not None:
        rows = min(rows, train.max_steps * train.batch_size * train.gradient_accumulation)
    return rows * min(train.max_length, per_row)


def _step_factor(plan: Plan) -> int:
    return 8 if plan.grid.train.gradient_checkpointing else 6


def _items(plan: Plan, task: str) -> int:
    """Items of a task that will be asked."""
    file, limit = plan.inputs.test_files.get(task), plan.grid.eval.limit
    known = TASKS[task].test_items if task in TASKS else ASSUMED_ITEMS
    total = len(json.loads(file.path.read_text(encoding="utf-8"))) if file else known
    return min(total, limit or total)


def _disk(sizes: Iterable[list[int]], storage: Storage) -> int:
    """Bytes of checkpoints that lie there at once: of all models if they are kept, else of the worst single one."""
    if storage.keep:
        return sum(sum(size) for size in sizes)
    return max((sum(size[: storage.most]) for size in sizes), default=0)


def measured_throughput(plan: Plan, records: dict[str, CheckpointRecord]) -> float | None:
    """FLOP/s that trainings of this plan reached, by their records; None before the first."""
    flop = seconds = 0.0
    for planned in plan.checkpoints:
        record = records.get(planned.key)
        if record is not None and planned.method.trains and record.training.get("time_s"):
            flop += _step_factor(plan) * (planned.model.parameters or 0) * record.training["tokens"]
            seconds += record.training["time_s"]
    return flop / seconds if seconds and flop else None


def machine_throughput(dtype: str = "float32", *, size: int = 1024, seconds: float = 0.5) -> float:
    """FLOP/s of large matrix products on this machine's first GPU, or its CPU; trainings reach a part of it."""
    product, size = _gpu_product(dtype) if has_cuda() else _cpu_product(size)
    product()
    begun, count = time.perf_counter(), 0
    while time.perf_counter() - begun < seconds:
        product()
        count += 1
    return 2 * size**3 * count / (time.perf_counter() - begun)


def _cpu_product(size: int) -> tuple[Callable[[], Any], int]:
    """By numpy, which planning can afford to import."""
    import numpy as np

    a = np.random.default_rng(0).standard_normal((size, size), dtype=np.float32)
    return lambda: a @ a, size


def _gpu_product(dtype: str) -> tuple[Callable[[], Any], int]:
    import torch

    size = 8192
    kind = torch.bfloat16 if dtype in ("bf16", "bfloat16") else torch.float32
    a = torch.randn(size, size, device="cuda", dtype=kind)

    def product() -> None:
        torch.matmul(a, a)
        torch.cuda.synchronize()

    return product, size


def room(run_dir: Path) -> dict[str, int]:
    """Free bytes: disk where the run will lie, memory of this machine, memory of its GPUs together (0 without one)."""
    import psutil

    place = run_dir
    while not place.exists():
        place = place.parent
    found = {"disk": shutil.disk_usage(place).free, "memory": psutil.virtual_memory().available, "gpu": 0}
    if has_cuda():
        import torch

        found["gpu"] = sum(torch.cuda.mem_get_info(gpu)[0] for gpu in range(torch.cuda.device_count()))
    return found


def would_not_fit(cost: Cost, free: dict[str, Any]) -> list[str]:
    """What the plan needs beyond what is there, one line each, with the fix."""
    lines = []
    if cost.disk_bytes > free["disk"]:
        lines.append(
            f"checkpoints need {cost.disk_bytes / 1e9:.1f} GB of disk at once, {free['disk'] / 1e9:.1f} GB are free: "
            "--max-checkpoints-on-disk N, or another --output"
        )
    where = "gpu" if free["gpu"] and not cost.offload else "memory"
    if cost.memory_bytes > free[where]:
        kind = "GPU memory" if where == "gpu" else "memory"
        lines.append(
            f"training {cost.largest} needs {cost.memory_bytes / 1e9:.1f} GB of {kind} before activations, "
            f"{free[where] / 1e9:.1f} GB are free: --set train.optimizer=adamw_torch_8bit, --set train.adapter=lora, "
            + ("--set train.offload=true, or more GPUs" if where == "gpu" else "or a smaller model")
        )
    return lines
