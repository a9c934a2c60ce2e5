"""The generated parts of README.md and of every page below docs/: tables, an excerpt of a board, example files.

A generated part stands between `<!-- generated:NAME -->` and `<!-- /generated -->`, on one page or on several.

    python -m infosteer_dev.docs            writes them anew
    python -m infosteer_dev.docs --check    exits 1 and names those that are not what the code says
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from infosteer_bench.errors import UserError
from infosteer_dev import architecture, examples, measured, tables

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"(<!-- generated:(?P<name>[^\n]+?) -->\n).*?(<!-- /generated -->)", re.DOTALL)


def pages(root: Path) -> list[Path]:
    """README.md and all of docs/. Raises UserError where there is no README.md."""
    readme = root / "README.md"
    if not readme.is_file():
        raise UserError(f"{readme} does not exist", hint="run this in a checkout of the repository")
    return [readme, *sorted((root / "docs").rglob("*.md"))]


def blocks(root: Path, page: Path | None = None) -> dict[str, Callable[[], str]]:
    """Name of each generated part -> what writes it for that page, whose folder its links start from."""
    folder = (page or root / "README.md").parent
    return {
        "board": partial(measured.board, root, folder),
        "headline": partial(measured.headline, root),
        "knowledge": partial(measured.knowledge, root),
        "costs": measured.costs,
        "serving": measured.serving,
        "scale": measured.scale,
        "commands": tables.commands,
        "models": tables.models,
        "methods": tables.methods,
        "tasks": tables.tasks,
        "grids": tables.grids,
        "floors": partial(architecture.floors, root),
        **{
            f"path {name}": partial(architecture.reading_path, name, root, folder)
            for name in architecture.READING_PATHS
        },
        **{f"file {name}": partial(examples.shown, name, root) for name in examples.names(root)},
    }


def generate(text: str, root: Path, page: Path | None = None) -> tuple[str, list[str], list[str]]:
    """`text` with every generated part anew, the names of the parts in it, and of those that changed.

    Raises UserError for a part that nothing writes.
    """
    page = page or root / "README.md"
    writers = blocks(root, page)
    found: list[str] = []
    stale: list[str] = []

    def replace(match: re.Match[str]) -> str:
        name = match["name"]
        if name not in writers:
            raise UserError(f"{_shown(page, root)}: nothing generates the part {name!r}", allowed=", ".join(writers))
        found.append(name)
        fresh = f"{match[1]}{writers[name]()}\n{match[3]}"
        if fresh != match[0]:
            stale.append(name)
        return fresh

    return BLOCK.sub(replace, text), found, stale


def missing(found: set[str], root: Path) -> list[str]:
    """Parts that something generates and no page shows."""
    return [name for name in blocks(root) if name not in found]


def main(arguments: list[str] | None = None) -> int:
    """Write the generated parts of all pages, or check them; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m infosteer_dev.docs", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where a part is stale or missing")
    parser.add_argument("--root", type=Path, default=ROOT, help="the checkout")
    options = parser.parse_args(arguments)
    root: Path = options.root
    problems: list[str] = []
    found: set[str] = set()
    fresh: dict[Path, str] = {}
    try:
        for page in pages(root):
            fresh[page], here, stale = generate(page.read_text(encoding="utf-8"), root, page)
            found |= set(here)
            problems += [f"{_shown(page, root)}: the generated part {name!r} is stale" for name in stale]
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    lost = [f"no page shows the generated part {name!r}" for name in missing(found, root)]
    if options.check:
        for problem in problems:
            print(f"{problem}; run python -m infosteer_dev.docs")
    else:
        for page, text in fresh.items():
            if text != page.read_text(encoding="utf-8"):
                page.write_text(text, encoding="utf-8")
    for problem in lost:  # writing cannot help here
        print(f"{problem}: put its two marks where it belongs")
    return 1 if lost or (options.check and problems) else 0


def _shown(page: Path, root: Path) -> str:
    return page.relative_to(root).as_posix() if page.is_relative_to(root) else str(page)


if __name__ == "__main__":
    sys.exit(main())
