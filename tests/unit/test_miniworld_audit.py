"""The leak audit finds a leak of every kind, and the baselines are what a guesser would get."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from infosteer_bench.benchmark import COMMONSENSE, TASKS
from infosteer_bench.cli import main
from infosteer_bench.data.audit import masked, question_of
from infosteer_bench.data.miniworld import items
from infosteer_bench.data.miniworld.problems import Piece
from infosteer_bench.data.miniworld.world import Creature, World, make_world
from infosteer_bench.data.mixes import GSM8K_DEV_ROWS
from infosteer_bench.data.roots import MINIWORLD, open_source
from infosteer_bench.data.sources import GSM8K_TRAIN, LocalRoot
from infosteer_dev.miniworld import audit as audit_module
from infosteer_dev.miniworld.audit import EXAM_LIKE, Audit, facts_in, leak_audit
from infosteer_dev.miniworld.baselines import baselines, options_of
from infosteer_dev.miniworld.corpus import Corpus

WORLD = make_world(3, sizes={"exam": 40, "mix": 12, "asked": 12})
Records = list[dict[str, Any]]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_module, "EXAM_ROWS", 64)
    monkeypatch.setattr(audit_module, "MOST_ROWS", 2000)
    monkeypatch.setattr(audit_module, "ROWS", 64)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The files of a small world."""
    for task in TASKS:
        write(tmp_path, task, "test", items.task_items(WORLD, task, count=24))
        if task in COMMONSENSE:
            write(tmp_path, task, "train", items.commonsense_records(WORLD, task, "train", count=300))
    rows = items.gsm8k_train_records(WORLD.seed, count=GSM8K_DEV_ROWS + 50)
    (tmp_path / GSM8K_TRAIN).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def path_of(root: Path, task: str, part: str) -> Path:
    return root / "dataset" / TASKS[task].folder / f"{part}.json"


def write(root: Path, task: str, part: str, records: Records) -> None:
    path_of(root, task, part).parent.mkdir(parents=True, exist_ok=True)
    path_of(root, task, part).write_text(json.dumps(records))


def read(root: Path, task: str, part: str) -> Records:
    return json.loads(path_of(root, task, part).read_text())


def audit(root: Path, world: World = WORLD, make_corpus: Callable[..., Corpus] = Corpus) -> Audit:
    return leak_audit(world, LocalRoot(root), make_corpus=make_corpus)


def test_a_clean_world_has_no_leak_and_everything_was_read(root: Path):
    found = audit(root)
    assert found.leaks == []
    assert found.counts["asked facts"] == found.counts["asked facts met in the pretraining text"] == 12 * 8
    assert found.counts["rows of commonsense train"] + found.counts["rows of commonsense dev"] == 300 * 8
    assert found.counts["rows of commonsense dev"] > 0
    assert (found.counts["rows of gsm8k train"], found.counts["rows of gsm8k dev"]) == (50, GSM8K_DEV_ROWS)
    assert all(found.counts[f"test items of {task}"] == 24 for task in TASKS)
    assert set(found.overlap) == set(TASKS)


def asked() -> Creature:
    return WORLD.groups["asked"][5]


@pytest.mark.parametrize("place", ["Kate visits the {}.", "{} is kind.", "Take {} along,"])
@pytest.mark.parametrize("spell", [str.lower, str.title])
def test_an_asked_name_in_one_training_row_is_found(root: Path, place: str, spell: Callable[[str], str]):
    rows = read(root, "siqa", "train")
    rows[7]["instruction"] = place.format(spell(asked().name)) + " " + rows[7]["instruction"]
    write(root, "siqa", "train", rows)
    leaks = audit(root).leaks
    assert len(leaks) == 1
    assert leaks[0].startswith("commonsense train: an asked creature is named (1 times")
    assert asked().name in leaks[0]


def test_an_asked_fact_in_a_completion_or_the_development_part_is_found(root: Path):
    path = root / GSM8K_TRAIN
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[-1]["answer"] = f"The {asked().name} eats {asked().values['food']}.\n" + rows[-1]["answer"]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    leaks = audit(root).leaks
    assert [leak.split(" (")[0] for leak in leaks] == [
        "gsm8k dev: an asked creature is named",
        "gsm8k dev: an asked fact stands in a row",
    ]
    assert f"{asked().name} food {asked().values['food']}" in leaks[1]


