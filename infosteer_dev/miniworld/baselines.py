"""What can be had on the test items without knowing anything about the world: the floor under every score.

    for row in baselines(open_source(MINIWORLD)): ...

- `majority`: always the answer that training rows have most often, the first of equals. aqua has no training rows of
  its own: always the letter that its test has most often, which no model could know, so no constant answer does better.
- `option_only`: without the question, by the log-odds that an option's text was the right one in training rows; for
  boolq by the log-odds of true, given the value that is claimed. The first of equals.
- `random`: a guess among the item's options, in expectation.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass

from infosteer_bench.benchmark import COMMONSENSE, TASKS
from infosteer_bench.data.render import plain_number
from infosteer_bench.data.sources import DataSource, load_json_records
from infosteer_dev.miniworld.audit import mix_rows, test_prompts

_LABELS = "(?:Answer|Ending|Option|Solution)"
_OPTION = re.compile(rf"\b({_LABELS})(\d+): (.*?)(?=\s+{_LABELS}\d+: |\s+Answer format: )", re.DOTALL)
_CLAIM = re.compile(r"question: is it (\S+) that .*\?\n\nAnswer format: true/false", re.DOTALL)


@dataclass(frozen=True)
class Baseline:
    """One task: percent right of each guesser on its `items` test items; None where it does not apply.

    answer: what `majority` always says.
    """

    task: str
    items: int
    answer: str
    majority: float
    option_only: float | None
    random: float | None


def options_of(prompt: str) -> dict[str, str]:
    """Label -> text of the options in a commonsense prompt; for boolq, true and false -> the claimed value."""
    if claim := _CLAIM.search(prompt):
        return {"true": claim[1], "false": claim[1]}
    return {f"{label.lower()}{number}": text.strip() for label, number, text in _OPTION.findall(prompt)}


def baselines(source: DataSource) -> list[Baseline]:
    """One row per task, in the order of the tasks.

    Raises UserError for a data file that is not there or cannot be read.
    """
    rows = mix_rows(source, ["train"])
    training: dict[str, list[tuple[str, str]]] = {task: [] for task in (*COMMONSENSE, "gsm8k")}
    for mix in rows.values():
        for row in mix:
            # both forms of answer end with the answer itself
            training[row.source].append((row.prompt, row.completion.rsplit(" ", 1)[-1]))
    return [_baseline(source, task, training) for task in TASKS]


def _baseline(source: DataSource, task: str, training: dict[str, list[tuple[str, str]]]) -> Baseline:
    records = load_json_records(source.get(f"dataset/{TASKS[task].folder}/test.json"))
    prompts = test_prompts(source, task)
    answers = [str(record["answer"]).strip() for record in records]
    if task in COMMONSENSE:
        rows = training[task]
        usual = _most_frequent([answer for _, answer in rows])
        guesses = _option_only(rows, prompts)
        return Baseline(
            task,
            len(answers),
            usual,
            _percent([answer == usual for answer in answers]),
            _percent([guess == answer for guess, answer in zip(guesses, answers, strict=True)]),
            _percent([1 / len(options_of(prompt)) for prompt in prompts]),
        )
    if task == "aqua":
        usual = _most_frequent(answers)
        shares = [1 / len(re.findall(r"\([A-Z]\)", prompt)) for prompt in prompts]
        return Baseline(
            task, len(answers), usual, _percent([answer == usual for answer in answers]), None, _percent(shares)
        )
    usual = _most_frequent([plain_number(answer) for _, answer in training["gsm8k"]])
    return Baseline(
        task, len(answers), usual, _percent([plain_number(answer) == usual for answer in answers]), None, None
    )


def _option_only(rows: list[tuple[str, str]], prompts: list[str]) -> list[str]:
    """For each prompt the label whose text was right most often, by log-odds with one added to each count."""
    right: Counter[tuple[str, str]] = Counter()
    wrong: Counter[tuple[str, str]] = Counter()
    for prompt, answer in rows:
        for label, text in options_of(prompt).items():
            (right if label == answer else wrong)[_key(label, text)] += 1
    guesses = []
    for prompt in prompts:
        scores = {
            label: math.log((right[key] + 1) / (wrong[key] + 1))
            for label, text in options_of(prompt).items()
            for key in [_key(label, text)]
        }
        best = max(scores.values())
        guesses.append(next(label for label, score in scores.items() if score == best))
    return guesses


def _key(label: str, text: str) -> tuple[str, str]:
    """What log-odds are counted of: an option's text wherever it stands, but a claim as true and as false."""
    return (label if label in ("true", "false") else "", text)


def _most_frequent(answers: list[str]) -> str:
    return Counter(answers).most_common(1)[0][0]


def _percent(right: list[bool] | list[float]) -> float:
    return round(100 * sum(right) / len(right), 2)
