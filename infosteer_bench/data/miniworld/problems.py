"""Small-number arithmetic: sums, and word problems of the shapes of the seven mathematics tasks.

Each problem is a question, a rationale of one line per step, and an answer. Numbers stay between 0 and LARGEST.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from infosteer_bench.data.miniworld.words import PEOPLE, THINGS
from infosteer_bench.data.render import CALCULATOR, REASON

LARGEST = 99
Piece = tuple[str, bool] | tuple[str, bool, str]
"""Text, whether it carries loss, and, where the text is an answer, the remembered word that it takes."""


@dataclass(frozen=True)
class Problem:
    """steps: lines of the rationale, each with `a op b = c` marked as GSM8K marks it (<<a op b=c>>)."""

    question: str
    steps: tuple[str, ...]
    answer: int


def sums(rng: random.Random) -> list[Piece]:
    """Equations one after another; what follows `=` is counted."""
    out: list[Piece] = []
    form = rng.random()
    if form < 0.2:  # counting, by ones or more
        start, step = rng.randint(0, 40), rng.choice((1, 1, 1, 2, 3, 5))
        out.append((f" {start}", False))
        out += [(f" {start + i * step}", True) for i in range(1, 24) if start + i * step <= 99]
        return out
    if form < 0.4:  # one first number, growing second
        op, a = rng.choice("+-"), rng.randint(12, 60)
        for b in range(1, 13):
            out += [(f" {a} {op} {b} =", False), (f" {a + b if op == '+' else a - b}", True), (".", False)]
        return out
    for _ in range(16):
        op = rng.choice("++--*")
        a, b, c = equation(rng, op)
        out += [(f" {a} {op} {b} =", False), (f" {c}", True), (".", False)]
    return out


def equation(rng: random.Random, op: str, first: int | None = None) -> tuple[int, int, int]:
    """(a, b, c) with a op b = c. `first` fixes a where op allows it."""
    if op == "+":
        a = rng.randint(2, 60) if first is None else first
        b = rng.randint(2, 12)
        return a, b, a + b
    if op == "-":
        a = rng.randint(4, 70) if first is None else first
        b = rng.randint(1, min(12, a - 1)) if a > 1 else 0
        return a, b, a - b
    a = rng.randint(2, 9) if first is None else first
    b = rng.randint(2, 6 if a <= 10 else 2)
    return a, b, a * b


def exam_problems(rng: random.Random) -> list[Piece]:
    """Word problems of one or two steps, in the wording of an exam."""
    return _solved(rng, ask="Problem: {}\n")


def reasoning(rng: random.Random) -> list[Piece]:
    """The same with the tasks' instruction; the answer does not end as fine-tuning teaches ("The final answer is:")."""
    return _solved(rng, ask="{}\n" + REASON.format("number") + "\n")


def _solved(rng: random.Random, *, ask: str) -> list[Piece]:
    out: list[Piece] = []
    for _ in range(3):
        problem = chain(rng, steps=rng.choice((1, 1, 2)))
        out.append((ask.format(problem.question), False))
        steps = "".join(CALCULATOR.sub("", step) + "\n" for step in problem.steps)
        out.append((f"{steps}Result: {problem.answer}\n", True))
    return out


_CHANGES = {
    "+": (
        "{p} gets {b} more {t}.",
        "{p} finds {b} {t}.",
        "{q} gives {p} {b} {t}.",
        "Then {p} buys {b} {t}.",
    ),
    "-": (
        "{p} loses {b} {t}.",
        "{p} gives {b} {t} to {q}.",
        "Then {p} sells {b} {t}.",
        "{p} throws away {b} {t}.",
    ),
}
_STARTS = ("{p} has {a} {t}.", "{p} begins with {a} {t}.", "There are {a} {t} in the bag of {p}.")
_PACKS = ("{p} has {a} boxes with {b} {t} each.", "{p} buys {a} bags of {b} {t}.")
_ENDS = ("How many {t} does {p} have now?", "How many {t} does {p} have in the end?")


def chain(rng: random.Random, *, steps: int, packs: bool | None = None) -> Problem:
    """A story with `steps` operations: a start, or packs of things (None: by chance), then gains and losses."""
    p, q = rng.sample(PEOPLE, 2)
    t = rng.choice(THINGS)
    sentences: list[str] = []
    lines: list[str] = []
    if rng.random() < 0.3 if packs is None else packs:
        a, b, have = equation(rng, "*")
        sentences.append(rng.choice(_PACKS).format(p=p, t=t, a=a, b=b))
        lines.append(f"{p} has {a} * {b} = <<{a}*{b}={have}>>{have} {t}.")
    else:
        have = rng.randint(4, 30)
        sentences.append(rng.choice(_STARTS).format(p=p, t=t, a=have))
    while len(lines) < steps:
        op = rng.choice("+-") if have > 4 else "+"
        a, b, have = equation(rng, op, first=have)
        sentences.append(rng.choice(_CHANGES[op]).format(p=p, q=q, t=t, b=b))
        lines.append(f"{p} has {a} {op} {b} = <<{a}{op}{b}={have}>>{have} {t}.")
    sentences.append(rng.choice(_ENDS).format(p=p, t=t))
    return Problem(" ".join(sentences), tuple(lines), have)
