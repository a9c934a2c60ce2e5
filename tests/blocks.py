"""The code blocks of the documentation: which are run as they stand, and which say what they would need."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

MARKS = {"gpu", "hub", "install", "api"}
"""`<!-- needs: MARK -->` on the line before a block: it is not run. install: environments, which .ci/run sets up; api:
has a test of its own."""

_BLOCK = re.compile(
    r"(?:<!-- (?:needs: (?P<needs>[^\n]+?)|command:(?P<command>\w+)) -->\n)?"
    r"```(?P<language>bash|python)\n(?P<text>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)


class Block(NamedTuple):
    """needs: the mark; command: of README's two, which set themselves up; text: as it stands, newline at its end."""

    language: str
    text: str
    needs: str | None
    command: str | None


def code_blocks(page: Path) -> list[Block]:
    """Every bash and python block of a page, in its order; a block with a title is a file, shown, not run."""
    return [
        Block(match["language"], match["text"], match["needs"], match["command"])
        for match in _BLOCK.finditer(page.read_text(encoding="utf-8"))
    ]


def our_commands(block: Block) -> list[str]:
    """The arguments of every `python -m infosteer_bench ...` line."""
    text = block.text.replace("\\\n", " ")
    return re.findall(r"(?:^|[\s/])-m infosteer_bench ([^\n&|;]+)", text) if block.language == "bash" else []
