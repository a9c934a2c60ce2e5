"""From a generated text to an answer: three rules, as pure functions that take any string and raise nothing.

    robust("Adding up, 3 + 4 = 7.\\nThe final answer is: $7.00", AnswerSpec("number"))      -> "7"
    robust("The best option would be (2).", AnswerSpec("choice", ("option1", "option2")))   -> "option2"

robust   what a fair reader would take for the answer; the default.
strict   only the phrase that fine-tuning teaches: "the correct answer is X", "The final answer is: X".
legacy   LLM-Adapters' rule, its faults included (commomsense_evaluate.py, evaluate.py): the first option word anywhere,
         the last number after removing commas, the first capital A to E anywhere ("Answer: (C)" reads as A).

None means unparsed. Which trigger counts where there are several: the first for `choice`, since tuned models answer at
once and what follows is rambling; the last for `number` and `letter`, which come after a rationale.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from infosteer_bench.tasks.choices import robust_choice
from infosteer_bench.tasks.numbers import (
    TOLERANCE,
    boxed,
    canonical,
    find_numbers,
    parse_plain,
    stated_number,
    tidy,
)

FILTERS_VERSION = 1
"""Raised whenever a rule gives another answer for some text; part of every task's digest."""

KINDS = ("choice", "number", "letter")


@dataclass(frozen=True)
class AnswerSpec:
    """What kind of answer is asked for. options: of this very item, for kind `choice` only."""

    kind: str
    options: tuple[str, ...] = ()


def robust(text: str, spec: AnswerSpec) -> str | None:
    """The answer as a fair reader takes it, or None."""
    if spec.kind == "choice":
        return robust_choice(text, spec.options)
    text = _after_echo(tidy(text))
    return _robust_number(text) if spec.kind == "number" else _robust_letter(text)


def strict(text: str, spec: AnswerSpec) -> str | None:
    """The answer in the trained phrase, or None."""
    if spec.kind == "choice":
        options = "|".join(re.escape(option) for option in sorted(spec.options, key=len, reverse=True))
        match = re.search(rf"\bthe correct answer is ({options})(?!\w)", text, re.IGNORECASE) if options else None
        return match.group(1).lower() if match else None
    pattern = (
        r"-?\$?[0-9][0-9,]*(?:\.[0-9]+)?(?![\w/]|[.,][0-9]|[^\S\n]*(?:and )?[0-9=+*-])"
        if spec.kind == "number"
        else r"\(?[A-E](?!\w)"
    )
    found = re.findall(rf"(?i:\bthe final answer is):\s*({pattern})", text)
    if not found:
        return None
    if spec.kind == "letter":
        return found[-1].lstrip("(")
    value = parse_plain(found[-1].replace("$", ""))
    return canonical(value) if value is not None else None


def legacy(text: str, spec: AnswerSpec) -> str | None:
    """The answer by LLM-Adapters' rule. Where that gives "" or inf, None."""
    if spec.kind == "choice":
        found = re.findall("|".join(_legacy_options(spec.options)), text.strip()) if spec.options else []
        return found[0] if found else None
    if spec.kind == "letter":
        found = re.findall(r"A|B|C|D|E", text.strip())
        return found[0] if found else None
    found = re.findall(r"-?\d+\.?\d*", text.replace(",", ""))
    value = parse_plain(found[-1]) if found else None
    return canonical(value) if value is not None else None


RULES: dict[str, Callable[[str, AnswerSpec], str | None]] = {"robust": robust, "strict": strict, "legacy": legacy}
"""Filter name -> rule, in the order in which scores are shown; the first is the default."""


def correct(extracted: str | None, target: str, kind: str) -> bool:
    """Whether an extracted answer is right; `target` is canonical (see `canonical_answer`)."""
    if extracted is None:
        return False
    if kind != "number":
        return extracted == target
    value, wanted = parse_plain(extracted), parse_plain(target)
    return value is not None and wanted is not None and abs(value - wanted) <= TOLERANCE


def canonical_answer(answer: str, spec: AnswerSpec) -> str | None:
    """A record's gold answer in the spelling that the rules give, or None if it is no answer of this kind."""
    answer = answer.strip()
    if spec.kind == "choice":
        return answer if answer in spec.options else None
    if spec.kind == "letter":
        return answer if re.fullmatch("[A-E]", answer) else None
    value = parse_plain(answer)
    return canonical(value) if value is not None else None


