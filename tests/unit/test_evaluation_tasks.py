"""evaluate_task: real and user's tasks through lm-eval, and the rows, percents and caps that come out."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from loud import build_loud
from tiny import build_data_root, build_tiny

from infosteer_bench.data.render import Renderer
from infosteer_bench.errors import UserError
from infosteer_bench.evaluation.evaluate import TaskResult, evaluate_task
from infosteer_bench.evaluation.hf import HFEngine
from infosteer_bench.grid import EvalConfig, PromptConfig
from infosteer_bench.records import ITEM_COLUMNS, read_items, write_items
from infosteer_bench.tasks.catalog import read_tasks
from infosteer_bench.tasks.filters import RULES, AnswerSpec, correct

PLAIN = PromptConfig()
FILTERS = {"robust", "strict", "legacy"}


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> HFEngine:
    """A loud tiny Qwen2 in float32."""
    made = HFEngine(EvalConfig(dtype="float32", max_new_tokens=16, batch_size=4))
    made.load(build_loud("qwen2", tmp_path_factory.mktemp("model") / "qwen2"), weight_digest="0", runtime=None)
    return made


@pytest.fixture(scope="module")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Invented data of all tasks."""
    return build_data_root(tmp_path_factory.mktemp("data"))


def _run(engine: HFEngine, name: str, root: Path | None, *, include: Path | None = None, **settings: Any) -> TaskResult:
    config = engine.eval_config.model_copy(update=settings)
    info = read_tasks(include)[name]
    return evaluate_task(engine, info, eval_config=config, prompt=PLAIN, data_root=root, include_path=include)


@pytest.mark.parametrize(("name", "kind"), [("boolq", "choice"), ("aqua", "letter")])
def test_rows_of_real_tasks(engine: HFEngine, data_root: Path, tmp_path: Path, name: str, kind: str) -> None:
    result = _run(engine, name, data_root, limit=6)
    info = read_tasks()[name]
    assert info.data_file is not None
    records = json.loads((data_root / info.data_file).read_text())
    assert (result.n_items, result.n_total) == (6, len(records))
    assert [row["doc_id"] for row in result.rows] == list(range(6))
    for row, record in zip(result.rows, records, strict=False):
        assert set(row) == set(ITEM_COLUMNS)
        prompt = Renderer(PLAIN).prompt(record, kind)
        assert row["prompt_digest"] == hashlib.sha256(prompt.encode()).hexdigest()[:16]
        assert row["target"] == record["answer"].strip()
        spec = AnswerSpec(kind, ("true", "false") if kind == "choice" else ())
        extracted = {rule: RULES[rule](row["generation"], spec) for rule in FILTERS}
        assert json.loads(row["extracted"]) == extracted
        assert json.loads(row["correct"]) == {
            rule: int(correct(answer, row["target"], kind)) for rule, answer in extracted.items()
        }
        assert (row["option_rank"] is None) == (kind != "choice")
    assert set(result.exact_match) == set(result.unparsed) == FILTERS
    share = sum(json.loads(row["extracted"])["strict"] is None for row in result.rows) / 6
    assert result.unparsed["strict"] == pytest.approx(100 * share)
    assert result.truncated == pytest.approx(100 * sum(r["finish_reason"] == "length" for r in result.rows) / 6)
    assert result.generated_tokens == sum(row["n_tokens"] for row in result.rows) > 0
    if kind == "choice":
        assert result.option_rank == pytest.approx(100 * sum(row["option_rank"] for row in result.rows) / 6)
    else:
        assert result.option_rank is None
    write_items(tmp_path / "items.parquet", result.rows)
    assert read_items(tmp_path / "items.parquet") == result.rows


def test_the_cap_on_new_tokens(engine: HFEngine, tiny_data: Path) -> None:
    result = _run(engine, "gsm8k", tiny_data, max_new_tokens=3)
    assert max(row["n_tokens"] for row in result.rows) == 3


