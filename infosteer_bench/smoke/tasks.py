"""Did every method answer every task: the right items, the right prompts, all scores?"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infosteer_bench.data.render import encode_batch
from infosteer_bench.records import CellRecord, read_items, read_records, samples_path
from infosteer_bench.smoke.check import Check, Problems, check
from infosteer_bench.smoke.probes import RULES, Probes

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from infosteer_bench.runs.plan import Plan
    from infosteer_bench.tasks.catalog import TaskInfo

Answers = dict[str, list[tuple[CellRecord, list[dict[str, Any]]]]]
"""Task -> its cells, each with its items."""


def check_tasks(plan: Plan, run_dir: Path, probes: Probes) -> Iterator[Check]:
    """The tokenizer, the cells in all, one check per task, and one over the answers of all trained methods."""
    cells, unreadable = read_records(run_dir, CellRecord)
    done: Answers = {name: [] for name in plan.inputs.tasks}
    broken: list[str] = list(unreadable)
    for cell in cells.values():
        try:
            items = read_items(samples_path(run_dir, cell.key)) if cell.status == "success" else []
            done.setdefault(cell.task, []).append((cell, items))
        except Exception as error:  # named below; the other cells are looked at
            broken.append(f"{cell.key}: {error}")

    def whole(problems: Problems) -> str:
        for text in broken:
            problems.add(text)
        for cell in cells.values():
            if cell.status != "success":
                problems.add(f"{cell.method} {cell.task}: {cell.error}")
        good = sum(cell.status == "success" for cell in cells.values())
        problems.equal("successful cells", expected=plan.n_cells, got=good)
        return f"{good} of {plan.n_cells} succeeded"

    yield check("tokenizer", lambda problems: _tokenizers(problems, plan, probes))
    yield check("cells", whole)
    labels = {planned.key: planned.label for planned in plan.checkpoints}
    for name, info in plan.inputs.tasks.items():
        expected = sorted(planned.label for planned in plan.checkpoints if name in planned.tasks)

        def examine(problems: Problems, info: TaskInfo = info, expected: list[str] = expected) -> str:
            got = sorted(labels.get(cell.checkpoint_key, cell.checkpoint_key) for cell, _ in done[info.name])
            problems.equal("answered by", expected=expected, got=got)
            prompts = probes.prompts.get(info.name, [])
            limit = plan.grid.eval.limit
            for cell, items in done[info.name]:
                if cell.status != "success":
                    problems.add(f"{cell.method}: {cell.error}")
                    continue
                examine_cell(problems, cell, items, info=info, prompts=prompts, limit=limit)
            return f"{len(got)} checkpoints, {limit} items each"

        yield check(f"task {name}", examine)
    yield check("answers", lambda problems: examine_answers(problems, done))


def _tokenizers(problems: Problems, plan: Plan, probes: Probes) -> str:
    from infosteer_bench.models.load import load_tokenizer, materialize

    texts = [prompt for prompts in probes.prompts.values() for prompt in prompts]
    for model in plan.inputs.models:
        examine_tokenizer(problems, load_tokenizer(materialize(model)), texts)
    return f"{len(texts)} prompts read back as they were written"


def examine_tokenizer(problems: Problems, tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> None:
    """A prompt may lose its question on the way to token ids as well. Exact for the mini-world's tokenizers."""
    problems.more_than("prompts", bound=0, got=len(texts))
    for text, (ids, _) in zip(texts, encode_batch(tokenizer, texts, None), strict=True):
        back = str(tokenizer.decode(ids, skip_special_tokens=True))
        if back != text:
            problems.add(f"{type(tokenizer).__name__}: expected {text[-60:]!r} back, got {back[-60:]!r}")


def examine_cell(
    problems: Problems,
    cell: CellRecord,
    items: list[dict[str, Any]],
    *,
    info: TaskInfo,
    prompts: list[str],
    limit: int | None,
) -> None:
    """One cell: how many items, which, and every score that its kind has. prompts: those that the task writes."""
    label = f"{cell.method} {cell.mix or ''}".strip()
    problems.equal(f"{label}: items", expected=limit, got=cell.n_items)
    problems.equal(f"{label}: recorded items", expected=list(range(cell.n_items)), got=[row["doc_id"] for row in items])
    for kind, scores in (("score", cell.exact_match), ("share unparsed", cell.unparsed)):
        problems.equal(f"{label}: filters with a {kind}", expected=sorted(RULES), got=sorted(scores))
        for rule, value in scores.items():
            if not 0 <= value <= 100:
                problems.add(f"{label}: {kind} of {rule}: expected 0 to 100, got {value}")
    problems.equal(f"{label}: has option_rank", expected=info.kind == "choice", got=cell.option_rank is not None)
    problems.equal(f"{label}: has a share truncated", expected=True, got=cell.truncated is not None)
    silent = [row["doc_id"] for row in items if row["n_tokens"] < 1]
    problems.equal(f"{label}: items without a generated token", expected=[], got=silent)
    wanted = [hashlib.sha256(prompt.encode()).hexdigest()[:16] for prompt in prompts[: len(items)]]
    problems.equal(f"{label}: prompts, by digest", expected=wanted, got=[row["prompt_digest"] for row in items])


def examine_answers(problems: Problems, done: Answers) -> str:
    """Every trained method says something, somewhere, that the base model does not: its own weights were loaded."""
    texts: dict[str, dict[tuple[str, int], str]] = {}
    for task, cells in done.items():
        for cell, items in cells:
            of_method = texts.setdefault(cell.method, {})
            of_method.update({(task, row["doc_id"]): row["generation"] for row in items})
    base = texts.pop("base", {})
    found: list[str] = []
    for method, answers in texts.items():
        shared = [place for place in answers if place in base]
        changed = sum(answers[place] != base[place] for place in shared)
        problems.more_than(f"{method}: answers that differ from base's", bound=0, got=changed)
        found.append(f"{method} {changed} of {len(shared)}")
    return f"differ from base's: {', '.join(found)}"
