"""What is kept of a run: one record per checkpoint, one per cell, one parquet of items per cell.

Layout below a run's folder (`runs/<grid>/`):

    checkpoints/<key>.json    CheckpointRecord
    cells/<key>.json          CellRecord
    samples/<key>.parquet     one row per item (ITEM_COLUMNS)
    answers/<key>--*.jsonl    every answer as it came (evaluation/answers.py)
    weights/<key>/            the checkpoint itself
    curves/<key>.jsonl        loss, entropy, gradient norm per optimizer step
    logs/<key>.log            what a failed checkpoint or cell had to say
    audit.json                DataAudit: test questions in the mixes and in one another

A record counts as done only if it reads back: right schema, status success, and the digest of its own
content. Everything is written to a temporary file, fsynced and renamed.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

SCHEMA_VERSION = 1

ITEM_COLUMNS = {
    "doc_id": "int64",  # position in the task's test file
    "prompt_digest": "string",  # sha256 of the exact prompt text, 16 hex digits
    "generation": "string",
    "finish_reason": "string",  # stop | length
    "n_tokens": "int64",  # generated tokens, the end-of-sequence token included
    "target": "string",
    "extracted": "string",  # JSON object: filter -> extracted answer, null where unparsed
    "correct": "string",  # JSON object: filter -> 0 or 1
    "option_rank": "float64",  # 1, 0, or null where the task has no options
}


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest(value: Any, length: int = 16) -> str:
    """The first `length` hex digits of the sha256 of `value` as canonical JSON."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:length]


def file_sha256(path: Path) -> str:
    """sha256 of a file's bytes, read in chunks."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def write_atomic(path: Path, content: bytes | str) -> None:
    """Write so that a reader, or a restart after power loss, sees the old file or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = content.encode() if isinstance(content, str) else content
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Have the names in a folder reach the disk: what was created or renamed there outlives a power loss."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_sealed(path: Path, value: dict[str, Any]) -> None:
    """Write JSON atomically, with the digest of its content."""
    sealed = {**value, "content_digest": digest(value)}
    write_atomic(path, json.dumps(sealed, indent=1, ensure_ascii=False) + "\n")


def read_sealed(path: Path) -> dict[str, Any]:
    """What `write_sealed` wrote. Raises CorruptRecord if it is not whole, or not there."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        claimed = value.pop("content_digest")
        if claimed == digest(value):
            return value
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise CorruptRecord(f"{path}: {type(error).__name__}") from None
    raise CorruptRecord(f"{path}: content does not match its digest")


class Record(BaseModel):
    """Common to both records. `content_digest` covers all other fields and is checked on read."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    FOLDER: ClassVar[str]

    schema_version: int = SCHEMA_VERSION
    key: str
    status: Literal["success", "failed"]
    error: str | None = None
    identity: dict[str, Any]
    provenance: dict[str, Any] = {}

    def save(self, run_dir: Path) -> Path:
        """Write atomically to its place below `run_dir`."""
        path = run_dir / self.FOLDER / f"{self.key}.json"
        write_sealed(path, self.model_dump(mode="json"))
        return path


class CheckpointRecord(Record):
    """One trained (or, for `base`, merely resolved) checkpoint."""

    FOLDER: ClassVar[str] = "checkpoints"

    model: str
    family: str
    method: str
    arm: str  # the method's non-default settings, "" for defaults
    mix: str | None  # None for base
    seed: int | None  # None for base
    weight_digest: str | None = None
    path: str | None = None  # relative to the run's folder, absolute for base
    runtime: dict[str, Any] | None = None  # what inference needs beyond the weights
    data: dict[str, Any] = {}  # sources with rows and sha256, stand_ins, dropped rows
    training: dict[str, Any] = {}  # steps, tokens, loss_final, time_s, step_time_s, peak_memory_bytes, warnings
    files: dict[str, str] = {}  # of what was trained: file name below `path` -> sha256
    curve_sha256: str | None = None
    mechanism: dict[str, Any] = {}  # mix -> analysis/mechanism.measure on its held-out text; {}: not measured


