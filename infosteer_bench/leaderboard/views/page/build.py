"""Put a board's page together: template, style, scripts and data into one file without any address in it.

    texts = build_page(board)     # {"index.html": ..., "items/7.js": ...}

Answers and names come from models and users, so none of them is ever markup: data enter as JSON whose `<` is escaped,
the scripts write them with textContent, and the content security policy names the page's own scripts by digest, so
that nothing else would run and nothing is fetched. The items lie in files of their own where they are many; these are
loaded as scripts, because a page opened from disk may not read files in any other way.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
from pathlib import Path
from typing import Any

from infosteer_bench.leaderboard.numbers.board import Board
from infosteer_bench.leaderboard.views.page.payload import payload

FOLDER = Path(__file__).parent
INDEX_FILE = "index.html"
ITEMS_FOLDER = "items"
INLINE_CHARACTERS = 1_000_000  # items up to this size are part of the page, so that one file holds it all
TABLE_LIBRARY = "vendor/dataTables.min.js"
SCRIPTS = ("core", "items", "detail", "heat", "plots", "forest", "costs", "mechanism", "table", "main")
POLICY = (
    "default-src 'none'; script-src {digests} 'self' file:; style-src 'unsafe-inline'; img-src data:; "
    "base-uri 'none'; form-action 'none'"
)


def build_page(board: Board) -> dict[str, str]:
    """The page's files by name, relative to the board's folder.

    Raises OSError or pyarrow's exceptions where the items cannot be read.
    """
    data = payload(board)
    texts = {place: script_json(found) for place, found in board.flips.items()}
    inline = sum(map(len, texts.values())) <= INLINE_CHARACTERS
    data["items"] = {
        "rows": sorted(texts),
        "files": not inline,
        "inline": {str(place): found for place, found in board.flips.items()} if inline else {},
    }
    files = {INDEX_FILE: _index(data)}
    if not inline:
        files |= {f"{ITEMS_FOLDER}/{place}.js": f"boardItems({place},{text});\n" for place, text in texts.items()}
    return files


def script_json(value: Any) -> str:
    """JSON that cannot end a <script> element, open a comment in one, or break a line of JavaScript."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text.encode("utf-8", "backslashreplace").decode()  # a lone surrogate becomes its JSON escape


def _index(data: dict[str, Any]) -> str:
    scripts = [_asset(TABLE_LIBRARY), _own_script()]
    digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in scripts]
    parts = {
        "POLICY": POLICY.format(digests=" ".join(f"'sha256-{digest}'" for digest in digests)),
        "TITLE": html.escape(data["name"]),
        "STYLE": _asset("page.css"),
        "DATA": script_json(data),
        "LIBRARY": scripts[0],
        "SCRIPT": scripts[1],
    }
    pieces = _asset("template.html").split("%%")  # text, name, text, name, ..., text: data are not looked into
    return "".join(parts[piece] if place % 2 else piece for place, piece in enumerate(pieces))


def _own_script() -> str:
    bodies = "\n".join(_asset(f"js/{name}.js") for name in SCRIPTS)
    return f'(() => {{\n"use strict";\n{bodies}}})();\n'


def _asset(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")
