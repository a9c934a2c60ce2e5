"""Write a board, rebuild it from its own records, check that its files are what the records say.

    leaderboards/<name>/
        leaderboard.csv   every row (tables.COLUMNS)
        leaderboard.md    the same for reading
        provenance.json   what was run, with what, on which data
        records/          compact.py

`publish` reads a run's folder; `rebuild` and `check` need only the board's own folder, as found in a clean clone.
"""

from __future__ import annotations

import json
from pathlib import Path

from infosteer_bench.errors import UserError
from infosteer_bench.leaderboard import compact
from infosteer_bench.leaderboard.layout import read_layout
from infosteer_bench.leaderboard.markdown import to_markdown
from infosteer_bench.leaderboard.summary import to_provenance
from infosteer_bench.leaderboard.tables import build_rows, to_csv
from infosteer_bench.records import file_sha256, write_atomic


def publish(run_dir: Path, output: Path) -> Path:
    """Write the board of the run in `run_dir` into the folder `output` (its own, not a parent) and return that folder.

    Raises UserError if the run holds nothing finished or `output` is a file.
    """
    if output.exists() and not output.is_dir():
        raise UserError(f"output {output} is a file", allowed="a folder, new or existing")
    inside_run = output.resolve().parent == run_dir.resolve()  # then its name says nothing
    board = compact.collect(run_dir, name=None if inside_run else output.resolve().name)
    texts = compact.text_files(board)
    if not _up_to_date(output, texts):
        # The inputs first: whatever stops us in between, `rebuild` can finish.
        write_atomic(output / compact.ITEMS_FILE, compact.items_bytes(run_dir, board.cells))
        for name, text in texts.items():
            write_atomic(output / name, text)
    rebuild(output)
    return output


def rebuild(board_dir: Path) -> None:
    """Write leaderboard.csv, leaderboard.md and provenance.json again from the board's own records.

    Raises UserError if a record is missing, was edited, or does not follow from the items beside it.
    """
    board = compact.load(board_dir)
    wrong = compact.items_disagree(board_dir, board.cells)
    if wrong:
        raise UserError(
            f"{board_dir / compact.ITEMS_FILE}: the items do not give the recorded scores of {len(wrong)} cell(s), "
            f"first {wrong[0]}",
            hint="restore the file, or publish the board again from its run",
        )
    for name, text in _outputs(board_dir, board).items():
        write_atomic(board_dir / name, text)


def check(board_dir: Path) -> list[str]:
    """Names of the board's files that are not byte for byte what its records give; records that contradict, too.

    Raises UserError if the folder holds no readable records.
    """
    board = compact.load(board_dir)
    expected = {**_outputs(board_dir, board), **compact.text_files(board)}
    stale = [name for name, text in expected.items() if _read(board_dir / name) != text.encode()]
    if compact.items_disagree(board_dir, board.cells):
        stale.append(compact.ITEMS_FILE)
    return sorted(stale)


def board_dirs(root: Path) -> list[Path]:
    """The boards below `root`, or `root` itself if it is one."""
    if (root / compact.BOARD_FILE).is_file():
        return [root]
    return sorted(path.parents[1] for path in root.glob(f"*/{compact.BOARD_FILE}"))


def _up_to_date(board_dir: Path, texts: dict[str, str]) -> bool:
    """Whether the board was made from these very records: then its items, slow to write, need no writing."""
    try:
        noted = json.loads((board_dir / "provenance.json").read_text(encoding="utf-8"))["records_sha256"]
        items_are_it = noted[compact.ITEMS_FILE] == file_sha256(board_dir / compact.ITEMS_FILE)
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return items_are_it and all(_read(board_dir / name) == text.encode() for name, text in texts.items())


def _outputs(board_dir: Path, board: compact.BoardRecords) -> dict[str, str]:
    rows = build_rows(board.cells, read_layout(board.grid, board.cells))
    sha256 = {
        name: file_sha256(board_dir / name)
        for name in (compact.BOARD_FILE, compact.CHECKPOINTS_FILE, compact.CELLS_FILE, compact.ITEMS_FILE)
        if (board_dir / name).is_file()
    }
    return {
        "leaderboard.csv": to_csv(rows),
        "leaderboard.md": to_markdown(board, rows),
        "provenance.json": to_provenance(board, records_sha256=sha256),
    }


def _read(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None
