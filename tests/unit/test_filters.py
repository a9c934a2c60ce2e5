"""The three rules on a table of answers, on anything at all, and on every record's own prompt and gold answer."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infosteer_bench.tasks.filters import (
    KINDS,
    RULES,
    AnswerSpec,
    canonical_answer,
    correct,
    legacy,
    options_of,
    robust,
    strict,
)
from infosteer_bench.tasks.numbers import canonical, find_numbers, tidy

NUMBER, LETTER = AnswerSpec("number"), AnswerSpec("letter")
ANSWERS4 = AnswerSpec("choice", ("answer1", "answer2", "answer3", "answer4"))
ANSWERS5 = AnswerSpec("choice", (*ANSWERS4.options, "answer5"))
SOLUTIONS = AnswerSpec("choice", ("solution1", "solution2"))
OPTIONS = AnswerSpec("choice", ("option1", "option2"))
ENDINGS = AnswerSpec("choice", ("ending1", "ending2", "ending3", "ending4"))
TRUTH = AnswerSpec("choice", ("true", "false"))

MATH_PROMPT = (
    "Tom has 5 pens and buys 3.\n"
    "Answer the above question. First think step by step and then answer the final number.\n"
)
AQUA_PROMPT = (
    "How far is it? Answer Choices: (A) 23 km (B) 1000 km (C) 35 km (D) 2 km (E) 10 km\n"
    "Answer the above question. First think step by step and then answer the final letter.\n"
)
ARC_PROMPT = (
    "Please choose the correct answer to the question: What melts?\n\n"
    "Answer1: ice Answer2: rock Answer3: wood Answer4: air\n\nAnswer format: answer1/answer2/answer3/answer4\n"
)
BOOLQ_PROMPT = (
    "Please answer the following question with true or false, question: is jaws based on a true story?\n\n"
    "Answer format: true/false\n"
)

# text, robust, strict, legacy
NUMBERS = [
    ("So it is.\nThe final answer is: 7", "7", "7", "7"),
    ("The final answer is: 7.", "7", "7", "7"),
    ("The final answer is: 7.0", "7", "7", "7"),
    ("The final answer is 7", "7", None, "7"),
    ("the final answer is: 42\n", "42", "42", "42"),
    ("The final answer is: 1,234", "1234", "1234", "1234"),
    ("The final answer is: 1,234,567.5", "1234567.5", "1234567.5", "1234567.5"),
    ("The final answer is: $18", "18", "18", "18"),
    ("The final answer is: $1,250.50", "1250.5", "1250.5", "1250.5"),
    ("The final answer is: -15", "-15", "-15", "-15"),
    ("The final answer is: -$15", "-15", "-15", "15"),
    ("The final answer is: $-15", "-15", None, "-15"),
    ("The final answer is: \u221215", "-15", None, "15"),
    ("The final answer is: 25%", "25", "25", "25"),
    ("The final answer is: 25 %.", "25", "25", "25"),
    ("The final answer is: 3/4", "0.75", None, "4"),
    ("The final answer is: 1 1/2", "1.5", None, "2"),
    ("The final answer is: 1 and 1/2 hours", "1.5", None, "2"),
    ("The final answer is: -3/4", "-0.75", None, "4"),
    ("The final answer is: \u00be", "0.75", None, None),
    ("The final answer is: 2\u00bd", "2.5", None, "2"),
    ("The final answer is: 5/0", None, None, "0"),
    ("The final answer is: 12 apples", "12", "12", "12"),
    ("The final answer is: 12kg", "12", None, "12"),
    ("The final answer is: 60 cm^2", "60", "60", "2"),
    ("The final answer is: 60 cm\u00b2", "60", "60", "60"),
    ("The final answer is: \u20ac12", "12", None, "12"),
    ("The final answer is: 12\u20ac", "12", "12", "12"),
    ("The final answer is: \\boxed{42}", "42", None, "42"),
    ("The final answer is: $\\boxed{42}$", "42", None, "42"),
    ("The final answer is: $\\frac{3}{4}$", "0.75", None, "4"),
    ("The final answer is: \\boxed{1\\frac{1}{2}}", "1.5", None, "2"),
    ("The final answer is: **42**", "42", None, "42"),
    ("The final answer is: x = 42", "42", None, "42"),
    ("The final answer is: 24 - 4 = 20", "20", None, "20"),
    ("The final answer is: 20 (= 24 - 4)", "20", "20", "4"),
    ("The final answer is:\n\\[ 42 \\]", "42", None, "42"),
    ("The final answer is:\n42", "42", "42", "42"),
    ("The final answer is: twenty-five", "25", None, None),
    ("The final answer is: one hundred and five dollars", "105", None, None),
    ("The final answer is: 3 million", "3000000", "3", "3"),
    ("The final answer is: 5 apples and 3 pears", "5", "5", "3"),
    ("The final answer is: 5. He has 3 left.", "5", "5", "3"),
    ("The final answer is: 4\nWait.\nThe final answer is: 6", "6", "6", "6"),
    ("The final answer is: unknown", None, None, None),
    ("The final answer is: 1.8333333333333333", "1.8333333333333333", "1.8333333333333333", "1.8333333333333333"),
    ("The final answer is: .5", "0.5", None, "5"),
    ("The final answer is: 1e3", "1000", None, "3"),
    ("The answer is 12.", "12", None, "12"),
    ("The answer is $12 because 3 + 9 = 12 and 2 are left", "12", None, "2"),
    ("Answer: 12", "12", None, "12"),
    ("**Answer:** $12.50", "12.5", None, "12.5"),
    ("So the answer to the question is 12 pens.", "12", None, "12"),
    ("The answer would be 8, not 9", "8", None, "9"),
    ("5 + 7 = 12\n#### 12", "12", None, "12"),
    ("#### 1,080\n\nThat took 3 steps.", "1080", None, "3"),
    ("Thus \\boxed{12} pens for 3 people.", "12", None, "3"),
    ("First \\boxed{3}, then \\boxed{12}.", "12", None, "12"),
    ("She has 5 + 7 = 12 pens", "12", None, "12"),
    ("12 - 5 = 7", "7", None, "7"),
    ("12-5", "5", None, "-5"),
    ("It takes 1,000 2", "2", None, "2"),
    ("There are 5 pens, in 2D", "2", None, "2"),
    ("", None, None, None),
    ("   \n", None, None, None),
    ("I do not know.", None, None, None),
    (MATH_PROMPT, None, None, "3"),
    (MATH_PROMPT + "5 + 3 = 8\nThe final answer is: 8", "8", "8", "8"),
    ("The answer is 8.\n\nAnn has 4.\n" + MATH_PROMPT.split("\n", 1)[1] + "The answer is 4.", "8", None, "4"),
]  # fmt: skip

LETTERS = [
    ("The final answer is: C", "C", "C", "C"),
    ("The final answer is: (C)", "C", "C", "C"),
    ("The final answer is: C.", "C", "C", "C"),
    ("The final answer is: C) 35", "C", "C", "C"),
    ("The final answer is: \\boxed{C}", "C", None, "C"),
    ("The final answer is: $\\boxed{\\text{C}}$", "C", None, "C"),
    ("The final letter is C", "C", None, "C"),
    ("The final answer is: A\nNo.\nThe final answer is: B", "B", "B", "A"),
    ("The final answer is: 35", None, None, None),
    ("(C)", "C", None, "C"),
    ("(c)", "C", None, None),
    ("C.", "C", None, "C"),
    ("C)", "C", None, "C"),
    ("C", "C", None, "C"),
    ("C) 35 km", "C", None, "C"),
    ("[C]", "C", None, "C"),
    ("Answer: (C)", "C", None, "A"),
    ("Answer: C", "C", None, "A"),
    ("**Answer: C**", "C", None, "A"),
    ("answer is C because A", "C", None, "C"),
    ("The answer is A because it fits", "A", None, "A"),
    ("The answer is A", "A", None, "A"),
    ("The answer is A.", "A", None, "A"),
    ("The answer is (A) 23 km.", "A", None, "A"),
    ("The answer is A number of miles", None, None, "A"),
    ("A train leaves the station.", None, None, "A"),
    ("A train leaves.\nThe answer is D.", "D", None, "A"),
    ("A car drives 35 km, so it is (C).", "C", None, "A"),
    ("The correct option is (B).", "B", None, "B"),
    ("Hence answer A.", "A", None, "A"),
    ("I choose option B.", "B", None, "B"),
    ("Adding up gives 35.\nC", "C", None, "A"),
    ("Either (A) or (B).", None, None, "E"),
    ("A. 23\nB. 1000\nC. 35", None, None, "A"),
    ("The answer is F", None, None, None),
    ("\\boxed{D}", "D", None, "D"),
    ("", None, None, None),
    (AQUA_PROMPT, None, None, "A"),
    (AQUA_PROMPT + "The final answer is: E", "E", "E", "A"),
]  # fmt: skip

CHOICES = [
    (ANSWERS4, "the correct answer is answer3", "answer3", "answer3", "answer3"),
    (ANSWERS4, "The correct answer is Answer3.", "answer3", "answer3", None),
    (ANSWERS4, "the correct answer is answer 3", "answer3", None, None),
    (ANSWERS4, "the correct answer is: answer3", "answer3", None, "answer3"),
    (ANSWERS4, "the correct answer is 3", "answer3", None, None),
    (ANSWERS4, "the correct answer is (3).", "answer3", None, None),
    (ANSWERS4, "the correct answer is 3 days", None, None, None),
    (ANSWERS4, "the correct answer is 3.5", None, None, None),
    (ANSWERS4, "the correct answer is 3 because it fits", "answer3", None, None),
    (ANSWERS4, "the correct answer is answer5", None, None, "answer5"),
    (ANSWERS5, "the correct answer is answer5", "answer5", "answer5", "answer5"),
    (ANSWERS4, "the correct answer is answer31", None, None, "answer3"),
    (ANSWERS4, "the correct answer is answer3 because answer1 is too cold", "answer3", "answer3", "answer3"),
    (ANSWERS4, "the correct answer is answer1\nthe correct answer is answer2", "answer1", "answer1", "answer1"),
    (ANSWERS4, "answer3", "answer3", None, "answer3"),
    (ANSWERS4, "Answer3", "answer3", None, None),
    (ANSWERS4, "Answer 3", "answer3", None, None),
    (ANSWERS4, "**Answer3**", "answer3", None, None),
    (ANSWERS4, "3", "answer3", None, None),
    (ANSWERS4, "(3)", "answer3", None, None),
    (ANSWERS4, "3.", "answer3", None, None),
    (ANSWERS4, "3)\nbecause ice melts", "answer3", None, None),
    (ANSWERS4, "7", None, None, None),
    (ANSWERS4, "option 2", "answer2", None, None),
    (ANSWERS4, "Option (2)", "answer2", None, None),
    (ANSWERS4, "Answer: 2", "answer2", None, None),
    (ANSWERS4, "Answer: answer2", "answer2", None, "answer2"),
    (ANSWERS4, "Answer:\nanswer2", "answer2", None, "answer2"),
    (ANSWERS4, "Answer2: rock", "answer2", None, None),
    (ANSWERS4, "The best answer would be answer2.", "answer2", None, "answer2"),
    (ANSWERS4, "The answer to this question is answer4", "answer4", None, "answer4"),
    (ANSWERS4, "I think answer4 is correct", "answer4", None, "answer4"),
    (ANSWERS4, "answer1 is wrong, so the answer is answer2", "answer2", None, "answer1"),
    (ANSWERS4, "It is not answer1 but answer2", "answer2", None, "answer1"),
    (ANSWERS4, "The correct answer is not answer1", None, None, "answer1"),
    (ANSWERS4, "The second answer", "answer2", None, None),
    (ANSWERS4, "answer two", "answer2", None, None),
    (ANSWERS4, "I would choose answer2", "answer2", None, "answer2"),
    (ANSWERS4, "\\boxed{answer2}", "answer2", None, "answer2"),
    (ANSWERS4, "Either answer1 or answer2", None, None, "answer1"),
    (ANSWERS4, "answer1/answer2/answer3/answer4", None, None, "answer1"),
    (ANSWERS4, "Answer format: answer1/answer2/answer3/answer4", None, None, "answer1"),
    (ANSWERS4, ARC_PROMPT, None, None, "answer1"),
    (ANSWERS4, ARC_PROMPT + "the correct answer is answer4", "answer4", "answer4", "answer1"),
    (ANSWERS4, "the correct answer is answer4\n" + ARC_PROMPT, "answer4", "answer4", "answer4"),
    (ANSWERS4, "1. ice\n2. rock\n3. wood", None, None, None),
    (ANSWERS4, "The answer is B", None, None, None),
    (ANSWERS4, "", None, None, None),
    (ANSWERS4, "Ice melts.", None, None, None),
    (SOLUTIONS, "The correct solution is solution2", "solution2", None, "solution2"),
    (SOLUTIONS, "Solution 1", "solution1", None, None),
    (SOLUTIONS, "the correct answer is solution1", "solution1", "solution1", "solution1"),
    (OPTIONS, "The best option would be (2).", "option2", None, None),
    (OPTIONS, "Option1: Sarah Option2: Maria", None, None, None),
    (OPTIONS, "Sarah, so option1", "option1", None, "option1"),
    (ENDINGS, "The correct ending is ending 4.", "ending4", None, None),
    (ENDINGS, "Ending4: starts pulling up roofing", "ending4", None, None),
    (TRUTH, "the correct answer is true", "true", "true", "true"),
    (TRUTH, "The correct answer is False", "false", "false", None),
    (TRUTH, "True.", "true", None, None),
    (TRUTH, "false, because it is not true", "false", None, "false"),
    (TRUTH, "Yes.", "true", None, None),
    (TRUTH, "The answer is no.", "false", None, None),
    (TRUTH, "No one knows", None, None, None),
    (TRUTH, "true or false", None, None, "true"),
    (TRUTH, "true/false", None, None, "true"),
    (TRUTH, "The statement is false.", "false", None, "false"),
    (TRUTH, "It was untrue", None, None, "true"),
    (TRUTH, BOOLQ_PROMPT, None, None, "true"),
    (TRUTH, BOOLQ_PROMPT + "the correct answer is false", "false", "false", "true"),
]  # fmt: skip

TABLE = [(NUMBER, *row) for row in NUMBERS] + [(LETTER, *row) for row in LETTERS] + [tuple(row) for row in CHOICES]


def test_the_table_is_large_enough() -> None:
    assert len({(spec, text) for spec, text, *_ in TABLE}) == len(TABLE) >= 120


@pytest.mark.parametrize(("spec", "text", "by_robust", "by_strict", "by_legacy"), TABLE)
def test_answers(spec: AnswerSpec, text: str, by_robust: str, by_strict: str, by_legacy: str) -> None:
    assert {name: rule(text, spec) for name, rule in RULES.items()} == {
        "robust": by_robust,
        "strict": by_strict,
        "legacy": by_legacy,
    }


SPECS = [NUMBER, LETTER, ANSWERS4, ANSWERS5, OPTIONS, TRUTH, AnswerSpec("choice"), AnswerSpec("choice", ("a.b", "c|d"))]
INSTRUCTION = "Answer the above question. First think step by step and then answer the final number."
PIECES = st.sampled_from(
    [
        *("the correct answer is ", "The final answer is: ", "answer", "answer1", "true", "/", " or ", ":", "\\boxed{"),
        *("\\frac{", "1", "0", ",", ".", "-", "$", "%", "#### ", "=", "\n", " ", "C", "A", "not ", "}", "(", ")"),
        *("\u00bd", "\u221e", "e9", "twenty", "million", "9" * 5000, INSTRUCTION),
    ]
)


@settings(max_examples=400, deadline=None)
@given(text=st.one_of(st.text(), st.lists(PIECES, max_size=25).map("".join)), spec=st.sampled_from(SPECS))
def test_no_string_raises(text: str, spec: AnswerSpec) -> None:
    for rule in RULES.values():
        found = rule(text, spec)
        assert found is None or isinstance(found, str)
        if found is not None and spec.kind == "number":
            assert math.isfinite(float(found))
            assert correct(found, found, "number")
        if found is not None and spec.kind == "letter":
            assert found in "ABCDE"
        if found is not None and spec.kind == "choice" and rule is not legacy:
            assert found in spec.options


@settings(max_examples=200, deadline=None)
@given(value=st.floats(allow_nan=False, allow_infinity=False, min_value=-1e12, max_value=1e12))
def test_a_canonical_number_reads_back(value: float) -> None:
    text = canonical(value)
    assert float(text) == value
    if "e" not in text:
        for rule in RULES.values():
            assert correct(rule(f"So.\nThe final answer is: {text}", NUMBER), text, "number")


@settings(max_examples=100, deadline=None)
@given(value=st.integers(min_value=-(10**12), max_value=10**12))
def test_thousands_separators(value: int) -> None:
    for rule in RULES.values():
        assert rule(f"The final answer is: {value:,}", NUMBER) == str(value)


def test_rules_are_fast_on_long_text() -> None:
    import time

    start = time.perf_counter()
    for piece in (
        "answer is ",
        "1,",
        "1 ",
        "answer1 or ",
        "the answer ",
        "(",
        "\\boxed{",
        "twenty ",
        "1/",
        "not answer1 ",
    ):
        for spec in (NUMBER, LETTER, ANSWERS4, TRUTH):
            for rule in RULES.values():
                rule(piece * (4000 // len(piece)), spec)
    assert time.perf_counter() - start < 20


@pytest.mark.parametrize(
    ("extracted", "target", "kind", "right"),
    [
        ("7", "7", "number", True),
        ("7.0", "7", "number", True),
        ("7.0009", "7", "number", True),
        ("7.0011", "7", "number", False),
        ("0.6667", "0.6666666666666666", "number", True),
        ("-7", "7", "number", False),
        (None, "7", "number", False),
        ("seven", "7", "number", False),
        ("C", "C", "letter", True),
        ("B", "C", "letter", False),
        ("answer1", "answer1", "choice", True),
        ("answer1", "answer2", "choice", False),
        (None, "true", "choice", False),
    ],
)
def test_correct(extracted: str | None, target: str, kind: str, right: bool) -> None:
    assert correct(extracted, target, kind) is right


@pytest.mark.parametrize(
    ("answer", "spec", "canonical_form"),
    [
        ("576.0", NUMBER, "576"),
        (" 1,000 ", NUMBER, "1000"),
        ("1.8333333333333335", NUMBER, "1.8333333333333335"),
        ("-15.0", NUMBER, "-15"),
        ("many", NUMBER, None),
        ("inf", NUMBER, None),
        ("nan", NUMBER, None),
        ("C", LETTER, "C"),
        ("F", LETTER, None),
        ("answer5", ANSWERS5, "answer5"),
        ("answer5", ANSWERS4, None),
    ],
)
def test_canonical_answer(answer: str, spec: AnswerSpec, canonical_form: str | None) -> None:
    assert canonical_answer(answer, spec) == canonical_form


def test_options_of() -> None:
    assert options_of(ARC_PROMPT.strip()) == ANSWERS4.options
    assert options_of(BOOLQ_PROMPT) == ("true", "false")
    assert options_of("Answer format: answer1/answer2 and more") == ()
    assert options_of("What is 1/2?") == ()


def test_find_numbers() -> None:
    assert find_numbers(tidy("1,234 and 5,6 and 7 1/2 and 9 10/2 and x2 and 1.5.2")) == [1234, 5, 7.5, 9, 5, 1.5]
    assert KINDS == ("choice", "number", "letter")
    assert strict("", NUMBER) is None
    assert robust("", AnswerSpec("choice")) is None