def options_of(instruction: str) -> tuple[str, ...]:
    """The options that an instruction ends with, "Answer format: answer1/answer2/answer3"; () if it does not."""
    match = re.search(r"Answer format: *([^\s/]+(?:/[^\s/]+)+)\s*$", instruction)
    return tuple(match.group(1).split("/")) if match else ()


def _legacy_options(options: tuple[str, ...]) -> list[str]:
    """Upstream's pattern is one per task: answer1 to answer5 also where the item has fewer."""
    if options[0].startswith("answer"):
        return [f"answer{n}" for n in range(1, 6)]
    return [re.escape(option) for option in options]


_INSTRUCTION = re.compile(
    r"answer the above question\.\s*first think step by step and then answer the final (?:number|letter)\.?",
    re.IGNORECASE,
)
_FINAL = re.compile(r"\bfinal\s+(?:answer|number|letter)\s*(?:is|:|=)\s*:?", re.IGNORECASE)
_ANSWER_IS = re.compile(
    r"\banswer(?:[^\S\n]+(?!choices)\w+){0,5}?\s*(?:(?:\bis|\bare|\bwas|\bwould be|\bequals)\b\s*:?|[:=])",
    re.IGNORECASE,
)


def _after_echo(text: str) -> str:
    """What answers the question, where the text repeats the prompt's instruction.

    An answer before the first repetition counts (what follows it belongs to another question); otherwise
    the repetition is an echo of the prompt, and the first text after it counts.
    """
    first, *rest = _INSTRUCTION.split(text)
    if not rest or _FINAL.search(first) or boxed(first) or re.search(r"\banswer\s*(?:is\b|[:=])", first, re.IGNORECASE):
        return first
    return next((part for part in rest if part.strip()), "")


def _robust_number(text: str) -> str | None:
    tails = [text[match.end() :] for match in _FINAL.finditer(text)][::-1]
    tails += boxed(text)[::-1]
    tails += [text[match.end() :] for match in re.finditer("####", text)][::-1]
    tails += [text[match.end() :] for match in _ANSWER_IS.finditer(text)][::-1]
    for tail in tails:
        value = stated_number(tail)
        if value is not None:
            return canonical(value)
    numbers = find_numbers(text)
    return canonical(numbers[-1]) if numbers else None


# A letter is bare (C), in brackets, or with a point; the capital article ("A train ...") is none of these.
_REASON = r"(?:because|since|as|is|due|for|and|with|which)\b"
_LETTER = re.compile(
    r"[\s:*_$\\]*(?:(?:text|mathrm|mathbf|textbf|boxed)\s*\{\s*)*(?:the\s+)?(?:(?:option|choice|letter)\s*)?"
    r"(?:[(\[]\s*(?P<bracket>[A-Ea-e])\s*[)\]]"
    r"|(?P<bare>[A-E])(?![\w'\u2019])(?:(?=\s*(?:$|[.,;:!?)\]}*_$\\(\n=-]))|(?=\s+" + _REASON + ")))"
)


def _robust_letter(text: str) -> str | None:
    tails = [text[match.end() :] for match in _FINAL.finditer(text)][::-1]
    tails += boxed(text)[::-1]
    tails += [text[match.end() :] for match in _ANSWER_IS.finditer(text)][::-1]
    tails += [text[m.end() :] for m in re.finditer(r"\b(?:option|choice|letter|answer)\b\s*(?:is\b|:)?", text, re.I)][
        ::-1
    ]
    for tail in tails:
        if match := _LETTER.match(tail):
            return (match["bracket"] or match["bare"]).upper()
    text = text.strip()
    in_brackets = {letter.upper() for letter in re.findall(r"\(\s*([A-Ea-e])\s*\)", text)}
    if len(in_brackets) == 1:
        return in_brackets.pop()
    opening = re.match(r"[\[(]?([A-E])(?:[.):\]](?!\w)|\s*(?:\n|$))", text)
    if opening and not re.search(r"^[\[(]?(?!" + opening.group(1) + r")[B-E][.):\]]\s", text, re.MULTILINE):
        return opening.group(1)
    closing = re.search(r"\n\s*[\[(]?([A-E])[.)\]]?$", text)
    return closing.group(1) if closing else None
