"""Where data files come from: the pinned upstream files, a local folder of the same layout, or the embedded world.

    source = open_source(data_root)            # None: upstream, checked and cached
    file = source.get("dataset/boolq/test.json")
    rows = load_json_records(file)

Upstream is the public repository AGI-Edgerunners/LLM-Adapters at one commit, and GSM8K's training rows from the
hub's openai/gsm8k. `pinned.sha256` (in the format of `sha256sum -c`) fixes every byte; GSM8K's line is over its rows
written as JSON lines, since the hub stores them as parquet. A local root may hold other bytes (stand-ins): they are
accepted and named in every record.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol

from infosteer_bench.benchmark import TASKS
from infosteer_bench.cache import cache_dir
from infosteer_bench.data.download import Progress, download
from infosteer_bench.errors import Unreachable, UserError
from infosteer_bench.records import file_sha256, write_atomic

UPSTREAM_COMMIT = "816657208af4db747803f87ba40a4c71383fed7a"
UPSTREAM_URL = f"https://raw.githubusercontent.com/AGI-Edgerunners/LLM-Adapters/{UPSTREAM_COMMIT}"
GSM8K_TRAIN = "gsm8k_train.jsonl"
GSM8K_REPO, GSM8K_PARQUET = "openai/gsm8k", "main/train-00000-of-00001.parquet"


@dataclass(frozen=True)
class SourceFile:
    """One data file on this machine. stand_in: its bytes are not those of the pinned upstream file."""

    path: Path
    relative: str
    sha256: str
    stand_in: bool


class DataSource(Protocol):
    """What the rest of the package needs of a place where data lives."""

    def get(self, relative: str) -> SourceFile:
        """The file at `relative`, such as "dataset/boolq/test.json". Raises UserError if it cannot be had."""
        ...

    def has(self, relative: str) -> bool:
        """Whether `get` may succeed; asks no network."""
        ...

    def at_hand(self, relative: str) -> SourceFile | None:
        """The file if it is on this machine; asks no network."""
        ...

    def files(self) -> list[str]:
        """Every relative path that such a source may have."""
        ...


@cache
def pinned() -> dict[str, str]:
    """Relative path -> sha256 of the upstream file."""
    lines = Path(__file__).with_name("pinned.sha256").read_text(encoding="utf-8").splitlines()
    return {relative: sha256 for sha256, relative in (line.split("  ", 1) for line in lines)}


class LocalRoot:
    """A folder laid out like upstream (`dataset/<dir>/test.json`, ...), with gsm8k_train.jsonl at its top."""

    def __init__(self, root: Path) -> None:
        self.root = root.expanduser()
        if not self.root.is_dir():
            raise UserError(f"data root {root} is not a folder", hint="give --data-root a folder that holds dataset/")
        if not any(self.has(relative) for relative in pinned()):
            raise UserError(
                f"data root {root} holds none of the data files",
                allowed="dataset/<dir>/test.json and train.json with <dir> of "
                f"{', '.join(row.folder for row in TASKS.values())}; {GSM8K_TRAIN}",
            )

    def files(self) -> list[str]:
        """Those of upstream."""
        return list(pinned())

    def has(self, relative: str) -> bool:
        """Whether the file is there."""
        return (self.root / relative).is_file()

    def at_hand(self, relative: str) -> SourceFile | None:
        """The file if it is there."""
        return self.get(relative) if self.has(relative) else None

    def get(self, relative: str) -> SourceFile:
        """The file with its sha256. Raises UserError if it is not there or cannot be read."""
        path = self.root / relative
        if not path.is_file():
            raise UserError(f"data root {self.root} has no {relative}", hint="add the file, or leave its task out")
        try:
            sha256 = _sha256_once(path)
        except OSError as error:
            raise UserError(f"{path} cannot be read: {error.strerror}") from None
        return SourceFile(path, relative, sha256, stand_in=sha256 != pinned().get(relative))


class Upstream:
    """The pinned files, downloaded once into the cache and checked on every use.

    base_url: where the raw files are (default INFOSTEER_DATA_URL, or GitHub); pins: relative path -> sha256.
    """

    def __init__(
        self, *, base_url: str | None = None, pins: dict[str, str] | None = None, progress: Progress | None = None
    ) -> None:
        self.base_url = (base_url or os.environ.get("INFOSTEER_DATA_URL") or UPSTREAM_URL).rstrip("/")
        self.pins = pinned() if pins is None else pins
        self.folder = cache_dir() / "llm-adapters" / UPSTREAM_COMMIT[:12]
        self.progress = progress

    def files(self) -> list[str]:
        """Those of the pinned commit."""
        return list(self.pins)

    def has(self, relative: str) -> bool:
        """Whether upstream has this file at the pinned commit."""
        return relative in self.pins

    def at_hand(self, relative: str) -> SourceFile | None:
        """The file if the cache holds the pinned bytes."""
        path = self.folder / relative
        whole = path.is_file() and _sha256_once(path) == self.pins.get(relative)
        return SourceFile(path, relative, self.pins[relative], stand_in=False) if whole else None

    def get(self, relative: str) -> SourceFile:
        """The checked file. Raises UserError if it is unknown, unreachable or not the pinned bytes."""
        if relative not in self.pins:
            raise UserError(f"{relative} is not one of the pinned data files", allowed=", ".join(sorted(self.pins)))
        path, expected = self.folder / relative, self.pins[relative]
        if self.at_hand(relative) is None:
            if relative == GSM8K_TRAIN:
                self._fetch_gsm8k(path, expected)
            else:
                download(f"{self.base_url}/{relative}", path, sha256=expected, progress=self.progress)
        return SourceFile(path, relative, expected, stand_in=False)

    def _fetch_gsm8k(self, path: Path, expected: str) -> None:
        """GSM8K's training rows by the hub's own client, so that HF_ENDPOINT, tokens and mirrors apply."""
        import hashlib

        import pyarrow as pa
        import pyarrow.parquet as pq
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import HTTPError  # pyright: ignore[reportPrivateImportUsage]

        from infosteer_bench.models.hub import no_answer

        try:
            parquet = hf_hub_download(
                GSM8K_REPO, GSM8K_PARQUET, repo_type="dataset", endpoint=os.environ.get("HF_ENDPOINT") or None
            )
            rows = pq.read_table(parquet, columns=["question", "answer"]).to_pylist()
        except (OSError, ValueError, HTTPError, pa.ArrowException) as error:
            raise (Unreachable if no_answer(error) else UserError)(
                f"dataset {GSM8K_REPO} cannot be had from the hub: {str(error).splitlines()[0]}",
                hint=f"check the network (HF_ENDPOINT for a mirror), or use --data-root with {GSM8K_TRAIN} in it",
            ) from None
        content = "".join(json.dumps({"question": r["question"], "answer": r["answer"]}) + "\n" for r in rows).encode()
        got = hashlib.sha256(content).hexdigest()
        if got != expected:
            raise UserError(
                f"the rows of {GSM8K_REPO} have sha256 {got[:16]}..., not the pinned {expected[:16]}...",
                hint="use a faithful mirror, or --data-root, which accepts stand-ins and names them",
            )
        write_atomic(path, content)


_SHA256: dict[tuple[str, int, int], str] = {}


def _sha256_once(path: Path) -> str:
    """sha256 of a file, computed once per process as long as size and time stamp stay."""
    stat = path.stat()
    key = (str(path.absolute()), stat.st_size, stat.st_mtime_ns)
    if key not in _SHA256:
        _SHA256[key] = file_sha256(path)
    return _SHA256[key]


def load_json_records(file: SourceFile) -> list[dict[str, Any]]:
    """The records of a .json list or a .jsonl file. Raises UserError that names the file and the bad record."""
    try:
        text = file.path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file.path} cannot be read as UTF-8 text: {error}") from None
    if file.path.suffix == ".jsonl":
        # Not splitlines(): a record may hold U+2028 and the like unescaped.
        numbered = [(f"line {n}", line) for n, line in enumerate(text.split("\n"), start=1) if line.strip()]
        records = [_parse(line, f"{file.path}, {where}") for where, line in numbered]
        places = [where for where, _ in numbered]
    else:
        records = _parse(text, str(file.path))
        if not isinstance(records, list):
            raise UserError(f"{file.path} holds no JSON list of records", allowed="[{...}, {...}] or JSON lines")
        places = [f"record {n}" for n in range(1, len(records) + 1)]
    for where, record in zip(places, records, strict=True):
        if not isinstance(record, dict):
            raise UserError(f"{file.path}, {where} is not a JSON object, got {str(record)[:60]!r}")
    if not records:
        raise UserError(f"{file.path} holds no records")
    return records


def _parse(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{where} is not valid JSON: {error}") from None
