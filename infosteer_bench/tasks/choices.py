"""The robust rule for tasks whose answer is one of a few option words (answer1..answer5, option1/2, true/false).

Order: a stated answer ("the correct answer is X", "X is correct"), then an answer that opens the text, then an option
that is the only one mentioned. Lists of options ("answer1/answer2/answer3", "true or false") and options that are
denied ("not answer1") are no answers, so the prompt given back stays unparsed.
"""

from __future__ import annotations

import re
from functools import cache

_COUNT = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_ORDINAL = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth")
_NOUN = "answer|option|choice|solution|ending"
_IS = r"(?:\b(?:is|are|was|would be|should be|must be|will be)\b[^\S\n]*(?::\s*)?|:\s*|(?:=|->|→)[^\S\n]*)"
_ECHO = re.compile(r"please (?:choose the correct|answer the following)\b.*?\banswer format:[^\n]*", re.DOTALL)
_DENIED = r"(?:not|n't|n\u2019t|wrong|incorrect|neither|never)"


def robust_choice(text: str, options: tuple[str, ...]) -> str | None:
    """The option that `text` gives as its answer, or None."""
    if not options:
        return None
    patterns = _patterns(options)
    text = re.sub(r"\\(?:boxed|text|mathrm|mathbf|textbf)\s*\{([^{}]*)\}", r"\1", text.lower())
    text = re.sub(r"\\(?:boxed|text|mathrm|mathbf|textbf)\s*\{([^{}]*)\}", r"\1", text)  # one level of nesting
    text = re.sub(r"[*`\"“”_$]", "", text).strip()
    text = patterns.drop_lists(_ECHO.sub(" ", text))
    text = patterns.denied.sub(" ", text)
    stated = min(
        (match for pattern in patterns.stated if (match := pattern.search(text))), key=lambda m: m.start(), default=None
    )
    if stated:
        return patterns.option(stated)
    text = patterns.drop_labels(text).strip()
    opening = patterns.opening.match(text) or patterns.number_line.match(text)
    if opening:
        return patterns.option(opening)
    mentioned = {patterns.option(match) for match in patterns.mention.finditer(text)}
    return mentioned.pop() if len(mentioned) == 1 else None


class _Patterns:
    """The regular expressions for one set of options.

    Numbered options (a common word and 1..n) are also recognised as "Answer 3", "option (2)", "the second option" and,
    where an answer is stated, as a bare "3". True and false are also recognised as yes and no there.
    """

    def __init__(self, options: tuple[str, ...]) -> None:
        self.by_key = {option.lower(): option for option in options}
        word = re.match(r"[a-z]*", options[0].lower()).group()  # type: ignore[union-attr]
        self.numbered = bool(word) and all(re.fullmatch(rf"{word}[1-9]", option) for option in self.by_key)
        bare = r"(?!)"
        if self.numbered:
            digits = "".join(option[-1] for option in self.by_key)
            number = rf"[{digits}]|{'|'.join(_COUNT[int(d) - 1] for d in digits)}"
            ordinal = "|".join(_ORDINAL[int(d) - 1] for d in digits)
            nouns = rf"(?:{word}|{_NOUN})"
            self.core = rf"(?:\b{nouns}\s*\#?\(?\s*(?:{number})(?![\w%]|[.,]\d)|\bthe\s+(?:{ordinal})[^\S\n]+{nouns}\b)"
            bare = (
                rf"[(\[\#]?(?:[{digits}])(?![\w%/]|[.,]\d)"
                r"(?=\s*(?:$|[)\].,;:!]|\n)|\s+(?:because|since|as|is|due)\b)"
            )
            self.number_line = re.compile(rf"(?P<option>[(\[#]?[{digits}][)\].:]?)\s*(?:\n|$)")
        else:
            self.core = rf"\b(?:{'|'.join(re.escape(option) for option in self.by_key)})\b"
            if set(self.by_key) == {"true", "false"}:
                bare = r"(?:yes|no)\b(?=\s*(?:$|[.,;:!)\n]))"
            self.number_line = re.compile(rf"(?P<option>{bare})")
        core = self.core
        self.mention = re.compile(rf"(?P<option>{core})")
        self.opening = re.compile(rf"[\s(\[]*(?P<option>{core})(?=$|[\s.,:;)\]!-])")
        self.stated = (
            re.compile(
                rf"\b(?:{_NOUN}|response|conclusion|statement)\b(?:[^\S\n]+[\w']+){{0,9}}?\s*{_IS}"
                rf"(?:that\s+)?(?:the\s+)?(?:correct\s+(?:{_NOUN})\s+)?[(\[]*(?P<option>{core}|{bare})"
            ),
            re.compile(
                rf"(?P<option>{core})[^\S\n]+(?:is|would be|must be|seems)[^\S\n]+(?:clearly\s+)?(?:the\s+)?"
                r"(?:most\s+)?(?:correct|right|best|likely|appropriate|answer)"
            ),
            re.compile(rf"\b(?:choose|pick|select|chose)\b[^\S\n]+(?:the[^\S\n]+)?(?P<option>{core}|{bare})"),
        )
        self.denied = re.compile(
            rf"{_DENIED}\s+(?:be\s+)?(?:the\s+)?{core}"
            rf"|{core}\s+(?:is|are|was|would be|can|could|does|do)?\s*(?:clearly\s+|also\s+)?{_DENIED}\b"
        )
        self.list = re.compile(rf"{core}(?:\s*(?:/|,\s*or\b|,\s*and\b|,|\bor\b|\band\b)\s*{core})+")
        self.label = re.compile(rf"(?P<option>{core})\s*:")

    def option(self, match: re.Match[str]) -> str | None:
        """The option that a match names."""
        return self._named(match["option"])

    def _named(self, text: str) -> str | None:
        text = text.strip(" ([#)].:\t\n")
        if not self.numbered:
            return self.by_key.get({"yes": "true", "no": "false"}.get(text, text))
        for option in self.by_key:
            n = int(option[-1])
            if re.search(rf"{n}|\b{_ORDINAL[n - 1]}\b", text) or text.endswith(_COUNT[n - 1]):
                return self.by_key[option]
        return None

    def drop_lists(self, text: str) -> str:
        """Without runs of different options joined by "/", "," or "or": they list what there is to choose from."""

        def drop(match: re.Match[str]) -> str:
            names = {self._named(part.group()) for part in self.mention.finditer(match.group())}
            return " " if len(names) > 1 else match.group()

        return self.list.sub(drop, text)

    def drop_labels(self, text: str) -> str:
        """Without "answer1:", "answer2:" ... where several options are labelled: that repeats the prompt's list."""
        labels = {self.option(match) for match in self.label.finditer(text)}
        return self.label.sub(" ", text) if len(labels) > 1 else text


@cache
def _patterns(options: tuple[str, ...]) -> _Patterns:
    return _Patterns(options)
