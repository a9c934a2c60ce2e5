"""Prompts to look inside a model with: the four kinds of the paper's Table 5, or a file of one's own.

A file is plain text with one prompt a line, or, where its name ends with .jsonl, a JSON object a line:
{"prompt": "...", "name": "..."}, name optional. Lines end with line feeds, alone or after a carriage return; the other
line breaks of Unicode are part of a prompt.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

from infosteer_bench.errors import UserError

ALLOWED = 'builtin, a text file with one prompt a line, or a .jsonl file of {"prompt": ..., "name": ...}'


class Prompt(NamedTuple):
    """name: for tables and headings; text: what the model is given."""

    name: str
    text: str


# Kinds as in the paper (6.2); the wording of the fourth is ours.
BUILTIN = (
    Prompt("concept", "Explain the concept of quantum computing."),
    Prompt("poem", "Write a short poem about artificial intelligence."),
    Prompt("arithmetic", "What is 31 x 31? Work it out step by step."),
    Prompt(
        "competition",
        "Alice and Bob play a game on a row of 2025 stones. They take turns, Alice first. On each turn a player takes "
        "either one stone from an end of the row, or two stones that lie next to each other. The player who takes the "
        "last stone wins. Which player has a winning strategy? Explain your reasoning.",
    ),
)


def read_prompts(given: str) -> list[Prompt]:
    """The prompts that --prompts names.

    Raises UserError for a file that cannot be read or holds no prompt, an empty prompt, and two prompts of one name.
    """
    if given == "builtin":
        return list(BUILTIN)
    path = Path(given).expanduser()
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
        raise UserError(f"--prompts {given} cannot be read: {reason}", allowed=ALLOWED) from None
    if not lines[-1]:  # the last line ends as the others do
        lines.pop()
    as_json = path.suffix == ".jsonl"
    found = [
        _from_json(line, given, number) if as_json else Prompt(f"prompt {number}", line)
        for number, line in enumerate(lines, 1)
    ]
    if not found:
        raise UserError(f"--prompts {given} is empty", allowed=ALLOWED)
    for number, prompt in enumerate(found, 1):
        if not prompt.text.strip():
            raise UserError(f"--prompts {given}: line {number} holds an empty prompt", hint="remove the line")
    names = [prompt.name for prompt in found]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"--prompts {given}: two prompts are named {twice!r}", hint="give each a name of its own")
    return found


def _from_json(line: str, given: str, number: int) -> Prompt:
    try:
        row = json.loads(line) if line.strip() else {"prompt": ""}
        text, name = row["prompt"], row.get("name", f"prompt {number}")
    except (ValueError, KeyError, TypeError, AttributeError):
        text = name = None
    if not isinstance(text, str) or not isinstance(name, str) or not name.strip():
        raise UserError(f'--prompts {given}: line {number} is no object with a text "prompt"', allowed=ALLOWED)
    return Prompt(name, text)
