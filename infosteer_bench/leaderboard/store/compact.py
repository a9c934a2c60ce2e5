"""The compact records beside a board: all that is needed to rebuild it, and nothing of the machine it ran on.

    records/board.json         the grid, and what was left out (stale, failed, unreadable)
    records/checkpoints.jsonl  one CheckpointRecord a line, sorted by key, with the digest of its content
    records/cells.jsonl        one CellRecord a line, likewise
    records/items.parquet      every item of every cell (records.ITEM_COLUMNS and `cell`, the cell's key), zstd
    records/audit.json         DataAudit of the data behind them; boards of older runs may have none

Folders of absolute paths and host names are taken out, since boards are published.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from infosteer_bench.errors import UserError
from infosteer_bench.records import (
    ITEM_COLUMNS,
    CellRecord,
    CheckpointRecord,
    CorruptRecord,
    DataAudit,
    Record,
    canonical_json,
    digest,
    file_sha256,
    read_records,
    read_sealed,
    samples_path,
)

BOARD_FILE = "records/board.json"
CHECKPOINTS_FILE = "records/checkpoints.jsonl"
CELLS_FILE = "records/cells.jsonl"
ITEMS_FILE = "records/items.parquet"
AUDIT_FILE = "records/audit.json"
RUN_AUDIT_FILE = "audit.json"
RECORD_FILES = (BOARD_FILE, CHECKPOINTS_FILE, CELLS_FILE, ITEMS_FILE, AUDIT_FILE)
ROWS_PER_GROUP = 50_000  # small row groups compress badly; one cell of a limited run has only some 20 rows
ZSTD_LEVEL = 9  # of 990,000 items: 38 MB in 4 s; 19 gives 29 MB in 100 s
FIX = "run the command of that run again; the file is written anew"
AUDIT_FIX = "restore the file, or write it again: data audit --board FOLDER --data-root DIR"
ABSOLUTE_PATH = re.compile(r"(?<![\w.:/~-])(?:~|[A-Za-z]:)?/(?:[^\s/'\":,;=]+/)+")
HOST_KEYS = frozenset({"host", "hostname", "node", "user", "username", "cwd", "pid"})

R = TypeVar("R", bound=Record)


@dataclass(frozen=True)
class BoardRecords:
    """All that a board is made of. `grid` is what the run wrote down, None where it did not."""

    name: str
    grid: dict[str, Any] | None
    cells: tuple[CellRecord, ...]
    checkpoints: tuple[CheckpointRecord, ...]
    left_out: dict[str, Any] = field(default_factory=dict)  # stale: count; failed, unreadable: lists of lines
    audit: DataAudit | None = None


def without_folders(value: Any) -> Any:
    """The same JSON data without the folders of absolute paths and without keys that name a host or a user."""
    if isinstance(value, str):
        return ABSOLUTE_PATH.sub("", value)
    if isinstance(value, dict):
        return {without_folders(key): without_folders(item) for key, item in value.items() if key not in HOST_KEYS}
    if isinstance(value, list | tuple):
        return [without_folders(item) for item in value]
    return value


def compacted(record: R) -> R:
    """A copy of a record fit to publish. Names (model, method, arm, mix, task) stay as they are."""
    changed: dict[str, Any] = {
        name: without_folders(getattr(record, name)) for name in ("identity", "provenance", "error")
    }
    if isinstance(record, CheckpointRecord):
        changed |= {name: without_folders(getattr(record, name)) for name in ("data", "training", "path")}
        if record.mechanism:  # left alone where it is not there, as in records from before it
            changed["mechanism"] = without_folders(record.mechanism)
    return record.model_copy(update=changed)


def collect(run_dir: Path, *, name: str | None, audited: bool = True) -> BoardRecords:
    """Read a run's folder: verified records of the current plan, without failed, stale and unreadable ones.

    name: the board's title; None: the grid's name. audited: read its audit, too.

    Raises UserError if the folder is not one of a run or holds no finished cell.
    """
    cells, bad_cells = read_records(run_dir, CellRecord)
    checkpoints, bad_checkpoints = read_records(run_dir, CheckpointRecord)
    grid, plan = (read_run_file(run_dir / name) for name in ("grid.json", "plan.json"))
    planned = cells.keys() if plan is None else set(plan["cells"])
    current = {key: cell for key, cell in cells.items() if key in planned}
    problems = [Path(line.partition(":")[0]).name for line in bad_cells + bad_checkpoints]
    done: dict[str, CellRecord] = {}
    for key, cell in current.items():
        if cell.status != "success":
            continue
        items = samples_path(run_dir, key)
        if cell.samples_sha256 and not (items.is_file() and file_sha256(items) == cell.samples_sha256):
            problems.append(items.name)
            continue
        done[key] = compacted(cell)
    if not done:
        raise UserError(
            f"{run_dir} holds no finished cell, so there is no board to write",
            hint="give the folder of one run, runs/<grid>, or finish it by running its command again",
        )
    used = {cell.checkpoint_key for cell in done.values()}
    audit = read_audit(run_dir / RUN_AUDIT_FILE, done.values(), fix=FIX) if audited else None
    return BoardRecords(
        name=name or (grid or {}).get("name") or run_dir.resolve().name,
        grid=without_folders(grid),
        cells=tuple(done[key] for key in sorted(done)),
        checkpoints=tuple(compacted(checkpoints[key]) for key in sorted(used & checkpoints.keys())),
        left_out={
            "stale": len(cells) - len(current),
            "failed": sorted(_failure(cell) for cell in current.values() if cell.status == "failed"),
            "unreadable": sorted(problems),
        },
        audit=audit and DataAudit.model_validate(without_folders(audit.model_dump(mode="json"))),
    )


def _failure(cell: CellRecord) -> str:
    place = "/".join(str(part) for part in (cell.model, cell.method, cell.arm, cell.mix, cell.seed, cell.task) if part)
    reason = " ".join(without_folders(cell.error or "").split())[:200]
    return f"{place}: {reason}" if reason else place


def read_run_file(path: Path) -> dict[str, Any] | None:
    """A run's grid.json or plan.json; None where there is none. Raises UserError if it is damaged."""
    try:
        return read_sealed(path) if path.exists() else None
    except CorruptRecord:
        raise UserError(f"{path} does not verify", hint=FIX) from None


