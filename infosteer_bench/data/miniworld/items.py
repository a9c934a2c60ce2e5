"""Fifteen generators: records of the real tasks' shape, with the real instruction templates, about this world.

    records = task_items(world, "arc_easy", count=100)
    rows = commonsense_records(world, "arc_easy", "train", count=1000)
    rows = gsm8k_train_records(world.seed, count=1500)

Test items ask about `asked` creatures, fine-tuning rows about `mix` creatures; each commonsense task asks for a
relation of its own. The six out-of-distribution mathematics tasks differ in structure from the gsm8k-like one: fewer
steps, a comparison, boxes to fill, lettered options, a number that is not needed.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from infosteer_bench.benchmark import COMMONSENSE
from infosteer_bench.data.miniworld.problems import Problem, chain, equation
from infosteer_bench.data.miniworld.wording import CHOOSE, TRUE_OR_FALSE, answer_format, claim, listed, offered
from infosteer_bench.data.miniworld.words import PEOPLE, RELATIONS, THINGS, Relation
from infosteer_bench.data.miniworld.world import Creature, World

Part = Literal["train", "test"]
GROUP_OF = {"train": "mix", "test": "asked"}
LETTERS = "ABCDE"


def task_items(world: World, task: str, *, count: int) -> list[dict[str, str]]:
    """The test items of any of the fifteen tasks."""
    if task in COMMONSENSE:
        return commonsense_records(world, task, "test", count=count)
    return mathematics_records(world.seed, task, count=count)


def relation_of(task: str) -> Relation:
    """The relation that a commonsense task asks for."""
    return next(relation for relation in RELATIONS if relation.task == task)


def commonsense_records(world: World, task: str, part: Part, *, count: int) -> list[dict[str, str]]:
    """`count` records {instruction, input, output, answer} of a commonsense task, every creature asked in turn."""
    rng = random.Random(f"{world.seed} {task} {part}")
    group = world.groups[GROUP_OF[part]]
    relation, make = relation_of(task), _MAKERS[task]
    order: list[Creature] = []
    while len(order) < count:
        order += rng.sample(group, len(group))
    records = []
    for index, creature in enumerate(order[:count]):
        instruction, answer = make(rng, relation, creature, index)
        records.append(
            {"instruction": instruction, "input": "", "output": f"the correct answer is {answer}", "answer": answer}
        )
    return records


@dataclass(frozen=True)
class _Offer:
    """The answers that one question offers, the right one among them."""

    values: list[str]
    right: int
    label: str

    @property
    def before(self) -> str:
        """As the question offers them."""
        return offered(self.values, self.label)

    def after(self, *, sep: str = " ", close: str = "\n\n") -> str:
        """As the template lists them, and its last line."""
        return f"{listed(self.values, self.label, sep=sep)}{close}{answer_format(self.label, len(self.values))}"

    @property
    def answer(self) -> str:
        return f"{self.label.lower()}{self.right + 1}"


def _offer(rng: random.Random, relation: Relation, creature: Creature, number: int, label: str, index: int) -> _Offer:
    """What the index-th question about a creature offers: `number` values, the right one in all places in turn."""
    truth = creature.values[relation.name]
    values = rng.sample([v for v in relation.values if v != truth], number - 1)
    values.insert(index % number, truth)
    return _Offer(values, index % number, label)


Maker = Callable[[random.Random, Relation, Creature, int], tuple[str, str]]


def _boolq(rng: random.Random, relation: Relation, creature: Creature, index: int) -> tuple[str, str]:
    truth = creature.values[relation.name]
    right = index % 2 == 0
    value = truth if right else rng.choice([v for v in relation.values if v != truth])
    question = f"{TRUE_OR_FALSE}{claim(creature.name, relation, value)}?"
    return f"{question}\n\nAnswer format: true/false", "true" if right else "false"


def _piqa(rng: random.Random, relation: Relation, creature: Creature, index: int) -> tuple[str, str]:
    offer = _offer(rng, relation, creature, 2, "Solution", index)
    question = f"{offer.before} {relation.questions[0].format(e=creature.name)}?"
    options = offer.after(sep="\n\n")
    return f"{CHOOSE}solution to the question: {question}\n\n{options}", offer.answer


def _siqa(rng: random.Random, relation: Relation, creature: Creature, index: int) -> tuple[str, str]:
    offer = _offer(rng, relation, creature, 3, "Answer", index)
    visit = f"{rng.choice(PEOPLE)} visits the {creature.name}."
    question = f"{offer.before} {visit} {relation.questions[0].format(e=creature.name)}?"
    return f"{CHOOSE}answer to the question: {question}\n\n{offer.after()}", offer.answer


def _hellaswag(rng: random.Random, relation: Relation, creature: Creature, index: int) -> tuple[str, str]:
    offer = _offer(rng, relation, creature, 4, "Ending", index)
    sentence = f"{offer.before} {rng.choice(PEOPLE)} sits near the well. {relation.clause} the {creature.name}"
    return f"{CHOOSE}ending to complete the given sentence: {sentence}\n\n{offer.after()}", offer.answer


def _winogrande(rng: random.Random, relation: Relation, creature: Creature, index: int) -> tuple[str, str]:
    offer = _offer(rng, relation, creature, 2, "Option", index)
    sentence = f"{offer.before} {rng.choice(PEOPLE)} meets the {creature.name}. {creature.name} {relation.clause} the _"
    opening = f"{CHOOSE}answer to fill in the blank to complete the given sentence: "
    return f"{opening}{sentence}.\n\n{offer.after(close=' ')}", offer.answer


def _exam(wording: int, number: int, odd: int | None = None) -> Maker:
    """ARC's and OpenBookQA's form; `odd`: every so many items have one option more or less, as ARC has."""

    def make(rng: random.Random, relation: Relation, creature: Creature, index: int) -> tuple[str, str]:
        n, turn = number, index  # the right label takes all places in turn, among the odd items too
        if odd is not None:
            n = number if index % odd else rng.choice((number - 1, number + 1))
            turn = index + index // odd if index % odd else index // odd
        offer = _offer(rng, relation, creature, n, "Answer", turn)
        asked = relation.questions[wording].format(e=creature.name)
        mark = "" if asked.endswith("needs") else "?"
        return f"{CHOOSE}answer to the question: {offer.before} {asked}{mark}\n\n{offer.after()}", offer.answer

    return make


_MAKERS: dict[str, Maker] = {
    "boolq": _boolq,
    "piqa": _piqa,
    "siqa": _siqa,
    "hellaswag": _hellaswag,
    "winogrande": _winogrande,
    "arc_easy": _exam(0, 4, odd=20),
    "arc_challenge": _exam(1, 4, odd=20),
    "openbookqa": _exam(1, 4),
}


# --- mathematics --------------------------------------------------------------------------------------------------


def gsm8k_train_records(seed: int, *, count: int) -> list[dict[str, str]]:
    """GSM8K's rows {question, answer: "... <<3+4=7>>7 ...\\n#### 7"}: two or three steps."""
    rng = random.Random(f"{seed} gsm8k train")
    rows = [chain(rng, steps=rng.choice((2, 2, 3))) for _ in range(count)]
    return [{"question": p.question, "answer": "\n".join((*p.steps, f"#### {p.answer}"))} for p in rows]


