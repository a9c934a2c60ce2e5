"""One checkpoint on its tasks: lm-eval's evaluator runs them, its samples become the rows that cells keep.

    results = evaluate_tasks(engine.lm, tasks, EvalSettings(EvalConfig(limit=20), PromptConfig()))
    results["boolq"].exact_match["robust"]        # percent

Our tasks are scored under the filters robust, strict and legacy, and the commonsense eight by `option_rank` too. A
user's own task keeps its own filters' names; one that ranks options is scored under the name `acc`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infosteer_bench.errors import CellFailure, UserError
from infosteer_bench.evaluation.answers import AnswerStore
from infosteer_bench.evaluation.engine import Engine
from infosteer_bench.evaluation.generation import Generation
from infosteer_bench.grid import EvalConfig, PromptConfig
from infosteer_bench.records import canonical_json
from infosteer_bench.tasks.catalog import TaskInfo, build_task

if TYPE_CHECKING:
    from infosteer_bench.evaluation.lm import EngineLM

SCORES = ("exact_match", "acc")
"""Per-item metrics that say right or wrong, preferred first."""
_RECORDED = ("n_items", "n_total", "exact_match", "unparsed", "truncated", "option_rank", "generated_tokens")
_INVALID = "[invalid]"
"""What lm-eval's regex filters give where nothing matched."""
_FEWSHOT_SEED = 1234


@dataclass(frozen=True)
class TaskResult:
    """rows: one per item, keys of records.ITEM_COLUMNS. Shares are percents over the n_items evaluated.

    unparsed, truncated: for generated answers only, else {} and None. option_rank: None without options to rank.
    n_total: items of the whole task. time_s: the engine's time behind the answers, those of earlier runs included; a
    batch's time goes to its answers in equal parts.
    """

    rows: list[dict[str, Any]]
    exact_match: dict[str, float]
    unparsed: dict[str, float]
    truncated: float | None
    option_rank: float | None
    n_items: int
    n_total: int
    generated_tokens: int
    time_s: float

    def scores(self) -> dict[str, Any]:
        """The fields of a cell's record that follow from the answers."""
        return {**{name: getattr(self, name) for name in _RECORDED}, "time_s": round(self.time_s, 3)}


@dataclass(frozen=True)
class EvalSettings:
    """How tasks are asked. data_root: None for upstream. include_path: where the user's own tasks come from."""

    eval_config: EvalConfig
    prompt: PromptConfig
    data_root: Path | None = None
    include_path: Path | None = None


def evaluate_task(
    engine: Engine,
    info: TaskInfo,
    *,
    eval_config: EvalConfig,
    prompt: PromptConfig,
    data_root: Path | None,
    include_path: Path | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    built: dict[str, Any] | None = None,
) -> TaskResult:
    """`evaluate_tasks` of one task. Raises what keeps it from a result."""
    asking = EvalSettings(eval_config, prompt, data_root, include_path)
    result = evaluate_tasks(engine.lm, {info.name: info}, asking, on_progress=on_progress, built=built)[info.name]
    if isinstance(result, Exception):
        raise result
    return result


def evaluate_tasks(
    lm: EngineLM,
    infos: Mapping[str, TaskInfo],
    asking: EvalSettings,
    *,
    on_progress: Callable[[int, int], None] | None = None,
    built: dict[str, Any] | None = None,
) -> dict[str, TaskResult | Exception]:
    """Let a model answer tasks, all of them as one queue, and score each: its result, or what keeps it from one.

    on_progress: called with (done, total); first over the items to answer, then, for tasks that rank options, over the
    likelihoods. built: where tasks of ours are kept for the next checkpoint, which is asked the same; one such dict per
    `asking`.
    A task's UserError: its data cannot be had, or it has no score of right or wrong. Raises CellFailure if the engine
    gives up; what it had answered by then is in `lm.answers`.
    """
    from infosteer_bench.evaluation.quiet import quiet

    chat = asking.prompt.template == "chat"
    if chat and not lm.tokenizer.chat_template:
        raise UserError("prompt.template=chat needs a model with a chat template", allowed="plain, alpaca")
    tasks: dict[str, Any] = {}
    outcome: dict[str, TaskResult | Exception] = dict.fromkeys(infos, CellFailure("not evaluated"))
    before = lm.on_progress
    lm.on_progress = on_progress
    try:
        with quiet():
            for name, info in infos.items():
                try:
                    tasks[name] = _built(info, asking, lm, {} if built is None else built)
                except Exception as error:  # the other tasks go on
                    outcome[name] = error
            for queue in _queues(list(tasks), infos, chat=chat):
                outcome |= _evaluate(lm, {name: tasks[name] for name in queue}, infos, asking)
    finally:
        lm.on_progress = before
    return {name: outcome[name] for name in infos}


