"""`analyze` as a user types it, on an embedded model: every analysis ends well and leaves its files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.integration.cli import run

pytestmark = pytest.mark.integration

PROMPTS = [{"prompt": "Is it so?", "name": "question"}, {"prompt": "What is 2 + 3?\u2028Say it."}]


@pytest.mark.parametrize(
    ("arguments", "says", "files"),
    [
        (
            ["surrogate", "--checkpoint", "mini-llama", "--layers", "0", "--concept", "the answer"],
            "closest to 'the answer'",
            {"memories.csv", "surrogate.json", "specificity.svg"},
        ),
        (
            ["shift", "--base", "mini-llama", "--checkpoints", "x=mini-llama", "--tokens", "256"],
            "held-out rows of",
            {"shift.csv", "shift.json", "figure4.svg", "figure4.png"},
        ),
        (
            ["flux", "--checkpoint", "mini-llama", "--prompts", "prompts.jsonl", "--max-new-tokens", "8"],
            "flux.html",
            {"flux.csv", "flux.json", "flux.html", "summary.md"},
        ),
    ],
)
def test_an_analysis_leaves_its_files(arguments: list[str], says: str, files: set[str], tmp_path: Path):
    lines = "".join(f"{json.dumps(one, ensure_ascii=False)}\n" for one in PROMPTS)
    (tmp_path / "prompts.jsonl").write_text(lines, encoding="utf-8")
    out, err = run(["analyze", *arguments], tmp_path)
    assert says in out
    assert "Traceback" not in err
    output = tmp_path / "analysis" / arguments[0]
    assert {path.name for path in output.iterdir()} == files
    assert all(path.stat().st_size > 200 for path in output.iterdir())
