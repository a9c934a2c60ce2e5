"""The files below examples/, shown in the documentation as they are, so that what is read is what was run."""

from __future__ import annotations

from pathlib import Path

EXAMPLES = "examples"
LANGUAGES = {".yaml": "yaml", ".yml": "yaml", ".jsonl": "json", ".py": "python"}


def names(root: Path) -> list[str]:
    """Every example file that a page must show, as a path from the checkout; what a run wrote beside them is none."""
    folder = root / EXAMPLES
    files = (path for path in folder.rglob("*") if path.suffix in LANGUAGES and "runs" not in path.parts)
    return sorted(path.relative_to(root).as_posix() for path in files)


def shown(name: str, root: Path) -> str:
    """A fenced block with the file's text; its title is the path from the example's own folder."""
    path = root / name
    title = "/".join(Path(name).parts[2:])
    text = path.read_text(encoding="utf-8").rstrip()
    return f'```{LANGUAGES[path.suffix]} title="{title}"\n{text}\n```'