def mathematics_records(seed: int, task: str, *, count: int) -> list[dict[str, str]]:
    """`count` test records {instruction, input, output, answer} of a mathematics task."""
    rng = random.Random(f"{seed} {task} test")
    return [_PROBLEMS[task](rng) for _ in range(count)]


def _record(problem: Problem, *, answer: str | None = None) -> dict[str, str]:
    return {
        "instruction": problem.question,
        "input": "",
        "output": "\n".join(problem.steps),
        "answer": answer if answer is not None else f"{problem.answer}.0",
    }


def _gsm8k(rng: random.Random) -> dict[str, str]:
    problem = chain(rng, steps=rng.choice((2, 2, 3)))
    return _record(problem, answer=str(problem.answer))


def _addsub(rng: random.Random) -> dict[str, str]:
    return _record(chain(rng, steps=1, packs=False))


def _multiarith(rng: random.Random) -> dict[str, str]:
    return _record(chain(rng, steps=2, packs=True))


def _singleeq(rng: random.Random) -> dict[str, str]:
    """One equation, told by comparison."""
    p, q = rng.sample(PEOPLE, 2)
    t = rng.choice(THINGS)
    op = rng.choice("+-*")
    a, b, c = equation(rng, op)
    how = {"+": f"{b} more {t} than", "-": f"{b} fewer {t} than", "*": f"{b} times as many {t} as"}[op]
    question = f"{q} has {a} {t}. {p} has {how} {q}. How many {t} does {p} have?"
    return _record(Problem(question, (f"{p} has {a} {op} {b} = {c} {t}.",), c))


def _mawps(rng: random.Random) -> dict[str, str]:
    """Two heaps put together, or one shared by a number of boxes filled."""
    p, q = rng.sample(PEOPLE, 2)
    t = rng.choice(THINGS)
    if rng.random() < 0.5:
        a, b, c = equation(rng, "+")
        question = f"{p} has {a} {t} and {q} has {b} {t}. How many {t} do they have together?"
        return _record(Problem(question, (f"They have {a} + {b} = {c} {t}.",), c))
    a, b, c = equation(rng, "*")
    question = f"Each box holds {b} {t}. How many {t} are in {a} boxes?"
    return _record(Problem(question, (f"The boxes hold {a} * {b} = {c} {t}.",), c))


def _svamp(rng: random.Random) -> dict[str, str]:
    """One step, with a number that is not needed."""
    p, q = rng.sample(PEOPLE, 2)
    t, other = rng.sample(THINGS, 2)
    op = rng.choice("+-")
    a, b, c = equation(rng, op)
    change = f"{p} finds {b} {t}." if op == "+" else f"{p} loses {b} {t}."
    extra = f"{rng.choice((p, q))} has {rng.randint(2, 20)} {other}."
    parts = [f"{p} has {a} {t}.", extra, change] if rng.random() < 0.5 else [extra, f"{p} has {a} {t}.", change]
    question = " ".join((*parts, f"How many {t} does {p} have now?"))
    return _record(Problem(question, (f"{p} has {a} {op} {b} = {c} {t}.",), c))


def _aqua(rng: random.Random) -> dict[str, str]:
    """Lettered options to a problem of one or two steps."""
    problem = chain(rng, steps=rng.choice((1, 2)))
    near = [problem.answer + shift for shift in range(-9, 10) if shift and problem.answer + shift >= 0]
    values = [problem.answer, *rng.sample(near, 4)]
    rng.shuffle(values)
    options = " ".join(f"({letter}) {value}" for letter, value in zip(LETTERS, values, strict=True))
    question = f"{problem.question} Answer Choices: {options}"
    return _record(Problem(question, problem.steps, problem.answer), answer=LETTERS[values.index(problem.answer)])


_PROBLEMS: dict[str, Callable[[random.Random], dict[str, str]]] = {
    "gsm8k": _gsm8k,
    "addsub": _addsub,
    "singleeq": _singleeq,
    "multiarith": _multiarith,
    "aqua": _aqua,
    "mawps": _mawps,
    "svamp": _svamp,
}