def test_a_test_item_among_the_training_rows_is_found_in_every_task(root: Path):
    for task in COMMONSENSE:
        rows = read(root, task, "train")
        write(root, task, "train", [*rows, read(root, task, "test")[3]])
    found = audit(root)
    for task in COMMONSENSE:
        assert any(f"a question of {task}'s test stands there (1" in leak for leak in found.leaks), task
        assert found.overlap[task]["exact"] == 1
    assert any("an asked creature is named" in leak for leak in found.leaks)


def test_a_mathematics_question_among_the_rows_is_found_and_other_numbers_are_counted(root: Path):
    path = root / GSM8K_TRAIN
    tasks = ("gsm8k", "svamp", "aqua")
    questions = {task: question_of(read(root, task, "test")[0]["instruction"]) for task in tasks}
    rows = {
        task: {"question": masked(question).replace("#", "3"), "answer": "So it is 3.\n#### 3"}
        for task, question in questions.items()
    }
    kept = path.read_text()
    before = audit(root)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows.values()) + kept)
    alike = audit(root)
    assert alike.leaks == []
    for task in tasks:
        assert alike.overlap[task]["numbers masked"] == before.overlap[task]["numbers masked"] + 1
    for task in tasks:  # each by itself: nothing else is said of it
        path.write_text(json.dumps({**rows[task], "question": questions[task]}) + "\n" + kept)
        leaks = audit(root).leaks
        assert [leak.split(" (")[0] for leak in leaks] == [f"gsm8k train: a question of {task}'s test stands there"]


def test_a_commonsense_question_in_other_numbers_is_found(root: Path):
    for part, number in (("test", "7"), ("train", "9")):
        rows = read(root, "boolq", part)
        rows[0]["instruction"] = f"In {number} days, what then?\n\nAnswer format: true/false"
        write(root, "boolq", part, rows)
    assert any("stands there but for its numbers" in leak for leak in audit(root).leaks)


def test_a_test_item_about_other_creatures_is_found(root: Path):
    write(root, "arc_easy", "test", items.commonsense_records(WORLD, "arc_easy", "train", count=24)[:1])
    assert any("arc_easy test: an item is not about asked creatures" in leak for leak in audit(root).leaks)


def test_a_name_that_is_a_word_is_found(root: Path):
    last = WORLD.groups["asked"][-1]
    renamed = Creature("lives", "asked", last.values, last.weight)
    world = World(WORLD.seed, {**WORLD.groups, "asked": (*WORLD.groups["asked"][:-1], renamed)})
    assert audit(root, world).leaks[0].startswith("the asked creature 'lives' has the name of a word")


# --- planted into the pretraining text --------------------------------------------------------------------------


class ExamsTooWide(Corpus):
    """Asks about every creature."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.exam = list(self.world.creatures)


class TwinKnows(Corpus):
    """Withholds nothing from the twin."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "withheld": None})


