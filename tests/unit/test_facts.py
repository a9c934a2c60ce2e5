"""What a reader must know of a board stands in every view of it, in the same words."""

from __future__ import annotations

from dataclasses import replace

import pytest

from infosteer_bench.leaderboard.numbers.board import Board
from infosteer_bench.leaderboard.views.facts import MINIWORLD, facts_of, marks_of, some
from infosteer_bench.leaderboard.views.latex import to_latex
from infosteer_bench.leaderboard.views.markdown import to_markdown
from infosteer_bench.leaderboard.views.page.payload import payload
from infosteer_bench.leaderboard.views.text import Code, Strong, markdown, printable
from infosteer_bench.records import CheckpointRecord
from tests.measured import MadeBoard

NAME = "<b>m_chat</b>"


@pytest.fixture(scope="module")
def board() -> Board:
    """One seed, few items, stand-ins, an instruct model with a hostile name, and everything that went wrong."""
    made = MadeBoard(tasks=("boolq", "gsm8k"), models=(NAME,), seeds=(0,), items=10)
    made.cells = [cell.model_copy(update={"limit": 10, "stand_ins": ["x_1.json"]}) for cell in made.cells]
    trained = CheckpointRecord(
        key="k", status="success", identity={}, provenance={"device": "cpu"}, model=NAME, family="llama", method="sft",
        arm="", mix="commonsense", seed=0, data={"missing": ["hellaswag"]}, training={"steps": 3, "warnings": ["long"]},
    )  # fmt: skip
    left_out = {"failed": [f"cell {place}" for place in range(9)], "unreadable": ["y.json"], "stale": 2}
    grid = {"name": "toy", "miniworld": True, "command": "run `x`", "train": {"epochs": 1.0}}
    records = replace(made.records, grid=grid, checkpoints=(trained,), left_out=left_out)
    return Board(records, made.rows)


def test_every_fact_is_found(board: Board):
    facts = facts_of(board)
    assert [fact.kind for fact in facts] == ["banner"] * 2 + ["warning"] * 8 + ["run"] * 8
    assert facts[0].parts == MINIWORLD
    labels = ["Models", "Answered", "Training seeds", "Answered with", "Trained", "Recipe", "Machine", "Command"]
    assert [fact.label for fact in facts if fact.label] == labels
    assert "cell 5; and 3 more." in facts[7].parts[1]


def test_every_view_has_them_all(board: Board):
    text, page, tex = to_markdown(board), payload(board), to_latex(board)
    shown = [*page["warnings"], *(parts for _, parts in page["facts"])]
    for fact, of_page in zip(facts_of(board), shown, strict=True):
        assert markdown(fact.parts) in text
        assert "".join(part if isinstance(part, str) else part[1] for part in of_page) == "".join(fact.parts)
        assert fact.kind == "run" or f"% {printable(''.join(fact.parts))}\n" in tex
    for parts, of_page in zip(marks_of(board), page["marks"], strict=True):
        assert markdown(parts) in text
        assert len(of_page) == len(parts)


def test_pieces_keep_their_names_as_text():
    parts = (Strong("a *b*:"), " see ", Code("c `d`"), ", not <e>. ", "")
    assert markdown(parts) == "**a \\*b\\*:** see `` c `d` ``, not &lt;e&gt;. "
    assert some(map(str, range(8))) == "0; 1; 2; 3; 4; 5; and 2 more"
