"""The board of the paper's own numbers: leaderboards/paper/, made of the two CSV files that come with the package.

    leaderboard.csv   Tables 1, 6 and 7 in the columns of every board: `reported` filled, `accuracy` empty, since
                      nothing of it was measured here
    leaderboard.md    all of the paper's tables for reading, and the known faults
    leaderboard.tex   Tables 1, 6 and 7 for LaTeX
    index.html        the page that every board has
    provenance.json   where the numbers come from, their digests, the faults
    records/          the two CSV files

A folder with records/reported_commonsense.csv is such a board. It is rebuilt and checked like the others, from the
package's files: an edited copy of them is told.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict
from pathlib import Path

from infosteer_bench.benchmark import GROUPS
from infosteer_bench.leaderboard.numbers.board import Board
from infosteer_bench.leaderboard.numbers.columns import BOARD
from infosteer_bench.leaderboard.numbers.row import Row
from infosteer_bench.leaderboard.numbers.table import to_csv
from infosteer_bench.leaderboard.paper.faults import FAULTS, fault_lines
from infosteer_bench.leaderboard.store.compact import BoardRecords
from infosteer_bench.leaderboard.store.reported import (
    COMMONSENSE_FILE,
    OTHER_FILE,
    PAPER_MIX,
    REPORTED_DIR,
    commonsense_numbers,
    other_numbers,
    paper_models,
)
from infosteer_bench.leaderboard.views.facts import HOW_TO_CHECK, HOW_TO_REBUILD
from infosteer_bench.leaderboard.views.latex import to_latex
from infosteer_bench.leaderboard.views.page import build_page
from infosteer_bench.leaderboard.views.text import escape, signed, table
from infosteer_bench.records import write_atomic

NAME = "paper"
MARKER = f"records/{COMMONSENSE_FILE}"
SOURCE = {
    "title": "Steering Information Utility in Key-Value Memory for Language Model Post-Training",
    "authors": "Deng, Chang, Chen",
    "venue": "NeurIPS 2025",
    "arxiv": "2507.05158",
}
NOTE = "reported by the paper, not measured here"
TITLES = {
    2: "Table 2: strengths of both variants",
    3: "Table 3: five types of tasks",
    4: "Table 4: mathematics, in and out of distribution",
    8: "Table 8: groups of layers",
}


def is_paper(board_dir: Path) -> bool:
    """Whether a folder is a board of reported numbers."""
    return (board_dir / MARKER).is_file()


def rebuild_paper(board_dir: Path) -> None:
    """Write the board's files; also into a new folder."""
    for name, content in paper_files().items():
        write_atomic(board_dir / name, content)


def paper_files() -> dict[str, str]:
    """Every file of the board, by name."""
    board = Board(BoardRecords(name=NAME, grid=None, cells=(), checkpoints=()), paper_rows())
    copies = {
        f"records/{name}": (REPORTED_DIR / name).read_text(encoding="utf-8") for name in (COMMONSENSE_FILE, OTHER_FILE)
    }
    return {
        "leaderboard.csv": to_csv(BOARD, board.rows),
        "leaderboard.md": _markdown(),
        "leaderboard.tex": to_latex(board),
        "provenance.json": _provenance(copies),
        **build_page(board),
        **copies,
    }


def paper_rows() -> list[Row]:
    """Tables 1, 6 and 7 as rows without accuracy, in the paper's order: models, methods, tasks."""
    models = paper_models()
    order = {name: place for place, name in enumerate(models)}
    methods = list(dict.fromkeys(one.method for one in commonsense_numbers()))
    tasks = GROUPS["all"]
    numbers = sorted(
        commonsense_numbers(),
        key=lambda one: (order[one.model], methods.index(one.method), tasks.index(one.task)),
    )
    return [
        Row(
            model=models[one.model].id,
            family=models[one.model].family,
            method=one.method,
            arm="",
            mix="" if one.method == "base" else PAPER_MIX,
            task=one.task,
            split="ID",
            reported=one.accuracy,
            notes=(NOTE,),
        )
        for one in numbers
    ]


