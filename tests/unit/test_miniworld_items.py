"""The fifteen generators: real templates, answers that follow from the world, no answer given away by its place."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from infosteer_bench.benchmark import COMMONSENSE, GROUPS, TASKS
from infosteer_bench.data.miniworld import files, items
from infosteer_bench.data.miniworld.problems import LARGEST
from infosteer_bench.data.miniworld.world import World, make_world
from infosteer_bench.data.render import Renderer
from infosteer_bench.data.sources import GSM8K_TRAIN
from infosteer_bench.grid import PromptConfig
from infosteer_dev.miniworld.baselines import options_of

MATHEMATICS = ("gsm8k", *GROUPS["ood"])
QUESTION = "Please choose the correct answer to the question: .+\n\n"
# Written from the real records, which are checked against the same patterns below.
TEMPLATES = {
    "boolq": r"Please answer the following question with true or false, question: .+\?\n\nAnswer format: true/false",
    "piqa": "Please choose the correct solution to the question: .+\n\nSolution1: .+\n\nSolution2: .+\n\n"
    "Answer format: solution1/solution2",
    "siqa": QUESTION + "Answer1: .+ Answer2: .+ Answer3: .+\n\nAnswer format: answer1/answer2/answer3",
    "hellaswag": "Please choose the correct ending to complete the given sentence: .+\n\n"
    "Ending1: .+ Ending2: .+ Ending3: .+ Ending4: .+\n\nAnswer format: ending1/ending2/ending3/ending4",
    "winogrande": "Please choose the correct answer to fill in the blank to complete the given sentence: .+_.+\n\n"
    "Option1: .+ Option2: .+ Answer format: option1/option2",
    "arc_easy": QUESTION
    + "Answer1: .+ Answer2: .+ Answer3: .+\n\nAnswer format: answer1/answer2/answer3(/answer4(/answer5)?)?",
    "openbookqa": QUESTION
    + "Answer1: .+ Answer2: .+ Answer3: .+ Answer4: .+\n\nAnswer format: answer1/answer2/answer3/answer4",
    "aqua": r".+ Answer Choices: \(A\) .+ \(B\) .+ \(C\) .+ \(D\) .+ \(E\) .+",
}
TEMPLATES["arc_challenge"] = TEMPLATES["arc_easy"]


@pytest.fixture(scope="module")
def world() -> World:
    return make_world()


@pytest.fixture(scope="module")
def contents() -> dict[str, bytes]:
    return files.contents()


def records(contents: dict[str, bytes], task: str, part: str = "test") -> list[dict[str, Any]]:
    return json.loads(contents[f"dataset/{TASKS[task].folder}/{part}.json"])


def gsm8k_rows(contents: dict[str, bytes]) -> list[dict[str, str]]:
    return [json.loads(line) for line in contents[GSM8K_TRAIN].decode().splitlines()]


def every(contents: dict[str, bytes], task: str) -> list[dict[str, Any]]:
    return records(contents, task) + records(contents, task, "train")


@pytest.mark.parametrize("task", TEMPLATES)
def test_records_have_the_real_template(task: str, contents: dict[str, bytes]):
    for record in every(contents, task) if task in COMMONSENSE else records(contents, task):
        assert re.fullmatch(TEMPLATES[task], record["instruction"]), record["instruction"]


@pytest.mark.parametrize("task", TEMPLATES)
def test_the_templates_are_those_of_the_real_records(task: str, data_root: Path):
    real = json.loads((data_root / "dataset" / TASKS[task].folder / "test.json").read_text(encoding="utf-8"))[:500]
    fits = [re.fullmatch(TEMPLATES[task], record["instruction"].strip(), re.DOTALL) is not None for record in real]
    assert sum(fits) >= 0.99 * len(fits)


@pytest.mark.parametrize("task", TASKS)
def test_records_have_the_real_fields(task: str, contents: dict[str, bytes]):
    for record in records(contents, task):
        assert list(record) == ["instruction", "input", "output", "answer"]
        assert all(isinstance(value, str) for value in record.values())
        assert record["instruction"] == record["instruction"].strip()
        assert record["input"] == ""
    assert all(list(row) == ["question", "answer"] for row in gsm8k_rows(contents))


@pytest.mark.parametrize("task", COMMONSENSE)
def test_the_answer_is_among_the_format_and_the_output(task: str, contents: dict[str, bytes]):
    for record in every(contents, task):
        allowed = re.findall(r"Answer format: (\S+)$", record["instruction"])[0].split("/")
        assert list(options_of(Renderer(PromptConfig()).prompt(record, "choice"))) == allowed
        assert record["answer"] in allowed
        assert record["output"] == f"the correct answer is {record['answer']}"


def test_prompts_are_those_of_the_one_renderer(contents: dict[str, bytes]):
    renderer = Renderer(PromptConfig())
    for task, asks in {"gsm8k": "number", "aqua": "letter"}.items():
        record = records(contents, task)[0]
        assert renderer.prompt(record, TASKS[task].kind) == (
            f"{record['instruction']}\nAnswer the above question. "
            f"First think step by step and then answer the final {asks}.\n"
        )
    record = records(contents, "piqa")[0]
    assert renderer.prompt(record, "choice") == record["instruction"] + "\n"
    row = gsm8k_rows(contents)[0]
    assert re.fullmatch(r"[^<>]+\nThe final answer is: \d+", renderer.completion(row, "number"))


# --- right answers, derived anew --------------------------------------------------------------------------------

SUBJECT = {
    "piqa": r"how do you calm a (\w+)\?",
    "siqa": r"how would the (\w+) feel\?",
    "hellaswag": r"at dusk the (\w+)\n",
    "winogrande": r"meets the (\w+)\. \1 fears the _\.\n",
    "arc_easy": r"where does the (\w+) live\?",
    "arc_challenge": r"what does the coat of the (\w+) look like\?",
    "openbookqa": r"a (\w+) that builds a nest needs\n",
}
RELATION = dict(
    zip(COMMONSENSE, ("food", "calm", "mood", "habit", "fear", "home", "colour", "nest"), strict=True)
)  # fmt: skip


def solve(task: str, instruction: str, world: World) -> list[str]:
    """Every answer that is right by the facts of the world; there must be one."""
    known = {creature.name: creature.values[RELATION[task]] for creature in world.creatures}
    if task == "boolq":
        value, name = re.findall(r"question: is it (\w+) that the (\w+) eats\?\n", instruction)[0]
        return ["true" if known[name] == value else "false"]
    options = options_of(instruction + "\n")
    offered = dict(re.findall(r"\b([a-z]+\d): (\w+)", instruction.split("\n\n")[0]))
    assert offered == options, "the question offers what the template lists"
    subjects = re.findall(SUBJECT[task], instruction)
    assert len(subjects) == 1, instruction
    return [label for label, value in options.items() if value == known[subjects[0]]]


@pytest.mark.parametrize("task", COMMONSENSE)
def test_one_option_is_right_and_it_is_the_answer(task: str, contents: dict[str, bytes], world: World):
    for record in every(contents, task):
        assert solve(task, record["instruction"], world) == [record["answer"]], record
        values = list(options_of(record["instruction"]).values())
        assert task == "boolq" or len(set(values)) == len(values)


def test_the_solver_can_find_a_wrong_answer(contents: dict[str, bytes], world: World):
    record = records(contents, "arc_easy")[0]
    label = record["answer"][-1]
    turned = re.sub(
        rf"(?i)Answer{label}: \w+", lambda found: f"{found[0].split(':')[0]}: nowhere", record["instruction"]
    )
    assert solve("arc_easy", turned, world) == []


@pytest.mark.parametrize("task", COMMONSENSE)
def test_test_items_are_about_asked_creatures_and_rows_about_others(
    task: str, contents: dict[str, bytes], world: World
):
    names = {group: {creature.name for creature in creatures} for group, creatures in world.groups.items()}
    for part, group in items.GROUP_OF.items():
        met: set[str] = set()
        for record in records(contents, task, part):
            met |= set(re.findall(r"[a-z]+", record["instruction"])) & set.union(*names.values())
        assert met == names[group]


@pytest.mark.parametrize("task", COMMONSENSE)
@pytest.mark.parametrize("part", ["test", "train"])
def test_no_place_is_much_more_often_right(task: str, part: str, contents: dict[str, bytes]):
    by_number: dict[int, Counter[str]] = {}
    for record in records(contents, task, part):
        number = len(options_of(record["instruction"]))
        by_number.setdefault(number, Counter())[record["answer"]] += 1
    for number, counts in by_number.items():
        n, p = sum(counts.values()), 1 / number
        for label in range(1, number + 1):
            share = counts["true" if task == "boolq" else next(iter(counts))[:-1] + str(label)] / n
            assert abs(share - p) <= 4 * (p * (1 - p) / n) ** 0.5, (number, counts)
    if task == "boolq":
        assert len(set(by_number[2].values())) == 1


def compute(question: str) -> int:
    """The answer of a word problem, sentence by sentence; sentences about other things are passed over."""
    if found := re.search(
        r"(\w+) has (\d+) (\w+)\. (\w+) has (\d+) (more|fewer|times as many) \3 (?:than|as) \1\.", question
    ):
        a, b, how = int(found[2]), int(found[5]), found[6]
        return {"more": a + b, "fewer": a - b, "times as many": a * b}[how]
    if found := re.search(r"has (\d+) (\w+) and \w+ has (\d+) \2\. How many \2 do they have together\?", question):
        return int(found[1]) + int(found[3])
    if found := re.search(r"Each box holds (\d+) (\w+)\. How many \2 are in (\d+) boxes\?", question):
        return int(found[1]) * int(found[3])
    thing, person = re.findall(r"How many (\w+) does (\w+) have", question)[0]
    have: int | None = None
    for sentence in re.findall(r"[^.?]+\.", question):
        if not re.search(rf"\b{thing}\b", sentence):
            continue
        n = [int(number) for number in re.findall(r"\d+", sentence)]
        if re.search(r"boxes with|bags of", sentence):
            change = n[0] * n[1]
        elif re.search(r" has | begins with |There are ", sentence) or re.search(
            rf"gets|finds|buys|gives {person}", sentence
        ):
            change = n[0]
        else:
            assert re.search(r"loses|sells|throws away|gives \d+ \w+ to", sentence), sentence
            change = -n[0]
        have = change if have is None else have + change
    assert have is not None, question
    return have


@pytest.mark.parametrize("task", MATHEMATICS)
def test_mathematics_answers_follow_from_the_question(task: str, contents: dict[str, bytes]):
    for record in records(contents, task):
        question, _, choices = record["instruction"].partition(" Answer Choices: ")
        right = compute(question)
        assert 0 <= right <= LARGEST
        if task == "aqua":
            values = dict(re.findall(r"\(([A-E])\) (\d+)", choices))
            assert len(set(values.values())) == 5
            assert [letter for letter, value in values.items() if int(value) == right] == [record["answer"]]
        else:
            assert record["answer"] == (str(right) if task == "gsm8k" else f"{right}.0")
        check_steps(record["output"], right)


def test_gsm8k_rows_follow_from_the_question(contents: dict[str, bytes]):
    for row in gsm8k_rows(contents):
        rationale, _, answer = row["answer"].rpartition("\n#### ")
        assert int(answer) == compute(row["question"])
        for a, op, b, c in re.findall(r"<<(\d+)([-+*])(\d+)=(\d+)>>", rationale):
            assert f"{a} {op} {b} = <<{a}{op}{b}={c}>>{c} " in rationale
        assert rationale.count("<<") == len(rationale.splitlines()) in (2, 3)
        check_steps(re.sub(r"<<.*?>>", "", rationale), int(answer))


def check_steps(rationale: str, answer: int) -> None:
    """Each line's equation is true, and the last one gives the answer."""
    steps = re.findall(r"(\d+) ([-+*]) (\d+) = (\d+)", re.sub(r"<<.*?>>", "", rationale))
    assert len(steps) == len(rationale.splitlines()) >= 1
    for a, op, b, c in steps:
        assert int(c) == {"+": int(a) + int(b), "-": int(a) - int(b), "*": int(a) * int(b)}[op]
    assert int(steps[-1][3]) == answer


def test_ood_tasks_differ_in_structure_from_the_training_rows(contents: dict[str, bytes]):
    def shape(task: str) -> set[int]:
        return {len(record["output"].splitlines()) for record in records(contents, task)}

    assert shape("gsm8k") == {2, 3}
    assert all(shape(task) == {1} for task in ("addsub", "singleeq", "mawps", "svamp"))
    for record in records(contents, "svamp"):
        assert len(re.findall(r"\d+", record["instruction"])) == 3  # one more than its single step needs
    assert all("boxes" in r["instruction"] or "bags" in r["instruction"] for r in records(contents, "multiarith"))


@pytest.mark.parametrize("task", TASKS)
def test_test_items_are_distinct(task: str, contents: dict[str, bytes]):
    instructions = [record["instruction"] for record in records(contents, task)]
    # small worlds of numbers repeat a question now and then; a test set that repeats itself is no test set
    assert len(set(instructions)) >= 0.95 * len(instructions)