class _Fixed(HFEngine):
    """Answers what it is told to, to reach scores that a random model does not."""

    def __init__(self, base: HFEngine, answer: str) -> None:
        self.__dict__.update(base.__dict__)
        self.answer = answer

    @property
    def lm(self) -> Any:
        lm, answer = super().lm, self.answer

        def fixed(requests: list[Any]) -> list[Any]:
            from infosteer_bench.evaluation import Generation

            return [Generation(answer, finish_reason="stop", n_tokens=5) for _ in requests]

        lm.generate_until = fixed  # type: ignore[method-assign]
        return lm


def test_right_answers_are_counted_in_percent(engine: HFEngine, tiny_data: Path) -> None:
    fixed = _Fixed(engine, "the correct answer is true")
    try:
        result = _run(fixed, "boolq", tiny_data, limit=8)
    finally:
        del engine.lm.__dict__["generate_until"]
    assert result.exact_match == dict.fromkeys(FILTERS, 50.0)  # answers alternate
    assert result.unparsed == dict.fromkeys(FILTERS, 0.0)
    assert result.truncated == 0.0
    assert result.generated_tokens == 40


def _write_task(folder: Path, name: str, text: str) -> None:
    folder.mkdir(exist_ok=True)
    rows = [{"q": f"Is {n} even?", "a": "yes" if n % 2 == 0 else "no"} for n in range(5)]
    data = folder / f"{name}.json"
    data.write_text(json.dumps(rows))
    head = f"task: {name}\ndataset_path: json\ndataset_kwargs: {{data_files: {{test: '{data}'}}}}\ntest_split: test\n"
    (folder / f"{name}.yaml").write_text(head + text)


GENERATE = """
output_type: generate_until
doc_to_text: "{{q}}\\n"
doc_to_target: "{{a}}"
generation_kwargs: {until: ["\\n\\n"], max_gen_toks: 4}
filter_list:
  - {name: anything, filter: [{function: regex, regex_pattern: "(?s)(.*)"}, {function: take_first}]}
  - {name: digits, filter: [{function: regex, regex_pattern: "(987654321)"}, {function: take_first}]}
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
"""
CHOOSE = """
output_type: multiple_choice
doc_to_text: "{{q}}"
doc_to_choice: ["yes", "no"]
doc_to_target: "{{['yes', 'no'].index(a)}}"
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
"""


def test_a_users_generation_task(engine: HFEngine, tmp_path: Path) -> None:
    _write_task(tmp_path / "mine", "evens", GENERATE)
    result = _run(engine, "evens", None, include=tmp_path / "mine")
    assert set(result.exact_match) == {"anything", "digits"}
    assert result.unparsed == {"anything": 0.0, "digits": 100.0}
    assert result.option_rank is None
    row = result.rows[0]
    assert row["target"] == "yes"
    assert json.loads(row["extracted"]) == {"anything": row["generation"], "digits": None}
    assert max(row["n_tokens"] for row in result.rows) <= 4


def test_a_users_multiple_choice_task(engine: HFEngine, tmp_path: Path) -> None:
    _write_task(tmp_path / "mine", "choose", CHOOSE)
    result = _run(engine, "choose", None, include=tmp_path / "mine", limit=4)
    assert (result.n_items, result.n_total) == (4, 5)
    assert set(result.exact_match) == {"acc"}
    assert (result.unparsed, result.truncated, result.generated_tokens) == ({}, None, 0)
    for row in result.rows:
        chosen = json.loads(row["extracted"])["acc"]
        assert chosen in ("yes", "no")
        assert json.loads(row["correct"]) == {"acc": int(chosen == row["target"])}
        assert row["generation"] == ""
    assert [row["target"] for row in result.rows] == ["yes", "no", "yes", "no"]


def test_a_task_without_right_or_wrong_is_refused(engine: HFEngine, tmp_path: Path) -> None:
    text = GENERATE.replace("exact_match", "bleu")
    _write_task(tmp_path / "mine", "bleu", text)
    with pytest.raises(UserError, match=r"no score of right or wrong.*exact_match or acc"):
        _run(engine, "bleu", None, include=tmp_path / "mine")


