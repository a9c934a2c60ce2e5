"""Overlap of data: test questions that stand in a training mix, and in other tests or twice in their own.

    found = audit_data(source, mixes=BUILTIN_MIXES.values(), tests={"boolq": source.get("dataset/boolq/test.json")})
    found.mixes["commonsense"].exact["boolq"]       # places in the test file

Two questions are the same if their words are: letters and digits in order, without case, punctuation and spacing (many
copies that the arithmetic tests share differ in those alone). They are the same but for numbers if they are so after
every number in digits is masked; numbers in words are not. What is compared is the record's instruction with the
options it lists, or its question; the lettered choices after an arithmetic question are left out, as no training
question has any.

A row counts whether or not a tokenizer finds it too long to be trained on.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from itertools import combinations

from infosteer_bench.data.mixes import MixRow, build_mix
from infosteer_bench.data.sources import DataSource, SourceFile, load_json_records
from infosteer_bench.errors import UserError
from infosteer_bench.grid import MixSpec, PromptConfig
from infosteer_bench.records import AuditedMix, AuditedTest, DataAudit, SharedQuestions

NUMBER = re.compile(r"\d+(?:,\d{3})*(?:\.\d+)?")
MASK = "#"
_WORD = re.compile(r"\w+")
_MASKED_WORD = re.compile(rf"[\w{MASK}]+")
_AFTER_QUESTION = re.compile(r"\sAnswer Choices:\s|\nAnswer the above question\.")


def masked(text: str) -> str:
    """`text` with every number as #."""
    return NUMBER.sub(MASK, text)


def question_of(prompt: str) -> str:
    """The question of an arithmetic prompt: without lettered choices and without the request to think."""
    return _AFTER_QUESTION.split(prompt, maxsplit=1)[0].strip()


def words(question: str) -> str:
    """The words of a question: what two questions are compared by."""
    return " ".join(_WORD.findall(question.casefold()))


def words_but_numbers(question: str) -> str:
    """The same with every number masked."""
    return " ".join(_MASKED_WORD.findall(masked(question.replace(MASK, " ")).casefold()))


def read_questions(file: SourceFile) -> list[str]:
    """The question of every item of a test file, in its order. Raises UserError for a record without one."""
    questions: list[str] = []
    for number, record in enumerate(load_json_records(file), start=1):
        text = record.get("instruction")
        if not isinstance(text, str):
            raise UserError(f"{file.path}, record {number}: no text field 'instruction'")
        questions.append(question_of(text))
    return questions


def audit_data(
    source: DataSource, *, mixes: Iterable[MixSpec], tests: Mapping[str, SourceFile], max_examples: int | None = None
) -> DataAudit:
    """Every mix against every test, and the tests against one another.

    tests: by task, in the order in which the first of two equal items is the one that is kept. max_examples: as in
    `build_mix`.
    Raises UserError for a file that is damaged, and for a mix without any row.
    """
    questions = {task: read_questions(file) for task, file in tests.items()}
    exact = {task: [words(question) for question in of_task] for task, of_task in questions.items()}
    alike = {task: [words_but_numbers(question) for question in of_task] for task, of_task in questions.items()}
    return DataAudit(
        tests={task: AuditedTest(sha256=file.sha256, items=len(exact[task])) for task, file in tests.items()},
        mixes={spec.name: _audited_mix(spec, source, exact, alike, max_examples) for spec in mixes},
        repeated=_repeated(exact),
        shared=_shared(exact, alike),
    )


def _audited_mix(
    spec: MixSpec,
    source: DataSource,
    exact: Mapping[str, list[str]],
    alike: Mapping[str, list[str]],
    max_examples: int | None,
) -> AuditedMix:
    """The texts do not depend on the prompt's template, and neither do the rows that are chosen."""
    mix = build_mix(spec, source, prompt=PromptConfig(), max_examples=max_examples)
    held_out: tuple[MixRow, ...] = ()
    if any(of_source["held_out"] for of_source in mix.sources.values()):
        held_out = build_mix(spec, source, prompt=PromptConfig(), max_examples=None, part="dev").rows
    trained = [question_of(row.prompt) for row in mix.rows]
    same = _places(exact, {words(question) for question in trained})
    near = _places(alike, {words_but_numbers(question) for question in trained})
    return AuditedMix(
        sources={name: of_source["sha256"] for name, of_source in mix.sources.items()},
        max_examples=max_examples,
        rows=len(mix.rows),
        held_out=len(held_out),
        exact=same,
        # 2.5 and 2,5 are the same words, and not the same number
        masked={task: tuple(sorted({*same[task], *places})) for task, places in near.items()},
        development=_places(exact, {words(question_of(row.prompt)) for row in held_out}),
    )


def _places(texts: Mapping[str, list[str]], there: set[str]) -> dict[str, tuple[int, ...]]:
    return {task: tuple(i for i, text in enumerate(of_task) if text in there) for task, of_task in texts.items()}


def _repeated(texts: Mapping[str, list[str]]) -> tuple[tuple[tuple[str, int], ...], ...]:
    places: dict[str, list[tuple[str, int]]] = {}
    for task, of_task in texts.items():
        for place, text in enumerate(of_task):
            places.setdefault(text, []).append((task, place))
    return tuple(tuple(same) for same in places.values() if len(same) > 1)


def _shared(exact: Mapping[str, list[str]], alike: Mapping[str, list[str]]) -> tuple[SharedQuestions, ...]:
    """Of every two tests that share a question."""
    found: list[SharedQuestions] = []
    same, near = ({task: set(of_task) for task, of_task in texts.items()} for texts in (exact, alike))
    for one, other in combinations(exact, 2):
        n_exact, n_alike = len(same[one] & same[other]), len(near[one] & near[other])
        if n_exact or n_alike:
            found.append(SharedQuestions(tests=(one, other), exact=n_exact, masked=n_alike))
    return tuple(found)
