"""Scripted answers to every task's first items, sent through the task itself: its prompts, filters and metrics.

A task is broken if it cannot be built, if its prompt lost the question, or if its scores are not those of what was
answered. Questions and right answers are read from the data file, past the task, so a wrong target is found as well.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infosteer_bench.smoke.check import Check, Problems, check

if TYPE_CHECKING:
    from infosteer_bench.data.sources import SourceFile
    from infosteer_bench.evaluation.evaluate import TaskResult
    from infosteer_bench.grid import EvalConfig, PromptConfig
    from infosteer_bench.tasks.catalog import TaskInfo

RULES = ("robust", "strict", "legacy")
ITEMS = 8
_LETTERS = "ABCDE"


@dataclass(frozen=True)
class Script:
    """A way to answer. rights: percent right by filter; unread: percent unparsed by filter; ranked: percent of
    option_rank, None where the likelihoods say nothing; cut: whether the answer is said to have run out of room."""

    name: str
    answer: Callable[[dict[str, Any], str], str]
    rights: Mapping[str, float]
    unread: Mapping[str, float]
    ranked: float | None = None
    cut: bool = False


def _completion(record: dict[str, Any], kind: str, **changes: str) -> str:
    """As training teaches to answer. A letter's rationale is left out: `legacy` reads any capital A to E in it."""
    from infosteer_bench.data.render import Renderer
    from infosteer_bench.grid import PromptConfig

    bare = {"output": ""} if kind == "letter" else {}
    return Renderer(PromptConfig()).completion({**record, **bare, **changes}, kind)


def _loose(record: dict[str, Any], kind: str) -> str:
    """In words that training does not teach: `strict`, and it alone, reads nothing here."""
    answer = record["answer"].strip()
    if kind == "choice":
        return f"i would choose {answer}."
    return f"i would pick ({answer})." if kind == "letter" else f"that makes {float(answer):g} in all"


def wrong_answer(record: dict[str, Any], kind: str) -> str:
    """Another answer of the same kind."""
    from infosteer_bench.tasks.filters import options_of

    answer = record["answer"].strip()
    if kind == "choice":
        return next(option for option in options_of(record["instruction"]) if option != answer)
    if kind == "letter":
        return _LETTERS[(_LETTERS.index(answer) + 1) % len(_LETTERS)]
    return f"{float(answer) + 1:g}"


def _all(percent: float) -> dict[str, float]:
    return dict.fromkeys(RULES, percent)


SCRIPTS = (
    Script("gold", _completion, rights=_all(100.0), unread=_all(0.0), ranked=100.0),
    Script(
        "wrong",
        lambda record, kind: _completion(record, kind, answer=wrong_answer(record, kind), output=""),
        rights=_all(0.0),
        unread=_all(0.0),
        ranked=0.0,
    ),
    Script("loose", _loose, rights={**_all(100.0), "strict": 0.0}, unread={**_all(0.0), "strict": 100.0}),
    Script("garbage", lambda record, kind: "mumble mumble", rights=_all(0.0), unread=_all(100.0), cut=True),  # noqa: ARG005
)


@dataclass
class Probes:
    """checks: one per task. prompts: task -> the prompts of its first items, as the task writes them."""

    checks: list[Check] = field(default_factory=list)
    prompts: dict[str, list[str]] = field(default_factory=dict)


def probe_tasks(
    tasks: Mapping[str, TaskInfo],
    files: Mapping[str, SourceFile],
    *,
    eval_config: EvalConfig,
    prompt: PromptConfig,
    data_root: Path | None,
) -> Probes:
    """All scripts through all tasks of ours. files: task -> its test file, as a plan's inputs hold it."""
    probes = Probes()
    settings = {
        "eval_config": eval_config.model_copy(update={"limit": ITEMS}),
        "prompt": prompt,
        "data_root": data_root,
    }
    for name, info in tasks.items():
        if name in files:
            probes.checks.append(
                check(f"scoring {name}", lambda problems, info=info: _probe(problems, info, files, probes, settings))
            )
    return probes


def _probe(
    problems: Problems, info: TaskInfo, files: Mapping[str, SourceFile], probes: Probes, settings: dict[str, Any]
) -> str:
    from infosteer_bench.data.sources import load_json_records
    from infosteer_bench.evaluation.evaluate import evaluate_task
    from infosteer_bench.smoke.scripted import ScriptedEngine

    records = load_json_records(files[info.name])[:ITEMS]
    for script in SCRIPTS:
        answers = [script.answer(record, info.kind) for record in records]
        favoured = [wrong_answer(r, info.kind) if script.ranked == 0.0 else r["answer"].strip() for r in records]
        engine = ScriptedEngine(answers, favoured=favoured, cut=script.cut, eval_config=settings["eval_config"])
        result = evaluate_task(engine, info, **settings)
        examine_result(problems, script, info.kind, result, n_items=len(records))
        if info.name not in probes.prompts:
            probes.prompts[info.name] = engine.prompts
            examine_prompts(problems, engine.prompts, records)
    return f"{len(records)} items, {', '.join(script.name for script in SCRIPTS)} under {', '.join(RULES)}"


def examine_prompts(problems: Problems, prompts: list[str], records: list[dict[str, Any]]) -> None:
    """Every prompt holds its own record's question."""
    problems.equal("prompts", expected=len(records), got=len(prompts))
    for number, (prompt, record) in enumerate(zip(prompts, records, strict=False)):
        question = record["instruction"].strip()
        if question not in prompt:
            problems.add(f"prompt {number}: expected the question {question[-60:]!r} in it, got {prompt[-60:]!r}")


def examine_result(problems: Problems, script: Script, kind: str, result: TaskResult, *, n_items: int) -> None:
    """The scores are those that the script's answers deserve."""
    problems.equal(f"{script.name}: items", expected=n_items, got=result.n_items)
    for rule in RULES:
        rights, unread = result.exact_match.get(rule), result.unparsed.get(rule)
        problems.equal(f"{script.name}: {rule}, percent right", expected=script.rights[rule], got=rights)
        problems.equal(f"{script.name}: {rule}, percent unparsed", expected=script.unread[rule], got=unread)
    problems.equal(f"{script.name}: percent truncated", expected=100.0 * script.cut, got=result.truncated)
    if kind != "choice":
        problems.equal(f"{script.name}: option_rank", expected=None, got=result.option_rank)
    elif script.ranked is not None:
        problems.equal(f"{script.name}: option_rank, percent", expected=script.ranked, got=result.option_rank)
