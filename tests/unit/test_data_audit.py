"""Overlaps of data: found where they were put, counted as known for the real files, kept by runs and boards."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infosteer_bench.benchmark import TASKS
from infosteer_bench.cli import main
from infosteer_bench.data.audit import audit_data, masked, question_of, words, words_but_numbers
from infosteer_bench.data.mixes import build_mix, in_commonsense_dev
from infosteer_bench.data.roots import MINIWORLD, open_source
from infosteer_bench.data.sources import DataSource, LocalRoot
from infosteer_bench.errors import UserError
from infosteer_bench.grid import BUILTIN_MIXES, MixSpec, PromptConfig
from infosteer_bench.leaderboard import check, publish, rebuild
from infosteer_bench.leaderboard.store.compact import AUDIT_FILE, load
from infosteer_bench.records import (
    CellRecord,
    CheckpointRecord,
    DataAudit,
    read_record,
    write_sealed,
)
from infosteer_bench.runs import overlap
from infosteer_bench.runs.inputs import Roots
from infosteer_bench.runs.plan import Plan
from infosteer_bench.runs.repair import sweep
from infosteer_dev.miniworld import audit as leaks
from tests.unit.test_leaderboard_publish import write_run

REPOSITORY = Path(__file__).resolve().parents[2]


def put(root: Path, relative: str, questions: Iterable[str]) -> None:
    """A data file of items that ask these."""
    path = root / relative
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([{"instruction": text, "output": "it is", "answer": "1"} for text in questions]))


def audited(source: DataSource, specs: Iterable[MixSpec], tasks: Iterable[str], **kwargs: Any) -> DataAudit:
    tests = {task: source.get(f"dataset/{TASKS[task].folder}/test.json") for task in tasks}
    return audit_data(source, mixes=specs, tests=tests, **kwargs)


# --- what counts as the same question -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other", "exact", "alike"),
    [
        ("Ann has 3 pens.", "ann  has 3\npens", True, True),
        ("Ann has 3 pens .", "Ann has 4 pens.", False, True),
        ("Ann has 1,234.50 pens", "Ann has 7 pens", False, True),
        ("Ann has 3 pens", "Ann has three pens", False, False),
        ("Ann has 3 pens", "Bob has 3 pens", False, False),
        ("Sold 12 of 30", "Sold 1 of 2 of 30", False, False),
        ("no. #5", "No 5", True, True),
    ],
)
def test_which_questions_are_the_same(one: str, other: str, exact: bool, alike: bool):
    assert (words(one) == words(other)) is exact
    assert (words_but_numbers(one) == words_but_numbers(other)) is alike


def test_an_arithmetic_question_is_taken_without_choices_and_without_the_request():
    prompt = "How many? Answer Choices: (A) 1 (B) 2\nAnswer the above question. First think step by step and then."
    assert question_of(prompt) == "How many?"
    assert masked("1 of 2,000.5") == "# of #"


WORD = st.text("abcxyz0123456789", min_size=1, max_size=4)


@given(st.lists(WORD, min_size=1, max_size=8), st.data())
def test_case_punctuation_and_spacing_do_not_matter(parts: list[str], data: st.DataObject):
    gap = st.text(" \n\t.!?'\"-", min_size=1, max_size=3).map(lambda text: f"{text} ")
    spelled = "".join((part.upper() if data.draw(st.booleans()) else part) + data.draw(gap) for part in parts)
    assert words(spelled) == " ".join(parts)


# --- hand-made data -----------------------------------------------------------------------------------------------

QUESTION = st.sampled_from([f"How many {what} has {who}, {n}?" for what in "ab" for who in "xy" for n in (1, 2)])


@given(
    rows=st.lists(QUESTION, min_size=1, max_size=6),
    tests=st.lists(st.lists(QUESTION, min_size=1, max_size=6), min_size=2, max_size=3),
)
def test_every_overlap_is_found_and_no_other(rows: list[str], tests: list[list[str]], tmp_path_factory):
    """Against counting by hand: these questions differ in plain text and in one number alone."""
    root = tmp_path_factory.mktemp("data")
    names = ("addsub", "singleeq", "mawps")[: len(tests)]
    for task, questions in zip(names, tests, strict=True):
        put(root, f"dataset/{TASKS[task].folder}/test.json", questions)
    own = root / "own.json"
    put(root, "own.json", rows)
    found = audited(LocalRoot(root), [MixSpec(name="own", sources=(str(own),), tasks=names)], names)
    mix = found.mixes["own"]
    stems = [question[:-2] for question in rows]
    for task, questions in zip(names, tests, strict=True):
        assert mix.exact[task] == tuple(i for i, question in enumerate(questions) if question in rows)
        assert mix.masked[task] == tuple(i for i, question in enumerate(questions) if question[:-2] in stems)
        assert mix.development[task] == ()
        assert found.tests[task].items == len(questions)
    roots: dict[str, list[tuple[str, int]]] = {}
    for task, questions in zip(names, tests, strict=True):
        for place, question in enumerate(questions):
            roots.setdefault(question, []).append((task, place))
    assert sorted(found.repeated) == sorted(tuple(same) for same in roots.values() if len(same) > 1)
    for pair in found.shared:
        one, other = (set(tests[names.index(task)]) for task in pair.tests)
        assert pair.exact == len(one & other)
        assert pair.masked == len({question[:-2] for question in one} & {question[:-2] for question in other}) > 0


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """BoolQ's training file holds two questions of its test, one of them among the held-out rows; AddSub's and
    SingleEq's tests share one, and AddSub's repeats one."""
    train = [f"Is it so, case {chr(97 + i)}{chr(97 + j)}?" for i in range(20) for j in range(20)]
    held_out = next(question for question in train if in_commonsense_dev(question))
    trained = next(question for question in train if not in_commonsense_dev(question))
    put(tmp_path, "dataset/boolq/train.json", train)
    put(tmp_path, "dataset/boolq/test.json", ["Is it new?", trained.upper(), held_out, *(f"{n}?" for n in "abcde")])
    put(tmp_path, "dataset/AddSub/test.json", ["Add 2 and 3 .", "Add 4 and 3.", "add 2 and 3"])
    put(tmp_path, "dataset/SingleEq/test.json", ["Take 1 away.", "Add 2 and 3."])
    return tmp_path


def test_held_out_rows_are_told_apart(root: Path):
    found = audited(LocalRoot(root), [BUILTIN_MIXES["commonsense"]], ["boolq", "addsub", "singleeq"])
    mix = found.mixes["commonsense"]
    assert (mix.exact["boolq"], mix.masked["boolq"], mix.development["boolq"]) == ((1,), (1,), (2,))
    assert mix.exact["addsub"] == mix.masked["singleeq"] == ()
    assert mix.rows + mix.held_out == 400
    assert list(mix.sources) == ["boolq"]
    assert found.repeated == ((("addsub", 0), ("addsub", 2), ("singleeq", 1)),)
    assert [(pair.tests, pair.exact, pair.masked) for pair in found.shared] == [(("addsub", "singleeq"), 1, 1)]


def test_only_rows_that_are_trained_on_count(root: Path):
    source = LocalRoot(root)
    order = build_mix(BUILTIN_MIXES["commonsense"], source, prompt=PromptConfig(), max_examples=None).rows
    put(root, "dataset/boolq/test.json", [order[0].prompt, order[5].prompt])
    for limit, exact in ((1, (0,)), (5, (0,)), (6, (0, 1)), (None, (0, 1))):
        mix = audited(source, [BUILTIN_MIXES["commonsense"]], ["boolq"], max_examples=limit).mixes["commonsense"]
        assert (mix.max_examples, mix.exact["boolq"]) == (limit, exact)


def test_the_same_words_are_the_same_but_for_numbers_however_numbers_are_written(root: Path):
    put(root, "own.json", ["Add 2.5 to it."])
    put(root, "dataset/AddSub/test.json", ["Add 2,5 to it.", "Add 2.75 to it.", "Add 2, 75 to it."])
    mix = audited(
        LocalRoot(root), [MixSpec(name="own", sources=(str(root / "own.json"),), tasks=("addsub",))], ["addsub"]
    ).mixes["own"]
    assert (mix.exact["addsub"], mix.masked["addsub"]) == ((0,), (0, 1))


def test_a_test_record_without_a_question_is_named(root: Path):
    (root / "dataset/boolq/test.json").write_text('[{"instruction": "a"}, {"instruction": 3}]')
    with pytest.raises(UserError, match=r"boolq/test\.json, record 2: no text field 'instruction'"):
        audited(LocalRoot(root), [], ["boolq"])


# --- figures that are known otherwise -----------------------------------------------------------------------------


def test_the_real_files_overlap_as_measured_before(data_root: Path):
    """The figures that came with the data (its README, traps 2 to 4)."""
    source = LocalRoot(data_root)
    tasks = [task for task in TASKS if source.has(f"dataset/{TASKS[task].folder}/test.json")]
    found = audited(source, BUILTIN_MIXES.values(), tasks)
    commonsense, gsm8k = found.mixes["commonsense"], found.mixes["gsm8k"]
    in_training = {task: len(commonsense.exact[task]) + len(commonsense.development[task]) for task in tasks}
    assert {task: n for task, n in in_training.items() if n} == {"boolq": 1, "piqa": 2, "arc_easy": 2}
    assert not any(any(lists.values()) for lists in (gsm8k.exact, gsm8k.masked, gsm8k.development))
    shared = {pair.tests: pair.exact for pair in found.shared if pair.exact}
    assert shared == {
        ("addsub", "singleeq"): 111,
        ("addsub", "mawps"): 58,
        ("multiarith", "mawps"): 49,
        ("singleeq", "mawps"): 62,
    }


def test_the_mini_world_overlaps_as_its_own_audit_finds():
    source = open_source(MINIWORLD)
    found = audited(source, BUILTIN_MIXES.values(), TASKS)
    own = leaks.Audit()
    tests = {task: leaks.test_prompts(source, task) for task in TASKS}
    leaks._audit_overlap(leaks.mix_rows(source, parts=("train",)), tests, own)
    for name, spec in BUILTIN_MIXES.items():
        mix = found.mixes[name]
        for task in spec.tasks:
            assert own.overlap[task] == {"exact": len(mix.exact[task]), "numbers masked": len(mix.masked[task])}
    assert sum(len(positions) for positions in found.mixes["gsm8k"].masked.values()) > 0


# --- the command line ---------------------------------------------------------------------------------------------


def test_the_command_prints_what_overlaps_and_names_what_is_missing(root: Path, tmp_path: Path, capsys):
    assert main(["data", "audit", "--data-root", str(root), "--json", str(tmp_path / "out.json")]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    rows = DataAudit.model_validate_json((tmp_path / "out.json").read_text()).mixes["commonsense"].rows
    assert f"commonsense {rows} boolq 8 1 1 1" in lines
    assert "addsub singleeq 1 1" in lines
    assert {"addsub 1 1", "singleeq 0 1"} <= set(lines)
    assert "missing, so not looked at: dataset/piqa/test.json, the test of piqa" in lines
    assert "missing, so not looked at: gsm8k of mix gsm8k, so all of it" in lines
    assert sum("of mix commonsense" in line for line in lines) == 1


def test_a_folder_as_json_is_told_before_the_work(root: Path, tmp_path: Path, capsys):
    assert main(["data", "audit", "--data-root", str(root), "--json", str(tmp_path)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert f"--json: {tmp_path} is a folder" in captured.err


@pytest.mark.parametrize("action", ["list", "fetch", "dev"])
def test_options_of_the_audit_are_refused_elsewhere(action: str, root: Path, tmp_path: Path, capsys):
    for option in ("--board", "--json"):
        output = tmp_path / "out"
        assert main(["data", action, "--data-root", str(root), "--output", str(output), option, "x"]) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert f"data {action} takes no {option}; allowed: only with data audit" in captured.err
        assert not output.exists()


def board_of(folder: Path, root: Path, *, test_sha256: str | None = None) -> Path:
    """A board of BoolQ alone, whose records say that `root` was trained on and answered."""
    source = LocalRoot(root)
    run = write_run(folder / "run", n=8)
    mix = build_mix(BUILTIN_MIXES["commonsense"], source, prompt=PromptConfig(), max_examples=50)
    for path in (run / "checkpoints").glob("*.json"):
        record = read_record(path, CheckpointRecord)
        if record.mix:
            data = {"sources": mix.sources, "missing": mix.missing}
            record.model_copy(update={"data": data, "identity": {"train": {"max_examples": 50}}}).save(run)
    for path in (run / "cells").glob("*.json"):
        record = read_record(path, CellRecord)
        if record.task != "boolq":
            path.unlink()
            continue
        asked = {"data": test_sha256 or source.get("dataset/boolq/test.json").sha256}
        record.model_copy(update={"identity": {"task": asked}}).save(run)
    return publish(run, folder / "board")


def test_an_audit_is_added_to_a_board_and_to_a_run(root: Path, tmp_path: Path, capsys):
    board = board_of(tmp_path / "out", root)
    before = (board / "leaderboard.csv").read_text()
    assert main(["data", "audit", "--data-root", str(root), "--board", str(board)]) == 0
    assert AUDIT_FILE in capsys.readouterr().out
    assert {"leaderboard.csv", "leaderboard.md", "deltas.csv", "provenance.json"} <= set(check(board))
    rebuild(board)
    assert check(board) == []
    assert "mean:clean" in (board / "leaderboard.csv").read_text()
    audit = load(board).audit
    assert audit is not None
    assert (list(audit.tests), audit.mixes["commonsense"].max_examples) == (["boolq"], 50)
    run = tmp_path / "out" / "run"
    assert main(["data", "audit", "--data-root", str(root), "--board", str(run)]) == 0
    again = publish(run, tmp_path / "again")
    assert (again / AUDIT_FILE).read_bytes() == (board / AUDIT_FILE).read_bytes()
    (run / "audit.json").unlink()
    assert (publish(run, again) / "leaderboard.csv").read_text() == before
    assert not (again / AUDIT_FILE).exists()


def test_an_audit_of_other_data_is_refused(root: Path, tmp_path: Path, capsys):
    board = board_of(tmp_path / "one", root)
    other = Path(shutil.copytree(root, tmp_path / "other"))
    put(other, "dataset/boolq/train.json", ["Is it so?", "Is it not?"])
    assert main(["data", "audit", "--data-root", str(other), "--board", str(board)]) == 2
    assert "mix commonsense holds other rows than were trained on" in capsys.readouterr().err
    board = board_of(tmp_path / "two", root, test_sha256="0" * 64)
    assert main(["data", "audit", "--data-root", str(root), "--board", str(board)]) == 2
    assert "the test of boolq is another file than was answered" in capsys.readouterr().err
    assert not (board / AUDIT_FILE).exists()


@pytest.mark.parametrize("damage", ["{", '{"tests": 1}', "edited", "other file"])
def test_a_damaged_audit_is_told_and_can_be_made_again(damage: str, root: Path, tmp_path: Path, capsys):
    board = board_of(tmp_path / "out", root)
    command = ["data", "audit", "--data-root", str(root), "--board", str(board)]
    assert main(command) == 0
    path = board / AUDIT_FILE
    text = path.read_text()
    if damage == "edited":
        path.write_text(text.replace('"exact":{"boolq":[', '"exact":{"boolq":[3,', 1))
    elif damage == "other file":
        data = json.loads(text)
        del data["content_digest"]
        data["tests"]["boolq"]["sha256"] = "0" * 64
        write_sealed(path, data)
    else:
        path.write_text(damage)
    assert path.read_text() != text
    for broken in (["leaderboard", "--output", str(board)], ["leaderboard", "--output", str(board), "--check"]):
        capsys.readouterr()
        assert main(broken) == 2
        said = capsys.readouterr().err
        assert "records/audit.json" in said
        assert "data audit --board" in said
    assert main(command) == 0
    assert path.read_text() == text


@pytest.mark.parametrize("content", ["", "[1, 2]", '{"content_digest": "44136fa355b3678a"}'])
def test_a_runs_damaged_audit_is_told_too(content: str, root: Path, tmp_path: Path, capsys):
    """The last of them is sealed, but no audit."""
    run = board_of(tmp_path / "out", root).with_name("run")
    (run / "audit.json").write_text(content)
    assert main(["leaderboard", "--runs", str(run)]) == 2
    assert "audit.json does not verify; next: run the command of that run again" in capsys.readouterr().err


def test_a_folder_that_is_neither_board_nor_run_is_told(root: Path, tmp_path: Path, capsys):
    assert main(["data", "audit", "--data-root", str(root), "--board", str(tmp_path / "none")]) == 2
    assert "no board" in capsys.readouterr().err


# --- a run keeps it -----------------------------------------------------------------------------------------------


def planned(root: Path, *, max_examples: int | None = None) -> tuple[Plan, Roots]:
    """As much of a plan as an audit looks at."""
    source, spec = LocalRoot(root), BUILTIN_MIXES["commonsense"]
    mix = build_mix(spec, source, prompt=PromptConfig(template="alpaca"), max_examples=max_examples)
    inputs = SimpleNamespace(
        mixes={(spec.name, "a"): mix, (spec.name, "b"): mix},
        mix_specs=(spec,),
        test_files={"boolq": source.get("dataset/boolq/test.json")},
    )
    plan = SimpleNamespace(inputs=inputs, grid=SimpleNamespace(train=SimpleNamespace(max_examples=max_examples)))
    return cast(Plan, plan), Roots(data_root=root)


def test_a_run_audits_once_and_again_only_when_its_data_change(root: Path, tmp_path: Path, monkeypatch):
    made: list[DataAudit] = []

    def counted(*args: Any, **kwargs: Any) -> DataAudit:
        made.append(audit_data(*args, **kwargs))
        return made[-1]

    monkeypatch.setattr(overlap, "audit_data", counted)
    run = tmp_path / "run"
    for times, change in enumerate(("nothing", "rows", "test", "damage", "version"), start=1):
        if change == "test":
            put(root, "dataset/boolq/test.json", ["Is it old?"])
        if change == "damage":
            (run / overlap.FILE).write_text("{")
            assert sweep(run) == ["audit.json does not verify: written anew"]
        if change == "version":
            write_sealed(run / overlap.FILE, {**made[-1].model_dump(mode="json"), "version": 0})
        for _ in range(2):
            plan, roots = planned(root, max_examples=None if change == "nothing" else 30)
            overlap.keep_audit(plan, run, roots)
        assert len(made) == times
    assert [audit.mixes["commonsense"].rows for audit in made][1:] == [30, 30, 30, 30]
    assert made[0].mixes["commonsense"].exact["boolq"] == (1,), "whatever template the run itself uses"


def test_an_audit_loads_no_torch():
    program = "import sys, infosteer_bench.data.audit, infosteer_bench.runs.overlap\nprint('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, cwd=REPOSITORY)
    assert done.stdout.strip() == "False"
