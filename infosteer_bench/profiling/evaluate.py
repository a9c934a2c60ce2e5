"""`profile eval`: what evaluating many checkpoints of one architecture costs beside generating.

Two ways, one after the other in one process, on the same variants of a model and the same items:

- live: one engine, weights swapped per checkpoint, tasks built once;
- fresh: for each checkpoint an engine of its own and the tasks anew, as evaluators do that start one per checkpoint.
  (Imports are shared here, which a process per checkpoint would pay too: the comparison favours `fresh`.)

A checkpoint's time is split into loading (start or swap, verified), generating (the engine at work on requests), other
(lm-eval's requests, tokenising, filters, scores) and closing (the live engine's counts for the first checkpoint, as its
start does). Overhead is all but generating.
"""

from __future__ import annotations

import os
import platform
import shutil
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from infosteer_bench.device import has_cuda
from infosteer_bench.evaluation.engine import Engine, make_engine
from infosteer_bench.evaluation.evaluate import EvalSettings, TaskResult, evaluate_tasks
from infosteer_bench.models.load import weight_digest
from infosteer_bench.models.weights import weight_files
from infosteer_bench.tasks.catalog import TaskInfo

NOISE = 0.02
"""Relative size of the noise that tells one variant from the next: enough for other answers."""


def make_variant(model: Path, target: Path, *, seed: int) -> Path:
    """A copy of a checkpoint, every weight times 1 + NOISE * N(0, 1): stands in for another fine-tuning of it."""
    shutil.copytree(model, target)
    generator = torch.Generator().manual_seed(seed)
    for file in weight_files(target):
        tensors = load_file(file)
        for name, tensor in tensors.items():
            noise = torch.randn(tensor.shape, generator=generator)
            tensors[name] = (tensor * (1 + NOISE * noise)).to(tensor.dtype).contiguous()
        save_file(tensors, file, metadata={"format": "pt"})
    return target


def profile_eval(
    variants: list[Path],
    infos: Mapping[str, TaskInfo],
    asking: EvalSettings,
    *,
    backend: str,
    on_progress: Callable[[str], None],
) -> dict[str, Any]:
    """Measure both ways; returns what `--json` writes.

    Raises CellFailure if an engine fails, and what keeps a task from a result.
    """
    live: list[dict[str, float]] = []
    fresh: list[dict[str, float]] = []
    results: list[dict[str, TaskResult]] = []
    engine, built = make_engine(backend, eval_config=asking.eval_config), {}
    try:
        for place, path in enumerate(variants):
            on_progress(f"live engine, checkpoint {place + 1} of {len(variants)}")
            measured, result = _one(engine, path, infos, asking, built)
            live.append(measured)
            results.append(result)
    finally:
        closing = _seconds(engine.close)
    live[0]["close_s"] = closing  # like its start, once for all
    starts, swaps = engine.engine_starts, engine.engine_swaps
    same, total = 0, 0
    for place, path in enumerate(variants):
        on_progress(f"fresh engine, checkpoint {place + 1} of {len(variants)}")
        engine = make_engine(backend, eval_config=asking.eval_config)
        try:
            measured, result = _one(engine, path, infos, asking, {})
        finally:
            closing = _seconds(engine.close)
        fresh.append({**measured, "close_s": closing})
        pairs = [(a, b) for name in infos for a, b in zip(results[place][name].rows, result[name].rows, strict=True)]
        same += sum(a == b for a, b in pairs)
        total += len(pairs)
    return {
        "setting": {
            "backend": backend,
            "dtype": asking.eval_config.dtype,
            "checkpoints": len(variants),
            "tasks": list(infos),
            "limit": asking.eval_config.limit,
            "max_new_tokens": asking.eval_config.max_new_tokens,
        },
        "device": torch.cuda.get_device_name() if has_cuda() else f"{platform.machine()}, {os.cpu_count()} cores",
        "engine_starts": starts,
        "engine_swaps": swaps,
        "live": _way(live),
        "fresh": _way(fresh),
        "ratio": round(_total(fresh) / _total(live), 3),
        "items": total,
        "same_items": same,
        "different_answers_between_checkpoints": _distinct(results),
    }


def _one(
    engine: Engine, path: Path, infos: Mapping[str, TaskInfo], asking: EvalSettings, built: dict[str, Any]
) -> tuple[dict[str, float], dict[str, TaskResult]]:
    begun = time.perf_counter()
    engine.load(path, weight_digest=weight_digest(path), runtime=None)
    loaded = time.perf_counter()
    results: dict[str, TaskResult] = {}
    for name, result in evaluate_tasks(engine.lm, infos, asking, built=built).items():
        if isinstance(result, Exception):
            raise result
        results[name] = result
    answered = time.perf_counter() - loaded
    generating = sum(result.time_s for result in results.values())
    measured = {
        "load_s": loaded - begun,
        "generate_s": generating,
        "other_s": answered - generating,
        "close_s": 0.0,
        "output_tokens": float(sum(result.generated_tokens for result in results.values())),
    }
    return measured, results


def _way(measured: list[dict[str, float]]) -> dict[str, Any]:
    further = measured[1:] or measured
    overheads = [_overhead(one) for one in further]
    return {
        "per_checkpoint": [{name: round(value, 4) for name, value in one.items()} for one in measured],
        "first_overhead_s": round(_overhead(measured[0]), 3),
        "further_overhead_s": {"mean": round(statistics.mean(overheads), 3), "max": round(max(overheads), 3)},
        "total_s": round(_total(measured), 3),
        "checkpoints_per_hour": round(3600 * len(measured) / _total(measured), 1),
        "output_tokens_per_s": round(
            sum(one["output_tokens"] for one in measured) / sum(one["generate_s"] for one in measured), 1
        ),
    }


def _overhead(one: dict[str, float]) -> float:
    return one["load_s"] + one["other_s"] + one["close_s"]


def _total(measured: list[dict[str, float]]) -> float:
    return sum(_overhead(one) + one["generate_s"] for one in measured)


def _distinct(results: list[dict[str, TaskResult]]) -> int:
    """Items that the variants do not all answer alike: without any, a swap that does nothing would go unseen."""
    texts = [[row["generation"] for result in one.values() for row in result.rows] for one in results]
    return sum(len(set(answers)) > 1 for answers in zip(*texts, strict=True))


def _seconds(action: Callable[[], None]) -> float:
    begun = time.perf_counter()
    action()
    return time.perf_counter() - begun
