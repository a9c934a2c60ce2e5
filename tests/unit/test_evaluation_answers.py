"""The store of answers: what was written is read, what is damaged does not count; and the queue that fills it."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lm_eval.api.instance import Instance
from loud import build_loud
from tiny import build_data_root

from infosteer_bench.errors import CellFailure
from infosteer_bench.evaluation.answers import (
    CHUNK,
    AnswerContext,
    AnswerStore,
    Score,
    answers_path,
    request_key,
    stored_answers,
)
from infosteer_bench.evaluation.evaluate import EvalSettings, TaskResult, evaluate_task, evaluate_tasks
from infosteer_bench.evaluation.generation import Generation
from infosteer_bench.evaluation.hf import HFEngine
from infosteer_bench.evaluation.lm import Ask, EngineLM
from infosteer_bench.grid import EvalConfig, PromptConfig
from infosteer_bench.tasks.catalog import read_tasks

ASKED = AnswerContext(weights="w", tokenizer="t", renderer=1, engine="hf", dtype="float32", window=2048, runtime=None)
CONFIG = EvalConfig(dtype="float32", max_new_tokens=8, batch_size=4, limit=4)


def said(text: str) -> Generation:
    return Generation(text, finish_reason="length", n_tokens=3)


@settings(max_examples=60, deadline=None)
@given(
    texts=st.lists(st.text(), max_size=5),
    scores=st.lists(st.tuples(st.floats(allow_nan=False), st.booleans()), max_size=5),
)
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, texts: Any, scores: Any) -> None:
    path = tmp_path_factory.mktemp("answers") / "a.jsonl"
    store = AnswerStore(path, asked=ASKED)
    with store.flushed():
        for place, text in enumerate(texts):
            store.add(f"g{place}", said(text), seconds=0.5)
        for place, score in enumerate(scores):
            store.add(f"s{place}", Score(*score), seconds=0.25)
    found = AnswerStore(path)
    assert len(found) == len(texts) + len(scores)
    assert found.n_damaged == 0
    for place, text in enumerate(texts):
        answer, seconds = found[f"g{place}"]
        assert isinstance(answer, Generation)
        assert (answer, answer.finish_reason, answer.n_tokens, seconds) == (text, "length", 3, 0.5)
    for place, score in enumerate(scores):
        assert found[f"s{place}"] == (Score(*score), 0.25)
    if texts or scores:
        assert found.asked == ASKED


def test_a_line_of_text_from_outside_unicode_survives(tmp_path: Path) -> None:
    """A lone surrogate cannot be written as UTF-8; models with byte tokens never give one, a user's engine may."""
    store = AnswerStore(tmp_path / "a.jsonl")
    store.add("k", said("\ud800 \u2028 \x00"), seconds=0)
    store.flush()
    assert AnswerStore(tmp_path / "a.jsonl")["k"].answer == "\ud800 \u2028 \x00"


def test_an_infinite_or_missing_number_survives(tmp_path: Path) -> None:
    store = AnswerStore(tmp_path / "a.jsonl")
    store.add("low", Score(-math.inf, False), seconds=0)
    store.add("nan", Score(math.nan, False), seconds=0)
    store.flush()
    found = AnswerStore(tmp_path / "a.jsonl")
    assert found["low"].answer == Score(-math.inf, False)
    assert math.isnan(found["nan"].answer[0])  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", range(30))
def test_damage_costs_the_lines_it_touches(tmp_path: Path, seed: int) -> None:
    """Bytes flipped, cut off or inserted: every answer that is still found is what was written."""
    path, rng = tmp_path / "a.jsonl", random.Random(seed)
    store = AnswerStore(path, asked=ASKED)
    for place in range(20):
        store.add(f"k{place}", said(f"answer {place}"), seconds=1)
    store.flush()
    content = bytearray(path.read_bytes())
    kind = ("flip", "cut", "insert")[seed % 3]
    place = rng.randrange(len(content))
    if kind == "flip":
        content[place] ^= 1 << rng.randrange(8)
    elif kind == "cut":
        del content[place:]
    else:
        content[place:place] = bytes(rng.randrange(256) for _ in range(7))
    path.write_bytes(content)
    found = AnswerStore(path, asked=ASKED)
    kept = [place for place in range(20) if f"k{place}" in found]
    assert all(found[f"k{place}"].answer == f"answer {place}" for place in kept)
    assert len(kept) == len(found)
    if kind != "cut":
        assert len(kept) >= 18
    for place in set(range(20)) - set(kept):  # and what is asked again is written behind what is left
        found.add(f"k{place}", said(f"answer {place}"), seconds=1)
    found.flush()
    again = AnswerStore(path, asked=ASKED)
    assert len(again) == 20
    assert {str(again[f"k{place}"].answer) for place in range(20)} == {f"answer {place}" for place in range(20)}


