"""Numbers in free text: digits with separators, currency and units, fractions, LaTeX, and number words.

Every function takes any string and raises nothing. Values are finite floats; `canonical` writes one the way
targets and extracted answers are stored ("576", "1.8333333333333335").
"""

from __future__ import annotations

import math
import re
import unicodedata

TOLERANCE = 1e-3
"""Two numbers closer than this, absolutely, are the same answer (LLM-Adapters' tolerance)."""

_DIGITS = r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?"
_NUMBER = re.compile(
    rf"""
    (?P<sign>(?<![\w)\]}}.$%])-)?                       # no sign in 10-5 or x-5
    (?:[$€£¥₹]\s?(?P<sign2>-)?)?
    (?<![A-Za-z0-9_^])(?<![0-9]\.)(?<![0-9],)           # not the 2 of x2, cm^2 or 1.5.2
    (?:
        (?P<whole>[0-9]+)?\s*\\frac\s*\{{\s*(?P<top>-?{_DIGITS})\s*\}}\s*\{{\s*(?P<bottom>{_DIGITS})\s*\}}
      | (?P<mixed>[0-9]+)(?:\s+(?:and\s+)?|-)(?P<mixed_top>[0-9]+)\s?/\s?(?P<mixed_bottom>[0-9]+)(?![0-9/])
      | (?P<over>{_DIGITS})\s?/\s?(?P<under>{_DIGITS})(?![0-9]|\s?/\s?[0-9])
      | (?P<plain>{_DIGITS}|\.[0-9]+)(?P<exponent>[eE][+-]?[0-9]{{1,3}}(?!\w))?
    )
    (?:\s*(?P<times>hundred|thousand|million|billion)\b)?
    """,
    re.VERBOSE | re.IGNORECASE,
)
_TIMES = {"hundred": 1e2, "thousand": 1e3, "million": 1e6, "billion": 1e9}
_UNITS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
)
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_WORDS = {word: n for n, word in enumerate(_UNITS)} | {word: 10 * n for n, word in enumerate(_TENS, start=2)}
_WORD_RUN = re.compile(rf"\b(?:(?:{'|'.join([*_WORDS, *_TIMES])})\b(?:[-\s]+(?:and\s+)?)?)+", re.IGNORECASE)


def tidy(text: str) -> str:
    """`text` with LaTeX spacing, typographic minus signs, vulgar fractions and bold marks written plainly."""
    text = "".join(_plain_fraction(char) if not char.isascii() else char for char in text)
    for old, new in (
        ("{,}", ","), ("\\,", ""), ("\\!", ""), ("\\$", "$"), ("\\%", "%"),
        ("\\dfrac", "\\frac"), ("\\tfrac", "\\frac"), ("**", ""), ("__", ""),
    ):  # fmt: skip
        text = text.replace(old, new)
    return text


def _plain_fraction(char: str) -> str:
    if char in "\u2212\u2013\uff0d":  # minus sign, en dash, full-width hyphen
        return "-"
    if char in "\u00a0\u202f\u2009":  # spaces that do not break
        return " "
    if unicodedata.decomposition(char).startswith("<fraction>"):
        return " " + unicodedata.normalize("NFKC", char).replace("\u2044", "/")
    return char


def find_numbers(text: str) -> list[float]:
    """The finite numbers of a `tidy` text, in order."""
    values: list[float] = []
    for match in _NUMBER.finditer(text):
        values.extend(value for value in _values(match) if math.isfinite(value))
    return values


def _values(match: re.Match[str]) -> list[float]:
    """The value of one match; two where "5 10/2" only looks like a mixed number."""
    group = {name: value for name, value in match.groupdict().items() if value is not None}
    sign = -1.0 if "sign" in group or "sign2" in group else 1.0
    factor = sign * _TIMES.get(group.get("times", "").lower(), 1.0)
    if "top" in group:
        values = _ratio(group["top"], group["bottom"])
        values = [float(group.get("whole", 0)) + value for value in values]
    elif "mixed" in group:
        values = _ratio(group["mixed_top"], group["mixed_bottom"])
        if values and 0 < values[0] < 1:
            values = [float(group["mixed"]) + values[0]]
        else:
            return [sign * float(group["mixed"]), *values]
    elif "over" in group:
        values = _ratio(group["over"], group["under"])
    else:
        values = [_float(group["plain"] + group.get("exponent", ""))]
    return [factor * value for value in values]


def _float(digits: str) -> float:
    return float(digits.replace(",", ""))


def _ratio(top: str, bottom: str) -> list[float]:
    return [_float(top) / _float(bottom)] if _float(bottom) else []


def stated_number(tail: str) -> float | None:
    """The number that a `tidy` text states right after "the answer is": the first one, or the result of an equation."""
    lines = [line for line in tail[:400].split("\n") if line.strip()]
    # "The final answer is:" and "\[" may stand alone on their line.
    line = next((line for line in lines if re.search(r"\w", line)), "")
    sentence = re.split(r"[.;!?](?=\s|$)", line, maxsplit=1)[0]
    without = re.sub(r"\([^()]*=[^()]*\)", "", sentence)  # "20 (= 4 * 5)"
    if find_numbers(without):
        sentence = without
    for part in (sentence.rpartition("=")[2], sentence):
        if numbers := find_numbers(part):
            return numbers[0]
        if (word := _number_word(part)) is not None:
            return word
    return next(iter(find_numbers(line)), None)


def _number_word(text: str) -> float | None:
    """The first number written in words, below a trillion: "twenty-five", "one hundred and five"."""
    match = _WORD_RUN.search(text)
    if not match:
        return None
    total, current = 0.0, 0.0
    for word in re.findall(r"[a-z]+", match.group().lower()):
        if word == "hundred":
            current = max(current, 1.0) * 100
        elif word in _TIMES:
            total, current = total + max(current, 1.0) * _TIMES[word], 0.0
        else:
            current += _WORDS.get(word, 0)
    return total + current if math.isfinite(total) else None


def boxed(text: str) -> list[str]:
    r"""The contents of every \boxed{...}, braces matched, in order."""
    found: list[str] = []
    for match in re.finditer(r"\\f?boxed\s*\{", text):
        depth = 1
        for end in range(match.end(), len(text)):
            depth += {"{": 1, "}": -1}.get(text[end], 0)
            if depth == 0:
                found.append(text[match.end() : end])
                break
    return found


def canonical(value: float) -> str:
    """One spelling per finite value: whole numbers without a fraction, others as Python's shortest repr."""
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(float(value))


def parse_plain(text: str) -> float | None:
    """A number that is nothing but a number, thousands separators allowed; None otherwise."""
    try:
        value = float(text.strip().replace(",", ""))
    except ValueError:
        return None
    return value if math.isfinite(value) else None