def _markdown() -> str:
    lines = [
        f"# {NAME}: the paper's numbers, as reported",
        "",
        "**Nothing on this page was measured here.** It holds the numbers of "
        f'{SOURCE["authors"]}, "{SOURCE["title"]}" ({SOURCE["venue"]}, arXiv {SOURCE["arxiv"]}), for comparison. A '
        "board whose models and tasks are the paper's has a page `reproduction.md` with ours beside them.",
        "",
        "## Known faults",
        "",
        *fault_lines(),
        "",
        "## Tables 1, 6 and 7: accuracy on the commonsense tasks, percent",
        "",
        "In brackets: difference to plain fine-tuning (`sft`) in points, computed here, as is the average. `!`: not "
        "above plain fine-tuning. Tables 6 and 7 hold the fine-grained variants: clustering (6), surrogate (7).",
        "",
    ]
    numbers = commonsense_numbers()
    tasks = list(dict.fromkeys(one.task for one in numbers))
    by_cell = {(one.model, one.method, one.task): one for one in numbers}
    for model in dict.fromkeys(one.model for one in numbers):
        body: list[list[str]] = []
        for method in dict.fromkeys(one.method for one in numbers if one.model == model):
            values = [by_cell[model, method, task].accuracy for task in tasks]
            plain = [by_cell[model, "sft", task].accuracy for task in tasks]
            cells = [
                f"{value:.1f}"
                + ("" if method == "sft" else f" ({signed(value - other, 1)}{_mark(method, value, other)})")
                for value, other in zip(values, plain, strict=True)
            ]
            average, plain_average = (math.fsum(some) / len(some) for some in (values, plain))
            cells.append(f"{average:.2f}" + ("" if method == "sft" else f" ({signed(average - plain_average)})"))
            body.append([escape(method), str(by_cell[model, method, tasks[0]].table), *cells])
        lines += [f"### {escape(model)}", "", *table(["Method", "table", *tasks, "average"], body), ""]
    for number_of_table, title in TITLES.items():
        lines += _unnamed_table(number_of_table, title)
    lines += [
        "## Files",
        "",
        "`records/` holds the numbers as two CSV files; `leaderboard.csv` those with a named model in the columns of "
        "every board, `accuracy` empty. Rebuild or check all of it:",
        "",
        f"    {HOW_TO_REBUILD.format(folder='THIS_FOLDER')}",
        f"    {HOW_TO_CHECK.format(folder='THIS_FOLDER')}",
    ]
    return "\n".join(lines) + "\n"


def _mark(method: str, value: float, plain: float) -> str:
    """At a steered cell that does not beat plain fine-tuning."""
    return " !" if method.startswith("infosteer-") and value <= plain else ""


def _unnamed_table(number_of_table: int, title: str) -> list[str]:
    numbers = [one for one in other_numbers() if one.table == number_of_table]
    columns = list(dict.fromkeys(one.column for one in numbers))
    by_cell = {(one.configuration, one.column): f"{one.accuracy:.1f}" for one in numbers}
    body = [
        [escape(name), *(by_cell.get((name, column), "") for column in columns)]
        for name in dict.fromkeys(one.configuration for one in numbers)
    ]
    return [f"## {title}", "", "The model is not named. Percent.", "", *table(["Configuration", *columns], body), ""]


def _provenance(copies: dict[str, str]) -> str:
    content = {
        "board": NAME,
        "measured_here": False,
        "source": SOURCE,
        "how_to_rebuild": HOW_TO_REBUILD.format(folder="THIS_FOLDER"),
        "how_to_check": HOW_TO_CHECK.format(folder="THIS_FOLDER"),
        "faults": [asdict(fault) for fault in FAULTS],
        "records_sha256": {name: hashlib.sha256(text.encode()).hexdigest() for name, text in copies.items()},
    }
    return json.dumps(content, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