def test_same_scores_as_lm_evals_own_model(engine: HFEngine, tiny_data: Path) -> None:
    """The same task objects, run by lm-eval's HFLM on the same checkpoint."""
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.models import huggingface

    from infosteer_bench.tasks.catalog import build_task

    ours = _run(engine, "piqa", tiny_data)
    lm = engine.lm
    theirs = huggingface.HFLM(pretrained=lm.model, tokenizer=lm.tokenizer, batch_size=3, max_length=1024)  # type: ignore[attr-defined]
    task = build_task(read_tasks()["piqa"], prompt=PLAIN, data_root=tiny_data)
    task.set_config("generation_kwargs", {**task.get_config("generation_kwargs"), "max_gen_toks": 16})
    results: Any = simple_evaluate(theirs, tasks=[task], bootstrap_iters=0, log_samples=True)
    scores = results["results"]["infosteer_piqa"]
    for rule in FILTERS:
        assert 100 * scores[f"exact_match,{rule}"] == pytest.approx(ours.exact_match[rule])
        assert 100 * scores[f"unparsed,{rule}"] == pytest.approx(ours.unparsed[rule])
    assert 100 * scores["option_rank,none"] == pytest.approx(ours.option_rank)
    texts = {s["doc_id"]: s["resps"][0][0] for s in results["samples"]["infosteer_piqa"]}
    assert [row["generation"] for row in ours.rows] == [texts[n] for n in range(len(ours.rows))]


def test_a_built_task_serves_the_next_checkpoint(
    engine: HFEngine, tiny_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of the first evaluation may show in the second."""
    from infosteer_bench.evaluation import evaluate

    config = engine.eval_config.model_copy(update={"limit": 5})
    built: dict[str, Any] = {}

    def run() -> TaskResult:
        return evaluate_task(
            engine, read_tasks()["siqa"], eval_config=config, prompt=PLAIN, data_root=tiny_data, built=built
        )

    first = run()
    monkeypatch.setattr(evaluate, "build_task", lambda *_, **__: pytest.fail("built a second time"))
    second = run()
    assert list(built) == ["siqa"]
    assert (second.rows, second.exact_match, second.n_total) == (first.rows, first.exact_match, first.n_total)


def test_items_are_walked_as_lm_eval_walks_them(tiny_data: Path) -> None:
    from lm_eval.api.task import ConfigurableTask

    from infosteer_bench.tasks.catalog import build_task

    task: Any = build_task(read_tasks()["piqa"], prompt=PLAIN, data_root=tiny_data)
    slicings: list[dict[str, Any]] = [{}, {"limit": 3}, {"limit": 7, "rank": 1, "world_size": 2}, {"samples": [0, 4]}]
    for slicing in slicings:
        assert list(task.doc_iterator(**slicing)) == list(ConfigurableTask.doc_iterator(task, **slicing))
    before = next(iter(task.doc_iterator()))[1]
    task.dataset = {"test": task.dataset["test"].select([1, 2])}
    assert next(iter(task.doc_iterator()))[1] != before


def test_progress_and_its_end(engine: HFEngine, tiny_data: Path) -> None:
    seen: list[tuple[int, int]] = []
    evaluate_task(
        engine,
        read_tasks()["winogrande"],
        eval_config=engine.eval_config,
        prompt=PLAIN,
        data_root=tiny_data,
        on_progress=lambda done, total: seen.append((done, total)),
    )
    assert (8, 8) in seen
    assert engine.lm.on_progress is None


def test_nothing_is_written_to_the_terminal(tiny_data: Path, tmp_path: Path) -> None:
    model = build_tiny("llama", tmp_path / "model")
    code = f"""
from pathlib import Path
from infosteer_bench.evaluation import make_engine
from infosteer_bench.evaluation.evaluate import evaluate_task
from infosteer_bench.grid import EvalConfig, PromptConfig
from infosteer_bench.tasks.catalog import read_tasks
config = EvalConfig(dtype="float32", max_new_tokens=4, limit=2)
engine = make_engine("hf", eval_config=config)
engine.load(Path({str(model)!r}), weight_digest="0", runtime=None)
root = Path({str(tiny_data)!r})
evaluate_task(engine, read_tasks()["boolq"], eval_config=config, prompt=PromptConfig(), data_root=root)
"""
    environment = {k: v for k, v in os.environ.items() if k != "INFOSTEER_DEBUG"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert (done.stdout, done.stderr) == ("", "")
