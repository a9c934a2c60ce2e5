"""A board as a data frame.

    from infosteer_bench import read_board

    rows = read_board("leaderboards/embedded")                  # one row per row of leaderboard.csv
    rows[rows.task == "mean:all"].pivot(index="method", columns="model", values="accuracy")
    items = read_board("runs/laptop", which="items")            # every answer, with its model, method, seed and task

The columns are those of numbers/columns.py, which says what each means. A missing number is NaN (of a count: <NA>),
never 0; text is never missing, an empty one is ""; `complete` is True or False.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from infosteer_bench.errors import UserError
from infosteer_bench.leaderboard.numbers import columns
from infosteer_bench.leaderboard.numbers.row import filter_of
from infosteer_bench.leaderboard.numbers.table import COUNT, NUMBER, TEXT, Column, Kind
from infosteer_bench.leaderboard.paper.board import is_paper
from infosteer_bench.leaderboard.store import compact
from infosteer_bench.records import ITEM_COLUMNS, CellRecord

if TYPE_CHECKING:
    import pandas

Table = Literal["board", "deltas", "ranks", "mechanism", "items", "cells"]

FILES: dict[str, tuple[str, Sequence[Column[Any]]]] = {
    "board": ("leaderboard.csv", columns.BOARD),
    "deltas": ("deltas.csv", columns.DELTAS),
    "ranks": ("ranks.csv", columns.RANKS),
    "mechanism": ("mechanism.csv", columns.MECHANISM),
}
WHOSE = ("model", "method", "arm", "mix", "seed", "task")
CELL_KINDS = {
    **dict.fromkeys(("key", "checkpoint_key", "model", "family", "method", "arm", "mix"), TEXT),
    "seed": COUNT,
    **dict.fromkeys(("task", "split", "engine", "dtype"), TEXT),
    **dict.fromkeys(("limit", "n_items", "n_total"), COUNT),
    **dict.fromkeys(("option_rank", "truncated"), NUMBER),
}


def read_board(folder: str | Path | None, *, which: Table = "board") -> pandas.DataFrame:
    """One table of a board, or of the board of a run's folder (runs/<grid>).

    which:
        board      every row of leaderboard.csv
        deltas     every difference to sft
        ranks      methods against each other
        mechanism  what training did to the key coefficients; empty where that was not measured
        cells      one row per model, method, seed and task: every filter's accuracy and share of unparsed answers
        items      one row per answer: whose it is (`WHOSE`), the item, the answer, and its `score`, 0 to 1, by the
                   filter that the board shows

    A board of reported numbers has `board` only; its other tables are empty. Raises UserError for a folder that is no
    board and for an unknown table.
    """
    if folder is None:
        raise UserError("there is no board: the run did nothing that could be shown", hint="look at its failures")
    board = _board_of(Path(folder))
    if which in FILES:
        return _csv(board, *FILES[which], may_lack=which == "mechanism" or is_paper(board))
    if which not in ("items", "cells"):
        raise UserError(f"which={which!r} is no table of a board", allowed=", ".join((*FILES, "items", "cells")))
    cells = () if is_paper(board) else compact.load(board, audited=False).cells
    return _cells(cells) if which == "cells" else _items(board, cells)


def _board_of(folder: Path) -> Path:
    for place in (folder, folder / "leaderboard"):
        if (place / "leaderboard.csv").is_file():
            return place
    raise UserError(
        f"{folder} is no board: it holds no leaderboard.csv",
        allowed="a board's folder, such as leaderboards/embedded, or a run's, such as runs/laptop",
        hint="leaderboard --runs DIR writes the board of a run",
    )


def _series(values: Sequence[Any], kind: Kind) -> pandas.Series:
    """None becomes what the type has for a missing value; for text, nothing."""
    import pandas as pd

    known = ["" if value is None else value for value in values] if kind is TEXT else values
    return pd.Series(known, dtype=kind.dtype)


def _csv(board: Path, name: str, known: Sequence[Column[Any]], *, may_lack: bool) -> pandas.DataFrame:
    """A column that the file lacks, as one of an older board may, is empty."""
    import pandas as pd

    lines: list[dict[str, str]] = []
    if (board / name).is_file():
        with open(board / name, encoding="utf-8", newline="") as handle:
            lines = list(csv.DictReader(handle))
    elif not may_lack:
        raise UserError(f"{board / name} is missing", hint=f"python -m infosteer_bench leaderboard --output {board}")
    texts = {column: [line.get(column.name) or None for line in lines] for column in known}
    return pd.DataFrame(
        {
            column.name: _series([None if text is None else column.kind.read(text) for text in of_column], column.kind)
            for column, of_column in texts.items()
        }
    )


def _cells(cells: Sequence[CellRecord]) -> pandas.DataFrame:
    import pandas as pd

    frame = {name: _series([getattr(cell, name) for cell in cells], kind) for name, kind in CELL_KINDS.items()}
    for name in dict.fromkeys(name for cell in cells for name in cell.exact_match):
        frame[name] = _series([cell.exact_match.get(name) for cell in cells], NUMBER)
        frame[f"unparsed_{name}"] = _series([cell.unparsed.get(name) for cell in cells], NUMBER)
    return pd.DataFrame(frame)


def _items(board: Path, cells: Sequence[CellRecord]) -> pandas.DataFrame:
    """Names repeat in thousands of rows, so they are categories."""
    import json

    import pandas as pd

    if not cells:
        return pd.DataFrame(columns=[*WHOSE, "cell", *ITEM_COLUMNS, "score"])
    try:
        items = pd.read_parquet(board / compact.ITEMS_FILE, engine="pyarrow")
    except (OSError, ValueError) as error:
        raise UserError(
            f"{board / compact.ITEMS_FILE} cannot be read: {str(error).splitlines()[0]}",
            hint="restore the file, or publish the board again",
        ) from None
    whose = _cells(cells).set_index("key").loc[items["cell"].to_numpy(), list(WHOSE)].reset_index(drop=True)
    whose = whose.astype({name: "category" for name in WHOSE if name != "seed"})
    filters = {cell.key: filter_of(cell.exact_match) for cell in cells}
    marks = {text: json.loads(text) for text in items["correct"].unique()}
    score = [marks[text].get(filters[key]) for key, text in zip(items["cell"], items["correct"], strict=True)]
    return pd.concat([whose, items.assign(cell=items["cell"].astype("category"), score=_series(score, NUMBER))], axis=1)