def _queues(names: list[str], infos: Mapping[str, TaskInfo], *, chat: bool) -> list[list[str]]:
    """Which tasks go together: lm-eval applies a chat template to all or to none, and ours render theirs themselves."""
    rendered = [name for name in names if not _templated(infos[name], chat=chat)]
    return [queue for queue in (rendered, [name for name in names if name not in rendered]) if queue]


def _templated(info: TaskInfo, *, chat: bool) -> bool:
    """Whether lm-eval is to apply the chat template; our own tasks render it themselves, as training does."""
    return chat and info.kind == "other"


def _built(info: TaskInfo, asking: EvalSettings, lm: EngineLM, built: dict[str, Any]) -> Any:
    task: Any = built.get(info.name)
    if task is None:
        task = build_task(
            info,
            prompt=asking.prompt,
            data_root=asking.data_root,
            include_path=asking.include_path,
            tokenizer=lm.tokenizer,
        )
    # A chat template is the tokenizer's, and a user's own task may remember what it likes.
    if info.kind != "other" and asking.prompt.template != "chat":
        built[info.name] = task
    _prepare(task, info, asking.eval_config)
    return task


def _evaluate(
    lm: EngineLM, tasks: dict[str, Any], infos: Mapping[str, TaskInfo], asking: EvalSettings
) -> dict[str, TaskResult | Exception]:
    """One queue. If it fails by a task's fault, each task by itself: what is answered is not asked again."""
    from lm_eval.evaluator import evaluate

    templated = any(_templated(infos[name], chat=asking.prompt.template == "chat") for name in tasks)
    kept = lm.answers
    lm.answers = AnswerStore() if kept is None else kept
    before = dict(lm.engine_s)
    try:
        results: Any = evaluate(
            lm,
            {infos[name].lm_eval_name: task for name, task in tasks.items()},
            limit=asking.eval_config.limit,
            bootstrap_iters=0,
            log_samples=True,
            apply_chat_template=templated,
        )
    except CellFailure:
        raise
    except Exception as error:
        if len(tasks) == 1:
            return dict.fromkeys(tasks, error)
        outcome: dict[str, TaskResult | Exception] = {}
        for name, task in tasks.items():
            outcome |= _evaluate(lm, {name: task}, infos, asking)
        return outcome
    finally:
        lm.answers = kept
    outcome = {}
    for name, task in tasks.items():
        own = infos[name].lm_eval_name
        try:
            rows = _rows(results["samples"][own], task, infos[name])
            time_s = lm.engine_s[own] - before.get(own, 0.0)
            outcome[name] = _summary(rows, n_total=len(task.eval_docs), time_s=time_s)
        except Exception as error:  # the other tasks go on
            outcome[name] = error
    return outcome


def _prepare(task: Any, info: TaskInfo, eval_config: EvalConfig) -> None:
    """What lm-eval's command line does to a task before it runs, and the cap on new tokens."""
    from infosteer_bench.evaluation.lm import TOKEN_LIMITS, new_tokens

    metrics = list(task.aggregation())
    if not set(SCORES) & set(metrics):
        raise UserError(
            f"task {info.name} has no score of right or wrong, only {', '.join(metrics) or 'none at all'}",
            allowed=f"a metric_list with {' or '.join(SCORES)}",
        )
    if task.get_config("num_fewshot") is None:
        task.set_config("num_fewshot", 0)
    task.set_fewshot_seed(_FEWSHOT_SEED)
    if task.OUTPUT_TYPE == "generate_until":
        given = task.get_config("generation_kwargs") or {}
        kept = {key: value for key, value in given.items() if key not in TOKEN_LIMITS}
        limit = new_tokens(given, eval_config.max_new_tokens)
        task.set_config("generation_kwargs", {**kept, "max_gen_toks": limit})


