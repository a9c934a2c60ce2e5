"""A board in the terminal, on a recorded console: its numbers, its marks, and names that stay whole."""

from __future__ import annotations

import io
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import boards
import numpy as np
import pytest
from rich.console import Console

from infosteer_bench.errors import UserError
from infosteer_bench.leaderboard import publish
from infosteer_bench.leaderboard.numbers.board import Board
from infosteer_bench.leaderboard.numbers.row import number
from infosteer_bench.leaderboard.views.terminal import WIDTH, show
from tests.measured import METHODS, STEERED, MadeBoard

SMALL = ("boolq", "piqa", "gsm8k", "addsub")


def printed(board: Board | Path, **console: object) -> str:
    out = io.StringIO()
    show(board, Console(file=out, **console))  # type: ignore[arg-type]
    return out.getvalue()


def line_of(text: str, method: str) -> list[str]:
    (line,) = [line for line in text.splitlines() if line.startswith(method)]
    return line.split()


def test_the_numbers_are_those_of_the_rows():
    board = MadeBoard(tasks=SMALL, models=("m", "n")).board
    text = printed(board)
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) <= WIDTH
    assert text.index("\nm\n") < text.index("\nn\n")
    of_m = text[: text.index("\nn\n")]
    for method in METHODS:
        rows = {row.task: row for row in board.rows if (row.model, row.method) == ("m", method)}
        cells = line_of(of_m, method)
        assert cells[1:4] == [f"{number(rows[f'mean:{group}'].accuracy)}*" for group in ("id", "ood", "all")]
        if method in STEERED:
            row = rows["mean:all"]
            assert row.versus is not None
            assert cells[4] == f"{row.delta_vs_sft:+.2f}"
            assert cells[5:8] == [number(100 * row.versus.low), "to", number(100 * row.versus.high)]
            assert cells[8:] == ([row.verdict] if row.verdict else [])
        if method == "sft":
            assert len(cells) == 4
    assert "* partial" in text, "two tasks of nine are no whole mean"


def test_whole_means_have_a_verdict_and_no_mark():
    text = printed(MadeBoard(items=20).board)
    assert line_of(text, STEERED[0])[-1] == "win"
    assert line_of(text, STEERED[1])[-1] == "tie"
    assert "*" not in text
    assert "Holm" in text


def test_a_terminal_has_colours_and_a_log_has_none():
    board = MadeBoard(items=20).board
    coloured = printed(board, force_terminal=True, color_system="truecolor", width=120)
    assert "\x1b[1;32mwin" in coloured
    assert "\x1b" not in printed(board)


@pytest.mark.parametrize("width", [60, 100, 160])
def test_long_names_are_folded_and_lose_no_letter(width: int):
    arm = "alpha=2.0,fraction=0.05,rank_by=signed,value=signed_mean,layers=early_and_middle"
    model = "[bold]organisation[/bold]/a-model-with-a-very-long-name-of-many-words-Instruct"
    made = MadeBoard(tasks=SMALL, models=(model,), seeds=(0, 1), items=30)
    for seed in (0, 1):
        for task in SMALL:
            made.add(model, STEERED[0], seed, task, np.arange(30) < 9, arm=arm)
    text = printed(made.board, force_terminal=True, color_system=None, width=width)
    assert max(map(len, text.splitlines())) <= width
    assert model in "".join(text.split())
    first = "".join(line[: line.find("  ")] if "  " in line else line for line in text.splitlines())
    assert f"({arm})" in "".join(first.split())


def test_warnings_come_first_and_an_ascii_output_bears_it():
    made = MadeBoard(tasks=("boolq", "own"), models=("m\u00e9-instruct",), seeds=(0,), items=10)
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    show(made.board, Console(file=out))
    out.flush()
    text = out.buffer.getvalue().decode("ascii")  # type: ignore[attr-defined]
    assert text.startswith("One seed:")
    assert "Instruction-tuned, not a base model: m?-instruct" in text


def test_tasks_that_enter_no_mean_stand_themselves():
    text = printed(MadeBoard(tasks=("zoo", "farm"), items=20).board)
    assert "zoo - sft" in text or "farm - sft" in text
    assert len(line_of(text, "sft")) == 3


def test_nothing_answered_is_no_error():
    board = MadeBoard(tasks=("boolq",), methods=("base",), items=10).board
    assert "base" in printed(board)
    waiting = Board(board.records, [replace(row, by_seed={}) for row in board.rows])
    assert "m" in printed(waiting)


def test_a_folder_is_shown_as_its_board(tmp_path: Path):
    board = publish(boards.write_run(tmp_path / "run", model="m"), tmp_path / "demo")
    assert printed(board) == printed(boards.read_board(board))
    with pytest.raises(UserError, match="is no board"):
        show(tmp_path)


def test_rich_is_loaded_when_it_is_needed_only():
    program = (
        "import infosteer_bench.leaderboard.views.terminal, sys; assert not {'rich', 'pyarrow'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
