"""What the YAMLs in tasks/ name by `!function`: the data loader, the task class, the answer filter, the scores.

lm-eval imports this module when it builds one of the tasks, in our commands and in plain `lm_eval` alike, so both run
the very same task. Per item, a task of kind `choice` asks for one generated answer and for the likelihood of each
option's trained answer; the other kinds ask for the generated answer only. Scores, by lm-eval's filter name:

    robust, strict, legacy   exact_match, unparsed
    none                     option_rank (choice only): whether the likeliest option is right
                             truncated: whether the answer ran into max_gen_toks; only where the answer says so
                             (an attribute `finish_reason`, as our engines give it; plain lm_eval has none)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from lm_eval.api.filter import Filter
from lm_eval.api.instance import Instance
from lm_eval.api.registry import register_filter
from lm_eval.api.task import ConfigurableTask
from lm_eval.utils import create_iterator

from infosteer_bench.data.render import Renderer
from infosteer_bench.data.roots import open_source
from infosteer_bench.errors import UserError
from infosteer_bench.grid import PromptConfig
from infosteer_bench.tasks.filters import KINDS, RULES, AnswerSpec, correct
from infosteer_bench.tasks.items import Item, read_items


class Answer(str):
    """An extracted answer; tells `process_results` that a filter has run. Where nothing was found it is None."""

    __slots__ = ()


@register_filter("infosteer_answer")
class AnswerFilter(Filter):
    """lm-eval filter around one rule of `tasks.filters`. Likelihoods pass through untouched."""

    def __init__(self, *, rule: str) -> None:
        super().__init__()
        self.rule = RULES[rule]

    def apply(self, resps: Iterable[Sequence[Any]], docs: Sequence[dict[str, Any]]) -> list[Any]:
        """One value per request: an `Answer` or None for a generated text, else the first response as it is."""
        return [self._one(responses[0], doc) for responses, doc in zip(resps, docs, strict=True)]

    def _one(self, response: Any, doc: dict[str, Any]) -> Any:
        if not isinstance(response, str):
            return response
        extracted = self.rule(response, spec_of(doc))
        return None if extracted is None else Answer(extracted)


def spec_of(doc: dict[str, Any]) -> AnswerSpec:
    """The answer that a document of `load_dataset` asks for."""
    return AnswerSpec(doc["kind"], tuple(doc["options"]))


def load_dataset(
    *,
    file: str,
    kind: str,
    template: str = "plain",
    data_root: str | Path | None = None,
    renderer: Renderer | None = None,
    **_metadata: Any,
) -> dict[str, Any]:
    """The test split of one task, as lm-eval's `custom_dataset`.

    file: relative to the data root, such as "dataset/boolq/test.json". data_root: None means INFOSTEER_DATA_ROOT, or
    upstream. lm-eval passes the YAML's metadata along; what is not named here has no meaning for us.
    Columns: prompt, target (canonical), kind, options and completions (one per option, [] but for choice), and the
    record's instruction and answer. Raises UserError for records that are no items of this kind.
    """
    import datasets

    if kind not in KINDS:
        raise UserError(f"task data {file}: unknown kind {kind!r}", allowed=", ".join(KINDS))
    renderer = renderer or _renderer(template)
    source = open_source(Path(data_root) if data_root is not None else None).get(file)
    rows = [_row(item, renderer) for item in read_items(source, kind)]
    text, texts = datasets.Value("string"), datasets.List(datasets.Value("string"))
    columns = {"prompt": text, "target": text, "kind": text, "options": texts, "completions": texts}
    features = datasets.Features({**columns, "instruction": text, "answer": text})
    return {"test": datasets.Dataset.from_list(rows, features=features)}


def _renderer(template: str) -> Renderer:
    if template == "chat":
        raise UserError(
            "template chat needs the model's tokenizer, which a task does not know",
            hint="with plain lm_eval, leave the template out and give --apply_chat_template",
        )
    if template not in ("plain", "alpaca"):
        raise UserError(f"unknown prompt template {template!r}", allowed="plain, alpaca")
    return Renderer(PromptConfig(template=template))  # type: ignore[arg-type]


def _row(item: Item, renderer: Renderer) -> dict[str, Any]:
    record, kind = item.record, item.spec.kind
    return {
        "prompt": renderer.prompt(record, kind),
        "target": item.target,
        "kind": kind,
        "options": list(item.spec.options),
        "completions": [renderer.completion({**record, "answer": option}, kind) for option in item.spec.options],
        "instruction": record["instruction"],
        "answer": record["answer"],
    }


class GeneratedAnswerTask(ConfigurableTask):
    """A generate_until task that also ranks the options by likelihood, in one pass over the items."""

    def __init__(self, config: dict[str, Any] | None = None) -> None:
        # lm-eval hands over the whole YAML; `class` has done its work by now and is no field of its TaskConfig.
        self._items: Any = None  # (dataset, its items)
        super().__init__(config={key: value for key, value in (config or {}).items() if key != "class"})

    def download(self, dataset_kwargs: dict[str, Any] | None = None, **_kwargs: Any) -> None:
        """Load the data as lm-eval would, without its warning about command line options of other tasks."""
        arguments = {**(self.config.metadata or {}), **(dataset_kwargs or {})}
        self.dataset = self.config.custom_dataset(**arguments)  # type: ignore[misc]

    def use_renderer(self, renderer: Renderer) -> None:
        """Render all prompts anew; for chat templates, which need the tokenizer of the model to be evaluated."""
        arguments = {**(self.config.metadata or {}), **(self.config.dataset_kwargs or {}), "renderer": renderer}
        self.dataset = self.config.custom_dataset(**arguments)  # type: ignore[misc]
        self.task_docs = self.eval_docs

    def doc_iterator(self, *, samples: list[int] | None = None, **slicing: Any) -> Iterator[tuple[int, Any]]:
        """lm-eval's, over items that are read from the dataset once: it walks them once more for every filter."""
        if samples:
            return super().doc_iterator(samples=samples, **slicing)
        if self._items is None or self._items[0] is not self.dataset:
            self._items = (self.dataset, list(self.eval_docs))
        bounds = {name: int(slicing.get(name) or least) for name, least in (("rank", 0), ("world_size", 1))}
        return create_iterator(enumerate(self._items[1]), limit=slicing.get("limit") or None, **bounds)

    def construct_requests(self, doc: dict[str, Any], ctx: str, **kwargs: Any) -> list[Instance]:  # type: ignore[override]
        """The generation (idx 0), then one likelihood per option (idx 1, 2, ...) after the same context."""
        for key in ("apply_chat_template", "chat_template"):
            kwargs.pop(key, None)
        generation = (ctx, deepcopy(self.config.generation_kwargs))
        requests = [Instance(request_type="generate_until", doc=doc, arguments=generation, idx=0, **kwargs)]
        for idx, completion in enumerate(doc["completions"], start=1):
            arguments = (ctx, completion)
            requests.append(Instance(request_type="loglikelihood", doc=doc, arguments=arguments, idx=idx, **kwargs))
        return requests


def process_results(doc: dict[str, Any], results: Sequence[Any]) -> dict[str, float]:
    """Scores of one item under one filter; `results` are that filter's outcomes in the order of the requests."""
    answer, likelihoods = results[0], results[1:]
    if answer is None or isinstance(answer, Answer):
        return {
            "exact_match": float(correct(answer, doc["target"], doc["kind"])),
            "unparsed": float(answer is None),
        }
    scores: dict[str, float] = {}
    if getattr(answer, "finish_reason", None) is not None:
        scores["truncated"] = float(answer.finish_reason == "length")
    if likelihoods:
        scores["option_rank"] = float(rank_options(doc["options"], likelihoods) == doc["target"])
    return scores


def rank_options(options: Sequence[str], likelihoods: Sequence[tuple[float, bool]]) -> str:
    """The option with the highest log-likelihood; the first of equals."""
    sums = [float(likelihood) for likelihood, _ in likelihoods]
    return options[max(range(len(sums)), key=sums.__getitem__)]
