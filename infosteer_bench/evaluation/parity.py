"""Do two engines give the same answers, and does one give the same twice? Per task, item by item.

    passes = [one for backend in BACKENDS for one in ask(backend, checkpoint, infos, asking, ...)]
    report(passes)["all"]["engines"]["same_answers_percent"]

In bfloat16, sums end in other digits for another batch or kernel, and a near-tie between two tokens tips: what one
engine does to itself (A/A) is the noise against which a difference between engines has to be seen.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from infosteer_bench.evaluation.engine import make_engine
from infosteer_bench.evaluation.evaluate import EvalSettings, TaskResult, evaluate_tasks
from infosteer_bench.tasks.catalog import TaskInfo

BACKENDS = ("hf", "vllm")


@dataclass(frozen=True)
class Pass:
    """One engine's answers to all tasks. again: the second time, for A/A."""

    backend: str
    again: bool
    results: dict[str, TaskResult]


def ask(
    backend: str,
    checkpoint: Path,
    infos: Mapping[str, TaskInfo],
    asking: EvalSettings,
    *,
    weight_digest: str,
    on_progress: Callable[[str], None],
) -> list[Pass]:
    """Let a fresh engine answer everything twice, the second time in batches of half as many rows (hf).

    vllm composes its batches itself; the second time its prefix cache is warm. Nothing is looked up, nothing is kept.
    Raises CellFailure if the engine fails, and what keeps a task from a result.
    """
    config, passes = asking.eval_config, []
    engine = make_engine(backend, eval_config=config)
    try:
        for again in (False, True):
            if again and backend == "hf":
                engine.close()
                config = config.model_copy(update={"batch_size": max(1, config.batch_size // 2)})
                engine = make_engine(backend, eval_config=config)
            on_progress(f"{backend}{', the second time' if again else ''}: answering {len(infos)} tasks")
            engine.load(checkpoint, weight_digest=weight_digest, runtime=None)
            results: dict[str, TaskResult] = {}
            for name, result in evaluate_tasks(engine.lm, infos, replace(asking, eval_config=config)).items():
                if isinstance(result, Exception):
                    raise result
                results[name] = result
            passes.append(Pass(backend, again, results))
    finally:
        engine.close()
    return passes


def agreement(first: Sequence[dict[str, Any]], second: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Two passes over the same items: how many have the same extracted answers (under every filter, and the same mark
    where options are ranked by likelihood), how many the same text, and which differ."""
    differing = []
    texts = 0
    for a, b in zip(first, second, strict=True):
        assert (a["doc_id"], a["prompt_digest"]) == (b["doc_id"], b["prompt_digest"]), "another item or another prompt"
        texts += a["generation"] == b["generation"]
        if _answer(a) != _answer(b):
            differing.append({"doc_id": a["doc_id"], "first": _shown(a), "second": _shown(b)})
    return {
        "n_items": len(first),
        "same_answers": len(first) - len(differing),
        "same_texts": texts,
        "differing": differing,
    }


def report(passes: Sequence[Pass]) -> dict[str, Any]:
    """Every task's accuracy by engine, agreement between the engines' first passes, and of each engine with itself."""
    first = {one.backend: one for one in passes if not one.again}
    second = {one.backend: one for one in passes if one.again}
    tasks: dict[str, Any] = {}
    for name in next(iter(first.values())).results:
        rows = {backend: one.results[name].rows for backend, one in first.items()}
        a, b = (rows[backend] for backend in BACKENDS)
        tasks[name] = {
            "exact_match": {backend: one.results[name].exact_match for backend, one in first.items()},
            "time_s": {backend: round(one.results[name].time_s, 3) for backend, one in first.items()},
            "engines": agreement(a, b),
            "again": {backend: agreement(rows[backend], one.results[name].rows) for backend, one in second.items()},
        }
    return {"tasks": tasks, "all": _total(list(tasks.values()))}


def _total(tasks: list[dict[str, Any]]) -> dict[str, Any]:
    def add(parts: list[dict[str, Any]]) -> dict[str, float]:
        counts = {name: sum(part[name] for part in parts) for name in ("n_items", "same_answers", "same_texts")}
        return {**counts, "same_answers_percent": round(100 * counts["same_answers"] / counts["n_items"], 3)}

    return {
        "engines": add([task["engines"] for task in tasks]),
        "again": {backend: add([task["again"][backend] for task in tasks]) for backend in BACKENDS},
    }


def _answer(row: dict[str, Any]) -> tuple[Any, ...]:
    return json.loads(row["extracted"]), row["option_rank"]


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in ("extracted", "option_rank", "generation")}
