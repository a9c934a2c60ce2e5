"""The checks of `smoke` on tasks, cells and boards: they hold on what is whole and fail on an injected fault."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny import build_data_root

from infosteer_bench.benchmark import GROUPS
from infosteer_bench.data.render import Renderer
from infosteer_bench.data.roots import open_source
from infosteer_bench.grid import EvalConfig, PromptConfig
from infosteer_bench.records import CellRecord
from infosteer_bench.smoke import Probes, Problems, probe_tasks
from infosteer_bench.smoke.board import examine_board
from infosteer_bench.smoke.tasks import examine_answers, examine_cell, examine_tokenizer
from infosteer_bench.tasks import catalog, filters, items, lm_eval_hooks

ROOT = Path(__file__).resolve().parents[2]

CHOICE, NUMBER, LETTER = "siqa", "svamp", "aqua"


@pytest.fixture(scope="module")
def invented(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_data_root(tmp_path_factory.mktemp("data"))


def probed(root: Path, *names: str) -> Probes:
    tasks = {name: info for name, info in catalog.read_tasks().items() if name in names}
    source = open_source(root)
    files = {name: source.get(info.data_file) for name, info in tasks.items() if info.data_file}
    return probe_tasks(tasks, files, eval_config=EvalConfig(), prompt=PromptConfig(), data_root=root)


def failing(root: Path, *names: str) -> dict[str, str]:
    return {one.name.removeprefix("scoring "): one.line() for one in probed(root, *names).checks if not one.ok}


def test_all_tasks_score_what_they_are_given(invented: Path):
    probes = probed(invented, *GROUPS["all"])
    assert [one.line() for one in probes.checks if not one.ok] == []
    assert len(probes.checks) == len(probes.prompts) == 15
    assert {len(prompts) for prompts in probes.prompts.values()} == {8}


def _rule(name: str, rule: Callable[[str, filters.AnswerSpec], str | None]) -> Callable[[pytest.MonkeyPatch], None]:
    return lambda patch: patch.setitem(filters.RULES, name, rule)


TASK_FAULTS: dict[str, tuple[Callable[[pytest.MonkeyPatch], None], set[str]]] = {
    "reads the first number": (
        _rule("legacy", lambda text, spec: "3" if spec.kind == "number" else filters.legacy(text, spec)),
        {NUMBER},
    ),
    "finds nothing": (_rule("robust", lambda text, spec: None), {CHOICE, NUMBER, LETTER}),
    "always an answer": (
        _rule("strict", lambda text, spec: filters.strict(text, spec) or "A"),
        {CHOICE, NUMBER, LETTER},
    ),
    "strict is robust": (_rule("strict", filters.robust), {CHOICE, NUMBER, LETTER}),
    "raises": (
        _rule("robust", lambda text, spec: filters.robust(text, spec) if spec.kind == "choice" else text[999]),
        {NUMBER, LETTER},
    ),
    "everything is right": (
        lambda patch: patch.setattr(lm_eval_hooks, "correct", lambda *_: True),
        {CHOICE, NUMBER, LETTER},
    ),
    "the first option is ranked first": (
        lambda patch: patch.setattr(lm_eval_hooks, "rank_options", lambda options, likelihoods: options[0]),
        {CHOICE},
    ),
    "the prompt lost the question": (
        lambda patch: patch.setattr(Renderer, "prompt", lambda self, record, kind: "Answer the above question.\n"),
        {CHOICE, NUMBER, LETTER},
    ),
    "a wrong target": (
        lambda patch: patch.setattr(items, "canonical_answer", lambda answer, spec: "answer1"),
        {CHOICE, NUMBER, LETTER},
    ),
    "the completion lost the answer": (
        lambda patch: patch.setattr(Renderer, "completion", lambda self, record, kind: "the correct answer is"),
        {CHOICE, NUMBER, LETTER},
    ),
}


@pytest.mark.parametrize("fault", TASK_FAULTS)
def test_a_broken_task_is_found(invented: Path, monkeypatch: pytest.MonkeyPatch, fault: str):
    patch, expected = TASK_FAULTS[fault]
    patch(monkeypatch)
    assert set(failing(invented, CHOICE, NUMBER, LETTER)) == expected


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("rule: robust", "rule: legacy}, {function: lowercase"),  # a filter in the wrong place
        ("rule: strict", "rule: legacy"),
        ("doc_to_text: prompt", "doc_to_text: target"),
        ("- name: legacy", "- name: classic"),
        ("class: !function infosteer_bench.tasks.lm_eval_hooks.GeneratedAnswerTask", "class: !function builtins.dict"),
    ],
)
def test_a_broken_task_file_is_found(
    invented: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, old: str, new: str
):
    info = catalog.read_tasks()
    folder = tmp_path / "tasks"
    shutil.copytree(catalog.tasks_dir(), folder)
    template = folder / "_reasoning_template_yaml"
    text = template.read_text()
    assert old in text
    template.write_text(text.replace(old, new))
    monkeypatch.setattr(catalog, "tasks_dir", lambda: folder)
    monkeypatch.setattr(catalog, "read_tasks", lambda: info)  # so that building, not reading, meets the fault
    assert set(failing(invented, CHOICE, LETTER)) == {LETTER}


# --- cells and board


def cell(**changes: Any) -> tuple[CellRecord, list[dict[str, Any]]]:
    percents = dict.fromkeys(("robust", "strict", "legacy"), 50.0)
    record = CellRecord(
        key="k",
        status="success",
        identity={},
        checkpoint_key="c",
        model="m",
        family="llama",
        method="sft",
        arm="",
        mix="gsm8k",
        seed=0,
        task=NUMBER,
        split="OOD",
        engine="hf",
        dtype="float32",
        limit=2,
        n_items=2,
        n_total=9,
        exact_match=percents,
        unparsed=percents,
        truncated=0.0,
    )
    # sha256 of "a" and "b", 16 digits
    rows = [
        {"doc_id": 0, "prompt_digest": "ca978112ca1bbdca", "n_tokens": 3, "generation": "x"},
        {"doc_id": 1, "prompt_digest": "3e23e8160039594a", "n_tokens": 3, "generation": "y"},
    ]
    items = {key: changes.pop(key) for key in ("n_tokens", "prompt_digest", "doc_id") if key in changes}
    rows[1].update(items)
    return record.model_copy(update=changes), rows


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, None),
        ({"n_items": 1}, "items: expected 2, got 1"),
        ({"doc_id": 5}, "recorded items: expected [0, 1], got [0, 5]"),
        ({"exact_match": {"robust": 1.0}}, "filters with a score"),
        ({"unparsed": {}}, "filters with a share unparsed"),
        (
            {"exact_match": {"robust": 1.0, "strict": 101.0, "legacy": 0.0}},
            "score of strict: expected 0 to 100, got 101",
        ),
        ({"option_rank": 50.0}, "has option_rank: expected False, got True"),
        ({"truncated": None}, "has a share truncated"),
        ({"n_tokens": 0}, "items without a generated token: expected [], got [1]"),
        ({"prompt_digest": "0"}, "prompts, by digest"),
    ],
)
def test_a_broken_cell_is_found(changes: dict[str, Any], told: str | None):
    record, items = cell(**changes)
    problems = Problems()
    examine_cell(problems, record, items, info=catalog.read_tasks()[NUMBER], prompts=["a", "b", "c"], limit=2)
    assert (told is None and not problems.texts) or any(told in text for text in problems.texts if told)


def test_a_choice_without_option_rank_is_found():
    record, items = cell(task=CHOICE)
    problems = Problems()
    examine_cell(problems, record, items, info=catalog.read_tasks()[CHOICE], prompts=["a", "b"], limit=2)
    assert problems.texts == ["sft gsm8k: has option_rank: expected True, got False"]


def test_answers_of_the_base_model_under_another_name_are_found():
    sft, base = cell(), cell(method="base", mix=None)
    problems = Problems()
    examine_answers(problems, {NUMBER: [sft, base]})
    assert problems.texts == ["sft: answers that differ from base's: expected more than 0, got 0"]
    problems = Problems()
    sft[1][0]["generation"] = "z"
    assert "sft 1 of 2" in examine_answers(problems, {NUMBER: [sft, base]})
    assert problems.texts == []


def test_a_board_that_lacks_a_row_is_found(tmp_path: Path):
    board = tmp_path / "board"
    shutil.copytree(ROOT / "leaderboards" / "smollm2-demo", board)
    rows = list(csv.DictReader((board / "leaderboard.csv").open()))
    expected = {(r["model"], r["method"], r["mix"], r["task"]) for r in rows if not r["task"].startswith("mean:")}
    problems = Problems()
    assert examine_board(problems, board, expected=expected).startswith("60 rows")
    assert problems.texts == []
    place = sorted(expected)[0]
    examine_board(problems, board, expected=(expected - {place}) | {(*place[:3], "zoo")})
    assert ["zoo" in text for text in problems.texts] == [True, False]
    assert "nobody asked for" in problems.texts[1]
    text = (board / "leaderboard.csv").read_text().splitlines(keepends=True)
    (board / "leaderboard.csv").write_text("".join(text[:1] + text[2:]))
    problems = Problems()
    examine_board(problems, board, expected=expected)
    assert "expected [], got ['leaderboard.csv']" in problems.texts[0]
    assert "rows that are missing" in problems.texts[1]


class _Deaf:
    """A tokenizer that knows no word but one."""

    bos_token_id = eos_token_id = None

    def __call__(self, texts: list[str], **_: Any) -> dict[str, list[list[int]]]:
        return {"input_ids": [[1] if "known" in text else [] for text in texts]}

    def decode(self, ids: list[int], **_: Any) -> str:
        return "known" * len(ids)


def test_a_tokenizer_that_drops_the_question_is_found():
    tokenizer: Any = _Deaf()
    problems = Problems()
    examine_tokenizer(problems, tokenizer, ["known"])
    assert problems.texts == []
    examine_tokenizer(problems, tokenizer, ["known", "a question?"])
    assert problems.texts == ["_Deaf: expected 'a question?' back, got ''"]
    problems = Problems()
    examine_tokenizer(problems, tokenizer, [])
    assert problems.texts == ["prompts: expected more than 0, got 0"]