class CellRecord(Record):
    """One checkpoint on one task."""

    FOLDER: ClassVar[str] = "cells"

    checkpoint_key: str
    weight_digest: str | None = None
    model: str
    family: str
    method: str
    arm: str
    mix: str | None
    seed: int | None
    task: str  # short name
    split: Literal["ID", "OOD"]
    engine: str  # hf | vllm
    dtype: str
    limit: int | None
    n_items: int = 0
    n_total: int = 0  # items of the whole task
    exact_match: dict[str, float] = {}  # filter -> percent
    unparsed: dict[str, float] = {}  # filter -> percent
    truncated: float | None = None  # percent of answers that ran into max_new_tokens
    option_rank: float | None = None  # percent, likelihood-ranked
    generated_tokens: int = 0
    time_s: float = 0.0  # the engine's, behind these answers
    serving: dict[str, Any] = {}
    """{}: no engine was asked. engine_starts, engine_swaps: how often this process has, so far, started an engine for
    models of this architecture and put other weights into a live one; an engine closed to make room counts again when
    it is started anew. shards; load_time_s: of this checkpoint."""
    stand_ins: list[str] = []  # data files that differ from upstream, for training and for this test
    samples_sha256: str | None = None


AUDIT_VERSION = 1
"""Raised whenever the same texts would give another audit."""


class AuditedTest(BaseModel):
    """A test file as it was read."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: str
    items: int


class AuditedMix(BaseModel):
    """The items of every test whose question stands in one mix: by task, their places in the test file.

    exact: in the same words, in rows that are trained on. masked: the same but for numbers, those of `exact` among
    them. development: in the same words, in the rows held out of training.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    sources: dict[str, str]  # those that are there: name -> sha256 of the training file
    max_examples: int | None
    rows: int
    held_out: int
    exact: dict[str, tuple[int, ...]]
    masked: dict[str, tuple[int, ...]]
    development: dict[str, tuple[int, ...]]


class SharedQuestions(BaseModel):
    """How many different questions two tests share.

    exact: in the same words. masked: different ones once numbers are masked. Masking may make one of several of
    `exact`, so that there may be fewer; in `AuditedMix` items are counted, and masked ones are never fewer.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    tests: tuple[str, str]
    exact: int
    masked: int


class DataAudit(BaseModel):
    """What stands where it should not (data/audit.py), as a run keeps it in audit.json and a board in records/.

    repeated: a question that several test items ask in the same words: their (task, place), in the order of the tests.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int = AUDIT_VERSION
    tests: dict[str, AuditedTest]
    mixes: dict[str, AuditedMix]
    repeated: tuple[tuple[tuple[str, int], ...], ...]
    shared: tuple[SharedQuestions, ...]


R = TypeVar("R", bound=Record)


class CorruptRecord(Exception):
    """A record on disk does not read back as what was written."""


def read_record(path: Path, kind: type[R]) -> R:
    """Read and verify one record. Raises CorruptRecord; the caller decides whether to redo the work."""
    data = read_sealed(path)
    try:
        record = kind.model_validate(data)
    except ValidationError as error:
        raise CorruptRecord(f"{path}: {type(error).__name__}") from None
    if record.schema_version != SCHEMA_VERSION or record.key != path.stem:
        raise CorruptRecord(f"{path}: schema {record.schema_version}, key {record.key}")
    return record


def read_records(run_dir: Path, kind: type[R]) -> tuple[dict[str, R], list[str]]:
    """All records of one kind by key, and a line for each one that could not be believed."""
    records: dict[str, R] = {}
    problems: list[str] = []
    for path in sorted((run_dir / kind.FOLDER).glob("*.json")):
        try:
            records[path.stem] = read_record(path, kind)
        except CorruptRecord as error:
            problems.append(str(error))
    return records, problems


def samples_path(run_dir: Path, key: str) -> Path:
    """Where a cell's items are kept."""
    return run_dir / "samples" / f"{key}.parquet"


def write_items(path: Path, rows: Iterable[dict[str, Any]]) -> str:
    """Write items as parquet, atomically; returns the file's sha256."""
    import io

    import pyarrow as pa
    import pyarrow.parquet as pq

    types = {"int64": pa.int64(), "string": pa.string(), "float64": pa.float64()}
    schema = pa.schema([(name, types[kind]) for name, kind in ITEM_COLUMNS.items()])
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), buffer, compression="zstd")
    write_atomic(path, buffer.getvalue())
    return hashlib.sha256(buffer.getvalue()).hexdigest()


def read_items(path: Path) -> list[dict[str, Any]]:
    """The items of one cell, in doc_id order. Raises CorruptRecord."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_table(path, columns=list(ITEM_COLUMNS)).to_pylist()
    except (OSError, pa.ArrowException, KeyError) as error:
        raise CorruptRecord(f"{path}: {type(error).__name__}") from None
