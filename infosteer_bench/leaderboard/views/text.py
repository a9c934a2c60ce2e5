"""Markdown from data: whatever a name or an answer holds, it stays text.

Boards, reproduction.md, the reports of analysis/ and the generated docs are written with these.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from infosteer_bench.leaderboard.numbers.row import number

UNSAFE = re.compile(r"[\\`*_~\[\]|<>&]|(?<=:)/(?=/)|(?<=www)\.", re.IGNORECASE)  # of "://" and "www.", what links
ENTITIES = {"<": "&lt;", ">": "&gt;", "&": "&amp;"}


class Strong(str):
    """A piece of text that stands out."""


class Code(str):
    """A piece of text that is a name or a command."""


Parts = tuple[str, ...]  # a text in pieces, some of them Strong or Code


def markdown(parts: Parts) -> str:
    """The text in Markdown, on one line."""
    return "".join(_piece(part) for part in parts)


def _piece(part: str) -> str:
    if isinstance(part, Code):
        return code(part)
    edges = (" " * part.startswith(" "), " " * part.endswith(" "))  # which `escape` takes away
    return edges[0] + (f"**{escape(part)}**" if isinstance(part, Strong) else escape(part)) + edges[1]


def printable(text: str) -> str:
    """Without control characters, which no SVG may hold, and without those that turn the direction of what follows."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def escape(text: str) -> str:
    """Text that stays itself inside a Markdown table: no markup, no link, no HTML, no column break, one line."""
    one_line = " ".join(printable(text).split())
    return UNSAFE.sub(lambda match: ENTITIES.get(match[0], "\\" + match[0]), one_line)


def code(text: str) -> str:
    """Text as a code span that holds whatever the text holds."""
    one_line = " ".join(text.split())
    fence = "`" * (max((len(run) for run in re.findall("`+", one_line)), default=0) + 1)
    pad = " " if "`" in one_line else ""
    return f"{fence}{pad}{one_line}{pad}{fence}"


def table(header: Sequence[str], body: Iterable[Sequence[str]]) -> list[str]:
    """A Markdown table; the first column is text, the others numbers."""
    lines = ["| " + " | ".join(header) + " |", "|---|" + "---:|" * (len(header) - 1)]
    return [*lines, *("| " + " | ".join(cells) + " |" for cells in body)]


def signed(value: float | None, digits: int = 2) -> str:
    """Points with their sign."""
    text = number(value, digits)
    return text if text.startswith("-") or not text else "+" + text
