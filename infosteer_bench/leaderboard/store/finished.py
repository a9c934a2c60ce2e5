"""A run's board that is finished is not made again: a note says what it was made from, by what, and what came out.

The note, `board.json` in the run's folder, holds digests: of the records, of the code and libraries that made it, and
of every file of the board. All are looked at anew; where one differs, or the note is damaged, the board is made again.
So a finished run is found finished in seconds, however many answers it holds.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from infosteer_bench.records import CorruptRecord, digest, file_sha256, read_sealed, write_sealed

NOTE_FILE = "board.json"
_PACKAGE = Path(__file__).resolve().parents[2]
_CODE = ("leaderboard", "records.py", "benchmark.py")
_LIBRARIES = ("numpy", "scipy", "pyarrow", "matplotlib")


def is_finished(run_dir: Path, board_dir: Path, records: Mapping[str, str]) -> bool:
    """Whether the note fits records, code and files as they are now. records: the board's record files by name."""
    try:
        return read_sealed(run_dir / NOTE_FILE) == _note(board_dir, records)
    except (OSError, CorruptRecord):
        return False


def note_finished(run_dir: Path, board_dir: Path, records: Mapping[str, str]) -> None:
    """Write the note of a board that was just made."""
    write_sealed(run_dir / NOTE_FILE, _note(board_dir, records))


def _note(board_dir: Path, records: Mapping[str, str]) -> dict[str, Any]:
    return {"records": digest(dict(records), 64), "made_by": _made_by(), "files": _files(board_dir)}


def _made_by() -> str:
    sources = [file for part in _CODE for file in _below(_PACKAGE / part) if "__pycache__" not in file.parts]
    versions = {name: importlib.metadata.version(name) for name in _LIBRARIES}
    return digest([versions, {str(file.relative_to(_PACKAGE)): file_sha256(file) for file in sources}], 64)


def _files(board_dir: Path) -> dict[str, str]:
    return {file.relative_to(board_dir).as_posix(): file_sha256(file) for file in _below(board_dir)}


def _below(path: Path) -> list[Path]:
    return [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
