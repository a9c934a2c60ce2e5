"""A board in the terminal: per model its methods by their means, with the difference to sft and what it is worth.

    show(run_dir / "leaderboard")          # at the end of a run
    show(board, Console(file=out))         # a board that is at hand

Where standard output is no terminal, as in a log, it is plain text of WIDTH columns without colours.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from infosteer_bench.leaderboard.numbers.board import Board
from infosteer_bench.leaderboard.numbers.row import Row, entrants, number
from infosteer_bench.leaderboard.store import compact
from infosteer_bench.leaderboard.store.items import Items
from infosteer_bench.leaderboard.views.facts import CORRECTED, NO_VERDICT, STAR, facts_of
from infosteer_bench.leaderboard.views.text import Strong, printable, signed

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

WIDTH = 100
NARROW = 90  # a terminal of fewer columns gets the last mean alone
MEANS = {"mean:id": "ID", "mean:ood": "OOD", "mean:all": "all"}  # short, so that names of methods stay on a line
FEW = 3  # tasks shown on a board of tasks that enter no mean
STYLES = {"win": "bold green", "loss": "bold red"}


def show(board: Board | Path, console: Console | None = None) -> None:
    """Print a board, or the one in a folder. console: standard output where none is given.

    Raises UserError for a folder that is no board.
    """
    from rich.console import Console as RichConsole

    if isinstance(board, Path):
        board = Board.of(compact.load(board, audited=False), Items(board / compact.ITEMS_FILE))
    console = console or RichConsole()
    if not console.is_terminal:
        console.width = WIDTH
    plain = console.options.ascii_only
    for fact in facts_of(board):
        if fact.kind != "run":
            console.print(_text(fact.parts, plain=plain))
    for model in board.models:
        console.print()
        console.print(_text((Strong(model),), plain=plain))
        rows = [row for row in board.rows if row.model == model]
        console.print(_table(rows, plain=plain, narrow=console.width < NARROW))
    for line in _marks(board.rows):
        console.print(_text((line,), plain=plain))


def _text(parts: Sequence[str], *, plain: bool, style: str = "") -> Text:
    """Names are text, never markup. plain: with nothing but ASCII, for an output that has no more."""
    from rich.text import Text

    def fit(part: str) -> str:
        text = printable(part)
        return text.replace("±", "+-").encode("ascii", "replace").decode() if plain else text

    return Text.assemble(*((fit(part), "bold" if isinstance(part, Strong) else style) for part in parts))


def _marks(rows: Sequence[Row]) -> list[str]:
    lines = [f"* {STAR}."] if any(row.by_seed and (not row.complete or row.stand_ins) for row in rows) else []
    if any(row.verdict for row in rows):
        return [*lines, f"win, loss: {CORRECTED}."]
    return [*lines, NO_VERDICT] if any(row.delta_vs_sft is not None for row in rows) else lines


def _table(rows: Sequence[Row], *, plain: bool, narrow: bool) -> Table:
    from rich import box
    from rich.table import Table

    present = dict.fromkeys(row.task for row in rows if row.by_seed)
    shown = [task for task in MEANS if task in present] or list(present)[:FEW]
    shown = shown[-1:] if narrow else shown
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("mean over tasks, percent" if shown[:1] and shown[0] in MEANS else "percent", overflow="fold")
    for task in shown:
        table.add_column(_text((MEANS.get(task, task),), plain=plain), justify="right", no_wrap=task in MEANS)
    if any(row.delta_vs_sft is not None for row in rows) and shown:
        name = MEANS.get(shown[-1], shown[-1])
        table.add_column(_text((f"{name} - sft",), plain=plain), justify="right", no_wrap=shown[-1] in MEANS)
        table.add_column("95 % interval", justify="right", no_wrap=True)
        table.add_column("verdict")
    for (method, arm, mix), by_task in entrants(rows).items():
        if not any(task in by_task and by_task[task].by_seed for task in shown):
            continue
        settings = (f" ({arm.replace(',', ', ')})" if arm else "") + (f" on {mix}" if mix else "")
        cells = [_text((method, settings), plain=plain), *(_text((_cell(by_task.get(t)),), plain=plain) for t in shown)]
        if len(table.columns) > len(cells):
            judged = by_task.get(shown[-1])
            verdict = judged.verdict if judged else ""
            cells += [_text((text,), plain=plain) for text in _difference(judged)]
            cells.append(_text((verdict,), plain=plain, style=STYLES.get(verdict, "")))
        table.add_row(*cells)
    return table


def _cell(row: Row | None) -> str:
    if row is None or row.accuracy is None:
        return ""
    return number(row.accuracy) + ("" if row.complete and not row.stand_ins else "*")


def _difference(row: Row | None) -> tuple[str, str]:
    if row is None or row.versus is None:
        return signed(row.delta_vs_sft) if row else "", ""
    return signed(row.delta_vs_sft), f"{number(100 * row.versus.low)} to {number(100 * row.versus.high)}"
