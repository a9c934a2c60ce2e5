"""Write a board, rebuild it from its own records, check that its files are what the records say.

    leaderboards/<name>/
        leaderboard.csv   every row (columns.py)
        leaderboard.md    the same for reading
        deltas.csv        every difference to sft, with interval, p-value, what could have been detected
        ranks.csv         methods against each other
        mechanism.csv     what training did to the key coefficients, where the records have it
        index.html        the page (page/), with items/*.js beside it where its flipped items are many; of the kept
                          boards git has one, `rebuild` writes the others
        leaderboard.tex   the tables of accuracies for LaTeX
        reproduction.md   beside the paper's numbers, where it reports some of the board's rows
        figures/          figures.py; compared by the numbers that they show, not by their bytes
        provenance.json   what was run, with what, on which data
        records/          compact.py

`publish` reads a run's folder; `rebuild` and `check` need only the board's own folder, as found in a clean clone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from infosteer_bench.errors import UserError
from infosteer_bench.leaderboard.numbers import columns
from infosteer_bench.leaderboard.numbers.board import Board
from infosteer_bench.leaderboard.numbers.table import to_csv
from infosteer_bench.leaderboard.paper.board import MARKER, is_paper, paper_files, rebuild_paper
from infosteer_bench.leaderboard.paper.reproduction import FILE as REPRODUCTION_FILE
from infosteer_bench.leaderboard.paper.reproduction import to_reproduction
from infosteer_bench.leaderboard.store import compact
from infosteer_bench.leaderboard.store.finished import is_finished, note_finished
from infosteer_bench.leaderboard.store.items import Items
from infosteer_bench.leaderboard.views.figures.charts import figure_disagree, update_figures
from infosteer_bench.leaderboard.views.latex import to_latex
from infosteer_bench.leaderboard.views.markdown import to_markdown
from infosteer_bench.leaderboard.views.page import INDEX_FILE, ITEMS_FOLDER, build_page
from infosteer_bench.leaderboard.views.provenance import to_provenance
from infosteer_bench.records import file_sha256, write_atomic

OPTIONAL = (REPRODUCTION_FILE, "mechanism.csv")


def publish(run_dir: Path, output: Path) -> Path:
    """Write the board of the run in `run_dir` into the folder `output` (its own, not a parent) and return that folder.

    Raises UserError if the run holds nothing finished or `output` is a file.
    """
    publish_run(run_dir, output)
    return output


def publish_run(run_dir: Path, output: Path) -> Board | None:
    """`publish`; returns the board, or None if it was finished and is not made again."""
    if output.exists() and not output.is_dir():
        raise UserError(f"output {output} is a file", allowed="a folder, new or existing")
    if is_paper(output):
        raise UserError(f"output {output} is the board of the paper's own numbers", allowed="another folder")
    inside_run = output.resolve().parent == run_dir.resolve()  # then its name says nothing
    board = compact.collect(run_dir, name=None if inside_run else output.resolve().name)
    texts = compact.text_files(board)
    if inside_run and is_finished(run_dir, output, texts):
        return None
    if not _up_to_date(output, texts):
        # The inputs first: whatever stops us in between, `rebuild` can finish.
        write_atomic(output / compact.ITEMS_FILE, compact.items_bytes(run_dir, board.cells))
        for name, text in texts.items():
            write_atomic(output / name, text)
    if board.audit is None:
        (output / compact.AUDIT_FILE).unlink(missing_ok=True)  # of an earlier run
    made = _rebuilt(output)
    if inside_run:
        note_finished(run_dir, output, texts)
    return made


def rebuild(board_dir: Path) -> None:
    """Write the board's tables and provenance.json again from its own records.

    Raises UserError if a record is missing, was edited, or does not follow from the items beside it.
    """
    if is_paper(board_dir):
        rebuild_paper(board_dir)
    else:
        _rebuilt(board_dir)


def _rebuilt(board_dir: Path) -> Board:
    records, items = compact.load(board_dir), Items(board_dir / compact.ITEMS_FILE)
    wrong = items.disagree(records.cells)
    if wrong:
        raise UserError(
            f"{items.path}: the items do not give the recorded scores of {len(wrong)} cell(s), first {wrong[0]}",
            hint="restore the file, or publish the board again from its run",
        )
    with _reading(items.path):
        board = Board.of(records, items)
        outputs = _outputs(board_dir, board)
    for name, text in outputs.items():
        if _read(board_dir / name) != text.encode():
            write_atomic(board_dir / name, text)
    for name in _outlived(board_dir, outputs):
        (board_dir / name).unlink()
    update_figures(board_dir, board)
    return board


def check(board_dir: Path) -> list[str]:
    """Names of the board's files that are not byte for byte what its records give; records that contradict, too.

    A page that is not there is not missed: `rebuild` writes it, and git keeps one of all boards.

    Raises UserError if the folder holds no readable records.
    """
    if is_paper(board_dir):
        return _differing(board_dir, paper_files())
    records, items = compact.load(board_dir), Items(board_dir / compact.ITEMS_FILE)
    if items.disagree(records.cells):
        return [compact.ITEMS_FILE]  # nothing else can be told then
    with _reading(items.path):
        board = Board.of(records, items)
        expected = {**_outputs(board_dir, board), **compact.text_files(records)}
    stale = figure_disagree(board_dir, board) + _outlived(board_dir, expected)
    return sorted(stale + _differing(board_dir, expected))


def board_dirs(root: Path) -> list[Path]:
    """The boards below `root`, or `root` itself if it is one; that of the paper's numbers among them."""
    if (root / compact.BOARD_FILE).is_file() or is_paper(root):
        return [root]
    return sorted({path.parents[1] for name in (compact.BOARD_FILE, MARKER) for path in root.glob(f"*/{name}")})