def _rows(samples: list[dict[str, Any]], task: Any, info: TaskInfo) -> list[dict[str, Any]]:
    """lm-eval's samples (one per item and filter) as one row per item, in doc_id order."""
    by_item: dict[int, list[dict[str, Any]]] = {}
    for sample in samples:
        by_item.setdefault(sample["doc_id"], []).append(sample)
    return [_row(by_item[doc_id], task, info) for doc_id in sorted(by_item)]


def _row(samples: list[dict[str, Any]], task: Any, info: TaskInfo) -> dict[str, Any]:
    """One item's samples, one per filter, as a row."""
    first = samples[0]
    answer = first["resps"][0][0]
    generated = isinstance(answer, Generation)
    extracted: dict[str, str | None] = {}
    right: dict[str, int] = {}
    option_rank: float | None = None
    for sample in samples:
        # Our filter `none` leaves the answer as it came, and scores what needs no extraction.
        if info.kind != "other" and "exact_match" not in sample:
            option_rank = sample.get("option_rank")
            continue
        metric, score = _score(sample, info)
        name = sample["filter"] if generated else metric
        right[name] = score
        extracted[name] = _text(sample["filtered_resps"][0]) if generated else _chosen(sample, task)
    return {
        "doc_id": first["doc_id"],
        "prompt_digest": hashlib.sha256(first["arguments"][0][0].encode()).hexdigest()[:16],
        "generation": str(answer) if generated else "",
        "finish_reason": answer.finish_reason if generated else "stop",
        "n_tokens": answer.n_tokens if generated else 0,
        "target": _target(first, task),
        "extracted": canonical_json(extracted),
        "correct": canonical_json(right),
        "option_rank": option_rank,
    }


def _score(sample: dict[str, Any], info: TaskInfo) -> tuple[str, int]:
    """The item's metric of right or wrong, by name."""
    metric = next(name for name in SCORES if name in sample)
    value = float(sample[metric])
    if value not in (0.0, 1.0):
        raise UserError(f"task {info.name}: {metric} of an item is {value}", allowed="0 or 1 per item")
    return metric, int(value)


def _text(value: Any) -> str | None:
    """An extracted answer; None where the filter found none."""
    if isinstance(value, list | tuple):
        value = value[0] if value else None
    return None if value is None or value == _INVALID else str(value)


def _choices(sample: dict[str, Any], task: Any) -> list[str]:
    """The options of a multiple_choice item, [] for any other."""
    return (
        [str(choice) for choice in task.doc_to_choice(sample["doc"])] if task.OUTPUT_TYPE == "multiple_choice" else []
    )


def _chosen(sample: dict[str, Any], task: Any) -> str | None:
    """The likeliest option, or, for a lone continuation, that continuation if greedy decoding would write it."""
    choices = _choices(sample, task)
    responses: Sequence[tuple[float, bool]] = [response[0] for response in sample["resps"]]
    if choices:
        return choices[max(range(len(choices)), key=lambda index: responses[index][0])]
    return str(sample["arguments"][0][1]) if responses[0][1] else None


def _target(sample: dict[str, Any], task: Any) -> str:
    """The right answer as text, by name where the task gives an option's index."""
    target, choices = sample["target"], _choices(sample, task)
    if isinstance(target, int) and 0 <= target < len(choices):
        return choices[target]
    return str(target)


def _summary(rows: list[dict[str, Any]], *, n_total: int, time_s: float) -> TaskResult:
    scores = [json.loads(row["correct"]) for row in rows]
    answers = [json.loads(row["extracted"]) for row in rows]
    generated = any(row["n_tokens"] for row in rows)
    ranked = [row["option_rank"] for row in rows if row["option_rank"] is not None]
    filters = list(scores[0])
    return TaskResult(
        rows=rows,
        exact_match={name: _percent([score[name] for score in scores]) for name in filters},
        unparsed={name: _percent([a[name] is None for a in answers]) for name in filters} if generated else {},
        truncated=_percent([row["finish_reason"] == "length" for row in rows]) if generated else None,
        option_rank=_percent(ranked) if ranked else None,
        n_items=len(rows),
        n_total=n_total,
        generated_tokens=sum(row["n_tokens"] for row in rows),
        time_s=time_s,
    )


def _percent(values: Sequence[float]) -> float:
    return 100.0 * sum(values) / len(values)