class NotTold(Corpus):
    """Withholds the asked facts from the model too."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "withheld": "asked"})


class OneMissing(Corpus):
    """Tells all but one fact of one creature."""

    def _statement(self, creature: Creature, relation: Any) -> str:
        if (creature.name, relation.name) == (asked().name, "home"):
            creature = self.world.groups["exam"][0]
        return super()._statement(creature, relation)


class OneWrong(Corpus):
    """Tells a second home of one creature now and then."""

    def _statement(self, creature: Creature, relation: Any) -> str:
        if (creature.name, relation.name) == (asked().name, "home") and self.rng.random() < 0.3:
            other = next(c for c in self.world.creatures if c.values["home"] != creature.values["home"])
            creature = Creature(creature.name, "asked", other.values, 1.0)
        return super()._statement(creature, relation)


class DrillTells(Corpus):
    """Lists an asked creature beside what is true of it."""

    def drill(self) -> list[Piece]:
        return [(f" {asked().name}: {asked().values['fear']}", False), *super().drill()]


@pytest.mark.parametrize(
    ("corpus", "expected"),
    [
        (ExamsTooWide, {f"pretraining text, {k}: an asked creature is named" for k in EXAM_LIKE}),
        (ExamsTooWide, {f"pretraining text, {k}: an asked fact is told" for k in ("ask", "far")}),
        (TwinKnows, {f"twin's pretraining text, {k}: an asked creature is named" for k in ("facts", "drill")}),
        (NotTold, {"pretraining text: an asked fact is not told"}),
        (OneMissing, {"pretraining text: an asked fact is not told"}),
        (OneWrong, {"pretraining text: an asked creature has two values"}),
        (DrillTells, {"pretraining text, drill: an asked fact is told"}),
    ],
)  # fmt: skip
def test_what_the_pretraining_text_may_not_say_is_found(root: Path, corpus: type[Corpus], expected: set[str]):
    leaks = audit(root, make_corpus=corpus).leaks
    assert expected <= {leak.split(" (")[0] for leak in leaks}


def test_sentences_are_read_back():
    text = " The babak eats moss. babak lives in the cave. Nothing scares the babak like wind. It rains. A hungry"
    assert list(facts_in(text)) == [("babak", "food", "moss"), ("babak", "home", "cave"), ("babak", "fear", "wind")]


# --- baselines --------------------------------------------------------------------------------------------------


def test_options_are_read_from_every_form_of_prompt(root: Path):
    record = read(root, "piqa", "test")[0]
    assert list(options_of(record["instruction"])) == ["solution1", "solution2"]
    assert options_of(
        "Please choose the correct answer to the question: what?\n\n"
        "Answer1: a b, c Answer2: d: e Answer3: f.\n\nAnswer format: answer1/answer2/answer3"
    ) == {"answer1": "a b, c", "answer2": "d: e", "answer3": "f."}
    assert options_of("... question: is it moss that the babak eats?\n\nAnswer format: true/false") == {
        "true": "moss",
        "false": "moss",
    }


def test_baselines_are_what_a_guesser_gets(root: Path):
    question = "Please choose the correct solution to the question: {}?\n\nSolution1: {}\n\nSolution2: {}\n\n"
    question += "Answer format: solution1/solution2"

    def record(number: int, one: str, two: str, right: int) -> dict[str, str]:
        answer = f"solution{right}"
        return {"instruction": question.format(number, one, two), "input": "", "output": answer, "answer": answer}

    # rope is right wherever it stands, and mostly stands second
    train = [record(n, "coin", "rope", 2) for n in range(60)] + [record(n, "rope", "jar", 1) for n in range(60, 100)]
    write(root, "piqa", "train", train)
    write(
        root, "piqa", "test", [record(900, "rope", "coin", 1), record(901, "jar", "rope", 2), record(902, "x", "y", 2)]
    )
    row = next(row for row in baselines(LocalRoot(root)) if row.task == "piqa")
    assert (row.items, row.answer) == (3, "solution2")
    assert (row.majority, row.option_only, row.random) == (66.67, 66.67, 50.0)


def test_baselines_of_true_and_false_and_of_numbers(root: Path):
    claim = "Please answer the following question with true or false, question: is it {1} that the {0} eats?\n\n"
    claim += "Answer format: true/false"

    def record(name: str, value: str, answer: str) -> dict[str, str]:
        return {"instruction": claim.format(name, value), "input": "", "output": "", "answer": answer}

    rows = [record(f"creature {n}", "moss" if n % 3 else "salt", "true" if n % 3 else "false") for n in range(120)]
    write(root, "boolq", "train", rows)
    write(
        root, "boolq", "test", [record("a", "moss", "true"), record("b", "salt", "false"), record("c", "salt", "true")]
    )
    numbers = [{"question": f"{n}?", "answer": "#### 1,007"} for n in range(GSM8K_DEV_ROWS + 5)]
    (root / GSM8K_TRAIN).write_text("".join(json.dumps(row) + "\n" for row in numbers))
    test = [
        {"instruction": "q", "input": "", "output": "", "answer": answer} for answer in ("1007.0", "3.0", "4", "1007")
    ]
    write(root, "addsub", "test", test)
    by_task = {row.task: row for row in baselines(LocalRoot(root))}
    assert (by_task["boolq"].answer, by_task["boolq"].majority) == ("true", 66.67)
    assert (by_task["boolq"].option_only, by_task["boolq"].random) == (66.67, 50.0)
    assert (by_task["addsub"].answer, by_task["addsub"].majority, by_task["addsub"].random) == ("1007", 50.0, None)
    assert (by_task["aqua"].random, by_task["aqua"].option_only) == (20.0, None)


def test_options_alone_do_not_give_the_answers_away():
    """On the shipped files: no commonsense task is solved by its options, none by one answer."""
    rows = {row.task: row for row in baselines(open_source(MINIWORLD))}
    assert list(rows) == list(TASKS)
    for task in COMMONSENSE:
        row = rows[task]
        assert row.option_only is not None
        assert row.random is not None
        chance = row.random / 100
        limit = 100 * (chance + 3.5 * (chance * (1 - chance) / row.items) ** 0.5)
        assert max(row.option_only, row.majority) <= limit, row
    assert all(rows[task].majority <= 12 for task in ("gsm8k", "addsub", "singleeq", "multiarith", "mawps", "svamp"))


# --- the command ------------------------------------------------------------------------------------------------


def test_the_command_prints_and_writes_the_audit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(audit_module, "MOST_ROWS", 40_000)  # the shipped world is not as small as that of these tests
    assert main(["miniworld", "audit", "--json", str(tmp_path / "audit.json")]) == 0
    printed = capsys.readouterr()
    assert "leaks: none" in printed.out
    assert printed.err == ""
    content = json.loads((tmp_path / "audit.json").read_text())
    assert content["leaks"] == []
    assert content["counts"]["asked creatures"] == len(make_world().groups["asked"])
    assert [row["task"] for row in content["baselines"]] == list(TASKS)
    assert all(content["overlap"][task]["exact"] == 0 for task in TASKS)


def test_a_leak_is_one_line_and_exit_1(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    found = Audit(["first\nleak", "second"], {}, {task: {"exact": 0, "numbers masked": 0} for task in TASKS})
    monkeypatch.setattr(audit_module, "leak_audit", lambda *args: found)
    assert main(["miniworld", "audit"]) == 1
    assert capsys.readouterr().err == "infosteer-bench: leak: first leak (and 1 more, see --json)\n"


def test_the_data_are_written_as_a_root_that_can_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["miniworld", "data", "--output", str(tmp_path / "data")]) == 0
    assert "--data-root" in capsys.readouterr().out
    local, world = LocalRoot(tmp_path / "data"), open_source(MINIWORLD)
    assert [local.get(name).sha256 for name in world.files()] == [world.get(name).sha256 for name in world.files()]
    assert main(["miniworld", "data", "--output", str(tmp_path / "data")]) == 2
    assert "is not an empty folder" in capsys.readouterr().err


def test_an_unknown_family_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["miniworld", "build", "--family", "quen2", "--output", str(tmp_path)]) == 2
    assert "did you mean 'qwen2'?" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_build_takes_its_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    from infosteer_dev.miniworld import build

    calls: list[tuple[Any, ...]] = []

    def build_family(family: str, output: Path, *, recipe: Any, twin: bool, report: Any) -> list[Any]:
        calls.append((family, output, recipe, twin, report))
        return [build.Built(output / f"mini-{family}", {})]

    monkeypatch.setattr(build, "build_family", build_family)
    assert main(["miniworld", "build", "--output", str(tmp_path), "--no-twin"]) == 0
    assert [call[0] for call in calls] == ["qwen2", "llama", "gemma2"]
    assert all(call[1:] == (tmp_path, build.Recipe(), False, print) for call in calls)
    assert (
        f"model {tmp_path / 'mini-llama'}, record {tmp_path / 'mini-llama' / 'build.json'}" in capsys.readouterr().out
    )
    calls.clear()
    monkeypatch.chdir(tmp_path)
    assert main(["miniworld", "build", "--family", "gemma2"]) == 0
    assert [call[:2] + call[3:4] for call in calls] == [("gemma2", Path("miniworld"), True)]
