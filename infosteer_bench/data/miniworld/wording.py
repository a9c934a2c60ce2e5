"""How a question offers its answers: the same words in pretraining text and in test items.

A question with options names them before it asks, and the tasks' templates list them once more after it.
Models of this size learn to find what they know in a list that they have read already; with a list that only follows
the question they stayed at chance in every recipe that was tried (up to 2,000 steps), for words given in the question
too.
"""

from __future__ import annotations

from collections.abc import Sequence

from infosteer_bench.data.miniworld.words import Relation

CHOOSE = "Please choose the correct "
TRUE_OR_FALSE = "Please answer the following question with true or false, question: "


def offered(values: Sequence[str], label: str) -> str:
    """The answers as a question offers them.

    >>> offered(["moss", "salt"], "Answer")
    'answer1: moss answer2: salt.'
    """
    return " ".join(f"{label.lower()}{i}: {value}" for i, value in enumerate(values, start=1)) + "."


def listed(values: Sequence[str], label: str, *, sep: str = " ") -> str:
    """The answers as the template lists them.

    >>> listed(["moss", "salt"], "Answer")
    'Answer1: moss Answer2: salt'
    """
    return sep.join(f"{label}{i}: {value}" for i, value in enumerate(values, start=1))


def answer_format(label: str, number: int) -> str:
    """The template's last line.

    >>> answer_format("Answer", 2)
    'Answer format: answer1/answer2'
    """
    return "Answer format: " + "/".join(f"{label.lower()}{i}" for i in range(1, number + 1))


def claim(creature: str, relation: Relation, value: str) -> str:
    """A question that true or false answers; the value stands first, as answers on offer do."""
    return f"is it {value} that the {creature} {relation.clause}"