def test_a_chunk_reaches_the_disk_by_itself(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    store = AnswerStore(path)
    for place in range(CHUNK + 3):
        store.add(f"k{place}", said("x"), seconds=0)
    assert len(AnswerStore(path)) == CHUNK
    with pytest.raises(RuntimeError), store.flushed():
        raise RuntimeError
    assert len(AnswerStore(path)) == CHUNK + 3


def test_other_circumstances_are_another_file(tmp_path: Path) -> None:
    changes: list[dict[str, Any]] = [
        {"weights": "v"},
        {"tokenizer": "u"},
        {"renderer": 2},
        {"engine": "vllm"},
        {"dtype": "bfloat16"},
        {"window": 1024},
        {"runtime": {"name": "infosteer-intervention"}},
        {"version": 99},
    ]
    paths = {answers_path(tmp_path, "key", replace(ASKED, **change)) for change in [{}, *changes]}
    assert len(paths) == len(changes) + 1
    for path in paths:
        store = AnswerStore(path, asked=ASKED)
        store.add("k", said(path.name), seconds=0)
        store.flush()
    assert {str(store["k"].answer) for store in stored_answers(tmp_path, "key")} == {path.name for path in paths}
    assert list(stored_answers(tmp_path, "other")) == []


def test_a_key_knows_everything_that_was_asked() -> None:
    asked = [
        ("generate", "text", (("stop",), 8)),
        ("generate", "text", (("stop",), 9)),
        ("generate", "text", ((), 8)),
        ("generate", "tex", (("stop",), 8)),
        ("score", "text", "t"),
        ("score", "textt", ""),
    ]
    assert len({request_key(*one) for one in asked}) == len(asked)


# --- the queue


class Broken(Exception):
    """The engine is gone."""


class CountingLM(EngineLM):
    """Answers with the prompt's own number; breaks when it is told to; keeps what it was asked."""

    def __init__(self, tokenizer: Any, *, breaks_after: int | None = None) -> None:
        super().__init__(tokenizer, eval_config=CONFIG, max_length=512, eos_ids=(1,))
        self.breaks_after, self.asked = breaks_after, 0

    def generate_ids(self, asks: Sequence[Ask]) -> Iterator[list[tuple[int, Generation]]]:
        for place, ask in enumerate(asks):
            if self.breaks_after is not None and self.asked == self.breaks_after:
                raise CellFailure("broken")
            self.asked += 1
            yield [(place, said(str(len(ask.ids))))]

    def score_ids(self, pairs: Sequence[Any]) -> Iterator[list[tuple[int, Score]]]:
        for place, (context, continuation) in enumerate(pairs):
            self.asked += 1
            yield [(place, Score(-float(len(continuation)), len(context) % 2 == 0))]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> HFEngine:
    made = HFEngine(CONFIG)
    made.load(build_loud("llama", tmp_path_factory.mktemp("model") / "llama"), weight_digest="0", runtime=None)
    return made


@pytest.fixture(scope="module")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_data_root(tmp_path_factory.mktemp("data"))


def asks(texts: Sequence[str], **options: Any) -> list[Instance]:
    return [Instance("generate_until", {}, (text, dict(options)), n) for n, text in enumerate(texts)]


def test_only_what_is_missing_is_asked(engine: HFEngine, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    texts = [f"number {n}" * n for n in range(1, 12)]
    first = CountingLM(engine.lm.tokenizer, breaks_after=7)
    first.answers = AnswerStore(path)
    with pytest.raises(CellFailure, match="broken"):
        first.generate_until(asks(texts))
    assert len(AnswerStore(path)) == 7, "what had come is on disk"

    second = CountingLM(engine.lm.tokenizer)
    second.answers = AnswerStore(path)
    seen: list[tuple[int, int]] = []
    second.on_progress = lambda done, total: seen.append((done, total))
    answers = second.generate_until(asks(texts))
    assert second.asked == 4
    assert seen[0] == (7, 11)
    assert seen[-1] == (11, 11)
    assert answers == CountingLM(engine.lm.tokenizer).generate_until(asks(texts))

    # other endings are other questions; the same question twice is one
    second.generate_until([*asks(texts, until=["\n"]), *asks(texts, until=["\n"])])
    assert second.asked == 4 + 11
    pairs = [Instance("loglikelihood", {}, ("context", option), 0) for option in (" a", " b", " a")]
    assert second.loglikelihood(pairs)[0] == second.loglikelihood(pairs)[2]
    assert second.asked == 4 + 11 + 2


def test_without_a_store_nothing_is_kept(engine: HFEngine) -> None:
    lm = CountingLM(engine.lm.tokenizer)
    lm.generate_until(asks(["a", "b"]))
    lm.generate_until(asks(["a", "b"]))
    assert lm.asked == 4
    assert lm.answers is None


def _plain(result: TaskResult | Exception) -> Any:
    assert isinstance(result, TaskResult), result
    return result.rows, result.exact_match, result.option_rank, result.n_items, result.n_total


def test_all_tasks_as_one_queue_score_as_each_alone(engine: HFEngine, tiny_data: Path, tmp_path: Path) -> None:
    infos = read_tasks()
    asking = EvalSettings(CONFIG, PromptConfig(), tiny_data)
    alone = {
        name: evaluate_task(engine, info, eval_config=CONFIG, prompt=PromptConfig(), data_root=tiny_data)
        for name, info in infos.items()
    }
    together = evaluate_tasks(engine.lm, infos, asking)
    assert list(together) == list(infos)
    assert {name: _plain(result) for name, result in together.items()} == {n: _plain(r) for n, r in alone.items()}
    assert all(result.time_s > 0 for result in together.values() if isinstance(result, TaskResult))
    assert engine.lm.answers is None

    # stored, then read back by a model that can say nothing itself
    path = tmp_path / "a.jsonl"
    engine.lm.answers = AnswerStore(path)
    evaluate_tasks(engine.lm, infos, asking)
    engine.lm.answers = None
    mute = CountingLM(engine.lm.tokenizer, breaks_after=0)
    mute.max_length = engine.lm.max_length
    mute.answers = AnswerStore(path)
    replayed = evaluate_tasks(mute, infos, asking)
    assert {name: _plain(result) for name, result in replayed.items()} == {n: _plain(r) for n, r in alone.items()}
    assert mute.asked == 0


def test_a_fault_of_one_task_is_its_own(engine: HFEngine, tiny_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One whose data is missing, one that cannot be scored: the others have their results, and are asked once."""
    from infosteer_bench.tasks.lm_eval_hooks import GeneratedAnswerTask

    infos = {name: read_tasks()[name] for name in ("boolq", "gsm8k", "piqa", "svamp")}
    process = GeneratedAnswerTask.process_results

    def faulty(self: Any, doc: Any, results: Any) -> Any:
        if self.config.task == "infosteer_gsm8k":
            raise ZeroDivisionError("in the metric")
        return process(self, doc, results)

    monkeypatch.setattr(GeneratedAnswerTask, "process_results", faulty)
    infos["svamp"] = replace(infos["svamp"], path=Path("nowhere.yaml"), lm_eval_name="infosteer_nowhere")
    lm = CountingLM(engine.lm.tokenizer)
    results = evaluate_tasks(lm, infos, EvalSettings(CONFIG, PromptConfig(), tiny_data))
    assert isinstance(results["gsm8k"], ZeroDivisionError)
    assert isinstance(results["svamp"], Exception)
    assert isinstance(results["boolq"], TaskResult)
    assert isinstance(results["piqa"], TaskResult)
    once = CountingLM(engine.lm.tokenizer)
    evaluate_tasks(
        once,
        {name: infos[name] for name in ("boolq", "gsm8k", "piqa")},
        EvalSettings(CONFIG, PromptConfig(), tiny_data),
    )
    assert lm.asked == once.asked
