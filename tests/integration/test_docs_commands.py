"""Every block of the documentation that carries no mark is run, page by page, in the order of the page.

Each page has a scratch folder of its own with the checkout's examples/, leaderboards/ and tasks/ in it. Blocks run by
`bash -euo pipefail`, `python` is this interpreter. To be done in minutes, these differ from what is printed:

- some commands get further options at their end (REDUCED): `run` trains one toy model for two steps and asks two items,
  `analyze` reads and writes less;
- of README's first command, which sets up its own environment, only the part behind the installation is run;
- `leaderboard --check` looks at two of the kept boards (.ci/run looks at all);
- README's test command is left to .ci/run.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from blocks import Block, code_blocks

from infosteer_dev.docs import pages
from tests.integration.cli import environment

ROOT = Path(__file__).resolve().parents[2]
_RUN = "--seeds 0 --limit 2 --workers 0 --quiet --set train.max_steps=2"
_ONE_MODEL = "--models mini-llama --methods sft,infosteer-intervention --set train.max_examples=32"
REDUCED = {
    "run --grid my_grid.yaml": _RUN,
    "run": f"{_RUN} {_ONE_MODEL}",
    "analyze shift": "--tokens 256",
    "analyze flux": "--max-new-tokens 4",
}
"""What a command begins with -> what is added to it; the first that fits."""
BOARDS = ("embedded", "paper")

pytestmark = pytest.mark.integration


def to_run(page: Path) -> list[Block]:
    return [block for block in code_blocks(page) if block.needs is None and block.command != "test"]


PAGES = [page for page in pages(ROOT) if to_run(page)]


def reduced(block: Block) -> str:
    """The block's text with less to do."""
    text = block.text
    if block.command == "run":
        text = text.split("&&")[-1].replace(".venv/bin/python", "python")
    lines = []
    for line in text.splitlines():
        beginnings = (start for start in REDUCED if re.search(rf"-m infosteer_bench {start}\b", line))
        lines.append(f"{line} {REDUCED.get(next(beginnings, ''), '')}")
    return "\n".join(lines) + "\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a page's blocks run."""
    shutil.copytree(ROOT / "examples", tmp_path / "examples", ignore=shutil.ignore_patterns("runs"))
    for board in BOARDS:
        shutil.copytree(ROOT / "leaderboards" / board, tmp_path / "leaderboards" / board)
    (tmp_path / "tasks").symlink_to(ROOT / "tasks")
    bin_dir = tmp_path / ".bin"
    bin_dir.mkdir()
    python = bin_dir / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n', encoding="utf-8")
    python.chmod(0o755)
    return tmp_path


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_the_blocks_of_a_page_run(page: Path, folder: Path) -> None:
    path = os.pathsep.join([str(folder / ".bin"), os.environ.get("PATH", "")])
    where = folder
    for block in to_run(page):
        if block.language == "python":
            command = ["python", "-c", block.text]
        else:
            # the folder that a block ends in is the one that the next block starts in, as in a reader's shell
            command = ["bash", "-euo", "pipefail", "-c", reduced(block) + f'pwd > "{folder}/.where"\n']
        done = subprocess.run(
            command,
            cwd=where,
            env=environment(PATH=path, CUDA_VISIBLE_DEVICES=""),
            capture_output=True,
            text=True,
            timeout=1200,
        )
        assert done.returncode == 0, (
            f"{block.text}\nexit {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        )
        if (folder / ".where").is_file():
            where = Path((folder / ".where").read_text(encoding="utf-8").strip())


def test_something_is_run_and_a_failing_block_would_be_seen(tmp_path: Path) -> None:
    names = {page.relative_to(ROOT).as_posix() for page in PAGES}
    assert {"README.md", "docs/getting-started.md", "docs/own-things.md", "docs/analyses.md"} <= names
    page = tmp_path / "page.md"
    page.write_text("```bash\nfalse | true\n```\n<!-- needs: gpu -->\n```bash\nfalse\n```\n", encoding="utf-8")
    (block,) = to_run(page)
    assert subprocess.run(["bash", "-euo", "pipefail", "-c", reduced(block)], check=False).returncode == 1
