"""The 15 tasks: what the YAMLs say, built by lm-eval's own TaskManager on the real data, scored by the hooks."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tiny import build_data_root, build_tiny

from infosteer_bench.benchmark import GROUPS, TASKS
from infosteer_bench.data.render import Renderer
from infosteer_bench.errors import UserError
from infosteer_bench.grid import PromptConfig
from infosteer_bench.tasks import catalog
from infosteer_bench.tasks.catalog import build_task, read_tasks, select_tasks, tasks_dir
from infosteer_bench.tasks.filters import RULES, AnswerSpec, correct

ROOT = Path(__file__).resolve().parents[2]
ITEMS = {  # docs/method.md's table, in its order
    "boolq": 3270, "piqa": 1838, "siqa": 1954, "hellaswag": 10042, "winogrande": 1267, "arc_easy": 2376,
    "arc_challenge": 1172, "openbookqa": 500, "gsm8k": 1319, "addsub": 395, "singleeq": 508, "multiarith": 600,
    "aqua": 254, "mawps": 238, "svamp": 1000,
}  # fmt: skip
CHOICE = list(ITEMS)[:8]


class Ended(str):
    """A response as our engines give it: text with the reason why it ended."""

    finish_reason = "length"


@pytest.fixture(scope="module")
def small_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_data_root(tmp_path_factory.mktemp("data"))


def test_the_fifteen_tasks() -> None:
    tasks = read_tasks()
    assert list(tasks) == list(ITEMS) == list(GROUPS["all"])
    for name, info in tasks.items():
        assert info.lm_eval_name == info.path.stem == f"infosteer_{name}"
        assert info.data_file == f"dataset/{TASKS[name].folder}/test.json"
        assert info.kind == ("choice" if name in CHOICE else "letter" if name == "aqua" else "number")
        assert name in GROUPS[info.type]
        assert name in GROUPS["id" if info.default_split == "ID" else "ood"]
        assert info.version == 1
    assert len({info.digest for info in tasks.values()}) == 15


def test_digest_follows_content_and_filters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = tmp_path / "tasks"
    shutil.copytree(tasks_dir(), copy)
    before = read_tasks()["boolq"].digest
    monkeypatch.setattr(catalog, "tasks_dir", lambda: copy)
    assert read_tasks()["boolq"].digest == before, "comments, order of keys and place do not matter"
    template = copy / "_choice_template_yaml"
    text = template.read_text(encoding="utf-8")
    template.write_text("# a comment\n" + text)
    assert read_tasks()["boolq"].digest == before
    template.write_text(text.replace("max_gen_toks: 256", "max_gen_toks: 255"))
    changed = read_tasks()
    assert changed["boolq"].digest != before
    assert changed["gsm8k"].digest == catalog.read_tasks()["gsm8k"].digest
    template.write_text(text)
    monkeypatch.setattr(catalog, "FILTERS_VERSION", 99)
    assert read_tasks()["boolq"].digest != before


def test_reading_imports_nothing_heavy() -> None:
    code = (
        "import sys; from infosteer_bench.tasks.catalog import read_tasks; read_tasks(); "
        "print([m for m in ('torch', 'transformers', 'lm_eval', 'datasets', 'pandas') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("texts", "names"),
    [
        (["all"], list(ITEMS)),
        (["ood5"], ["addsub", "singleeq", "multiarith", "mawps", "svamp"]),
        (["svamp,boolq"], ["boolq", "svamp"]),
        (["math", "gsm8k"], list(ITEMS)[8:]),
        (["infosteer_boolq", "infosteer_knowledge"], ["boolq", "arc_easy", "arc_challenge", "openbookqa"]),
        (["id"], list(ITEMS)[:9]),
    ],
)
def test_select(texts: list[str], names: list[str]) -> None:
    assert select_tasks(texts, read_tasks()) == names


def test_select_refuses() -> None:
    with pytest.raises(UserError, match=r"unknown task 'boolqq'.*did you mean 'boolq'"):
        select_tasks(["boolqq"], read_tasks())
    with pytest.raises(UserError, match="no task"):
        select_tasks([], read_tasks())


def test_groups_hold_what_the_catalog_says(small_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lm_eval.tasks import TaskManager

    monkeypatch.setenv("INFOSTEER_DATA_ROOT", str(small_root))
    manager = TaskManager(include_path=str(tasks_dir()), include_defaults=False)
    assert set(manager.all_subtasks) == {f"infosteer_{name}" for name in ITEMS}
    assert set(manager.all_groups) == {f"infosteer_{name}" for name in GROUPS}
    for group, members in GROUPS.items():
        loaded = manager.load(f"infosteer_{group}")
        assert set(loaded["tasks"]) == {f"infosteer_{name}" for name in members}
        for metric in loaded["groups"][f"infosteer_{group}"].aggregate_metric_list or []:
            assert (metric.aggregation, metric.weight_by_size) == ("mean", False)


@pytest.mark.parametrize("name", ITEMS)
def test_builds_on_the_real_data(name: str, data_root: Path) -> None:
    info = read_tasks()[name]
    task = build_task(info, data_root=data_root)
    docs = task.eval_docs
    assert len(docs) == ITEMS[name]
    assert task.OUTPUT_TYPE == "generate_until"
    assert task.VERSION == 1.0
    settings = task.config.generation_kwargs
    assert settings is not None
    assert (settings["do_sample"], settings["max_gen_toks"]) == (False, 256)
    records = json.loads((data_root / str(info.data_file)).read_text(encoding="utf-8"))
    renderer = Renderer(PromptConfig())
    for doc, record in zip(docs, records, strict=True):
        assert doc["prompt"] == renderer.prompt(record, info.kind)
        spec = AnswerSpec(doc["kind"], tuple(doc["options"]))
        if info.kind == "choice":
            assert doc["target"] in doc["options"]
            assert doc["completions"] == [f"the correct answer is {option}" for option in doc["options"]]
            trained = record["output"]
        else:
            assert doc["completions"] == []
            trained = f"So it is.\nThe final answer is: {record['answer']}"
        for rule in RULES.values():
            # LLM-Adapters' letter rule takes the first capital A to E, which the rationale must not hold.
            assert correct(rule(trained, spec), doc["target"], info.kind)
        # Neither an echo of the prompt nor a stop sequence gets in the way of the answer.
        for rule in (RULES["robust"], RULES["strict"]):
            assert rule(doc["prompt"], spec) is None
            assert correct(rule(doc["prompt"] + trained, spec), doc["target"], info.kind)
        assert not any(stop in trained for stop in settings["until"])


def test_the_arc_item_with_five_options(data_root: Path) -> None:
    docs = build_task(read_tasks()["arc_easy"], data_root=data_root).eval_docs
    five = [doc for doc in docs if doc["target"] == "answer5"]
    assert [doc["options"] for doc in five] == [[f"answer{n}" for n in range(1, 6)]]


def test_requests_and_scores_of_a_choice_task(small_root: Path) -> None:
    from lm_eval.api.task import ConfigurableTask

    from infosteer_bench.tasks.lm_eval_hooks import GeneratedAnswerTask

    task = build_task(read_tasks()["siqa"], data_root=small_root)
    assert isinstance(task, GeneratedAnswerTask)
    assert isinstance(task, ConfigurableTask)
    task.build_all_requests(limit=2)
    first = [request for request in task.instances if request.doc_id == 0]
    doc = first[0].doc
    assert [r.request_type for r in first] == ["generate_until", *["loglikelihood"] * 3]
    assert [r.idx for r in first] == [0, 1, 2, 3]
    assert first[0].args == (doc["prompt"], task.config.generation_kwargs)
    assert [r.args for r in first[1:]] == [(doc["prompt"], f"the correct answer is answer{n}") for n in (1, 2, 3)]
    assert doc["target"] == "answer1"
    texts = [Ended("the correct answer is answer1"), Ended("Answer 3")]
    for request in task.instances:
        response = texts[request.doc_id] if request.idx == 0 else (-float(request.idx), False)
        request.resps.append(response)
    task.apply_filters()
    scores = {
        (request.doc_id, rule): task.process_results(
            request.doc, [r.filtered_resps[rule] for r in task.instances if r.doc_id == request.doc_id]
        )
        for request in task.instances
        for rule in ("none", "robust", "strict", "legacy")
    }
    right, wrong, nothing = ({"exact_match": a, "unparsed": b} for a, b in ((1.0, 0.0), (0.0, 0.0), (0.0, 1.0)))
    assert scores == {
        (0, "none"): {"truncated": 1.0, "option_rank": 1.0},
        (0, "robust"): right,
        (0, "strict"): right,
        (0, "legacy"): right,
        (1, "none"): {"truncated": 1.0, "option_rank": 0.0},
        (1, "robust"): wrong,
        (1, "strict"): nothing,
        (1, "legacy"): nothing,
    }
    assert all(r.filtered_resps["robust"] == (-float(r.idx), False) for r in task.instances if r.idx)


def test_scores_of_a_number_task_without_a_finish_reason(small_root: Path) -> None:
    task = build_task(read_tasks()["multiarith"], data_root=small_root)
    task.build_all_requests(limit=1)
    (request,) = task.instances
    assert request.doc["target"] == "3"
    request.resps.append("0 + 3 = 3\nThe final answer is: 3.0")
    task.apply_filters()
    assert task.process_results(request.doc, [request.filtered_resps["none"]]) == {}
    assert task.process_results(request.doc, [request.filtered_resps["strict"]]) == {"exact_match": 1, "unparsed": 0}


def test_prompt_templates(small_root: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    info = read_tasks()["boolq"]
    plain = build_task(info, data_root=small_root).eval_docs[0]["prompt"]
    alpaca = build_task(info, data_root=small_root, prompt=PromptConfig(template="alpaca")).eval_docs[0]["prompt"]
    assert plain.strip() in alpaca
    assert "### Instruction:" in alpaca
    chat = PromptConfig(template="chat")
    tokenizer = AutoTokenizer.from_pretrained(str(build_tiny("qwen2", tmp_path / "tiny")))
    with pytest.raises(UserError, match="chat template"):
        build_task(info, data_root=small_root, prompt=chat, tokenizer=tokenizer)
    tokenizer.chat_template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>"
    task = build_task(info, data_root=small_root, prompt=chat, tokenizer=tokenizer)
    task.build_all_requests(limit=1)
    assert {request.args[0] for request in task.instances} == {f"<user>{plain.strip()}<assistant>"}


@pytest.mark.parametrize(
    ("task", "record", "message"),
    [
        (
            "boolq",
            {"instruction": "Is it?", "answer": "true"},
            "record 1: the instruction does not end with its options",
        ),
        ("boolq", {"instruction": "Answer format: true/false", "answer": "yes"}, "answer 'yes' is no choice"),
        ("boolq", {"instruction": "Answer format: true/false"}, "no text field 'answer'"),
        ("gsm8k", {"instruction": "How many?", "answer": "many"}, "answer 'many' is no number"),
        ("gsm8k", {"instruction": 7, "answer": "7"}, "no text field 'instruction'"),
        ("aqua", {"instruction": "Which?", "answer": "F"}, "answer 'F' is no letter; allowed: A to E"),
    ],
)
def test_records_that_are_no_items(tmp_path: Path, task: str, record: dict[str, object], message: str) -> None:
    folder = tmp_path / "dataset" / TASKS[task].folder
    folder.mkdir(parents=True)
    (folder / "test.json").write_text(json.dumps([record]), encoding="utf-8")
    with pytest.raises(UserError, match=message):
        build_task(read_tasks()[task], data_root=tmp_path)


def test_missing_data_file(tmp_path: Path, small_root: Path) -> None:
    root = tmp_path / "data"
    shutil.copytree(small_root, root)
    (root / "dataset" / "boolq" / "test.json").unlink()
    with pytest.raises(UserError, match=r"boolq/test\.json"):
        build_task(read_tasks()["boolq"], data_root=root)