def _differing(board_dir: Path, expected: Mapping[str, str]) -> list[str]:
    """Names of the files that do not hold what is expected; a board may lack its page, with all that belongs to it."""
    no_page = not (board_dir / INDEX_FILE).is_file()
    return sorted(
        name
        for name, text in expected.items()
        if not (no_page and name.startswith((INDEX_FILE, f"{ITEMS_FOLDER}/")))
        and _read(board_dir / name) != text.encode()
    )


def _up_to_date(board_dir: Path, texts: dict[str, str]) -> bool:
    """Whether the board was made from these very records: then its items, slow to write, need no writing."""
    try:
        noted = json.loads((board_dir / "provenance.json").read_text(encoding="utf-8"))["records_sha256"]
        items_are_it = noted[compact.ITEMS_FILE] == file_sha256(board_dir / compact.ITEMS_FILE)
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return items_are_it and all(_read(board_dir / name) == text.encode() for name, text in texts.items())


@contextmanager
def _reading(items: Path) -> Iterator[None]:
    """What is damaged in the items, beyond what `disagree` looks at, is told in one line."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise UserError(
            f"{items} cannot be read: {str(error).splitlines()[0]}", hint="restore the file, or publish the board again"
        ) from None


def _outlived(board_dir: Path, outputs: Mapping[str, str]) -> list[str]:
    """Files of an earlier state of the board that it has no more."""
    items = sorted(f"{ITEMS_FOLDER}/{path.name}" for path in (board_dir / ITEMS_FOLDER).glob("*.js"))
    return [name for name in (*OPTIONAL, *items) if name not in outputs and (board_dir / name).is_file()]


def _outputs(board_dir: Path, board: Board) -> dict[str, str]:
    sha256 = {name: file_sha256(board_dir / name) for name in compact.RECORD_FILES if (board_dir / name).is_file()}
    reproduction = to_reproduction(board)
    return {
        **({"mechanism.csv": to_csv(columns.MECHANISM, board.mechanism)} if board.mechanism else {}),
        **({REPRODUCTION_FILE: reproduction} if reproduction else {}),
        "leaderboard.tex": to_latex(board),
        "leaderboard.csv": to_csv(columns.BOARD, board.rows),
        "leaderboard.md": to_markdown(board),
        "deltas.csv": to_csv(columns.DELTAS, board.compared),
        "ranks.csv": to_csv(columns.RANKS, board.standings),
        **build_page(board),
        "provenance.json": to_provenance(board.records, records_sha256=sha256),
    }


def _read(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None