def read_audit(path: Path, cells: Iterable[CellRecord], *, fix: str) -> DataAudit | None:
    """The audit of the data behind `cells`; None where there is none.

    Raises UserError, with `fix` as what to do next, if it is damaged or of other test files than were answered.
    """
    if not path.exists():
        return None
    try:
        audit = DataAudit.model_validate(read_sealed(path))
    except (CorruptRecord, ValidationError):
        raise UserError(f"{path} does not verify", hint=fix) from None
    other = other_tests(audit, cells)
    if other:
        raise UserError(f"{path} is about another test file of {other[0]} than was answered", hint=fix)
    return audit


def other_tests(audit: DataAudit, cells: Iterable[CellRecord]) -> list[str]:
    """Tasks whose cells answered another file than was audited."""
    found: dict[str, None] = {}
    for cell in cells:
        asked = cell.identity.get("task")
        known = audit.tests.get(cell.task)
        if known and isinstance(asked, dict) and asked.get("data") not in (None, known.sha256):
            found[cell.task] = None
    return list(found)


def audit_text(audit: DataAudit) -> str:
    """records/audit.json: one line, sealed as a run's audit.json is."""
    data = audit.model_dump(mode="json")
    return canonical_json({**data, "content_digest": digest(data)}) + "\n"


def text_files(board: BoardRecords) -> dict[str, str]:
    """The compact records except the items, by file name."""
    head = {"name": board.name, "grid": board.grid, "left_out": board.left_out}
    return {
        **({AUDIT_FILE: audit_text(board.audit)} if board.audit else {}),
        BOARD_FILE: json.dumps(head, indent=1, ensure_ascii=False, sort_keys=True) + "\n",
        CHECKPOINTS_FILE: "".join(_line(record) for record in board.checkpoints),
        CELLS_FILE: "".join(_line(record) for record in board.cells),
    }


def _line(record: Record) -> str:
    # only what was read: a field that is younger than the board leaves its bytes alone
    data = record.model_dump(mode="json", exclude_unset=True)
    return canonical_json({**data, "content_digest": digest(data)}) + "\n"


def load(board_dir: Path, *, audited: bool = True) -> BoardRecords:
    """Read the compact records of a board. Raises UserError where one is missing or was edited.

    audited: its audit, too.
    """
    if not (board_dir / BOARD_FILE).exists():
        raise UserError(f"{board_dir} is no board: {BOARD_FILE} is missing", hint="leaderboard --runs DIR writes one")
    try:
        head = json.loads((board_dir / BOARD_FILE).read_text(encoding="utf-8"))
        name, grid, left_out = head["name"], head["grid"], head["left_out"]
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(
            f"{board_dir / BOARD_FILE} cannot be read", hint="restore the file, or publish the board again"
        ) from None
    cells = _read_lines(board_dir / CELLS_FILE, CellRecord)
    return BoardRecords(
        name=name,
        grid=grid,
        cells=cells,
        checkpoints=_read_lines(board_dir / CHECKPOINTS_FILE, CheckpointRecord),
        left_out=left_out,
        audit=read_audit(board_dir / AUDIT_FILE, cells, fix=AUDIT_FIX) if audited else None,
    )


def _read_lines(path: Path, kind: type[R]) -> tuple[R, ...]:
    records: list[R] = []
    try:
        # Not splitlines(): U+2028 and its like may stand inside a JSON string.
        lines = [line for line in path.read_text(encoding="utf-8").split("\n") if line]
        for line in lines:
            data = json.loads(line)
            if data.pop("content_digest") != digest(data):
                raise CorruptRecord(f"line {len(records) + 1} does not match its digest")
            records.append(kind.model_validate(data))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ValidationError, CorruptRecord) as error:
        reason = str(error) if isinstance(error, CorruptRecord) else f"line {len(records) + 1} cannot be read"
        raise UserError(f"{path}: {reason}", hint="restore the file, or publish the board again") from None
    return tuple(records)


def items_bytes(run_dir: Path, cells: Iterable[CellRecord]) -> bytes:
    """records/items.parquet of these cells, in the order given."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = {"int64": pa.int64(), "string": pa.string(), "float64": pa.float64()}
    schema = pa.schema([("cell", pa.string()), *((name, types[kind]) for name, kind in ITEM_COLUMNS.items())])
    buffer = io.BytesIO()
    with pq.ParquetWriter(buffer, schema, compression="zstd", compression_level=ZSTD_LEVEL) as writer:
        waiting: list[pa.Table] = []
        for cell in cells:
            if cell.samples_sha256 is None:
                continue
            table = pq.read_table(samples_path(run_dir, cell.key), columns=list(ITEM_COLUMNS))
            waiting.append(table.add_column(0, "cell", pa.array([cell.key] * len(table), pa.string())).cast(schema))
            if sum(len(table) for table in waiting) >= ROWS_PER_GROUP:
                writer.write_table(pa.concat_tables(waiting))
                waiting = []
        if waiting:
            writer.write_table(pa.concat_tables(waiting))
    return buffer.getvalue()
