"""What a model answered, one line per answer, appended as the answers come: nothing asked twice, nothing lost.

    store = AnswerStore(folder, checkpoint=key, asked=asked)      # or AnswerStore() for memory only
    store.add(request_key("generate", prompt, settings), answer, seconds=0.1)
    store.flush()                                                 # also by itself, every few seconds

A file serves one `AnswerContext` (weights, tokenizer, engine, dtype, ...); in it an answer is found by the text that
was asked and how it may end, so tasks and limits may change, and only what is new is asked. A line that is not whole
(the process was killed, the disk lied) does not count and is asked again.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from infosteer_bench.evaluation.generation import Generation
from infosteer_bench.records import canonical_json, digest, write_atomic

ANSWERS_VERSION = 1
"""Raised when an engine would give other answers under the same circumstances."""
FOLDER = "answers"

CHUNK = 64
"""Answers written at once, at most; what a crash can lose."""
_FLUSH_S = 5.0


@dataclass(frozen=True)
class AnswerContext:
    """The circumstances of an answer: what else must be equal for the same text to be answered the same.

    weights, tokenizer: digests. renderer: version of how a text becomes tokens. window: tokens of prompt and answer.
    runtime: what the method does while answering.
    """

    weights: str
    tokenizer: str
    renderer: int
    engine: str
    dtype: str
    window: int
    runtime: dict[str, Any] | None
    version: int = ANSWERS_VERSION


class Score(NamedTuple):
    """Of a continuation: its log-probability in nats, and whether greedy decoding would write it."""

    log_probability: float
    is_greedy: bool


Answer = Generation | Score


class Stored(NamedTuple):
    """An answer and its share of the engine's time."""

    answer: Answer
    seconds: float


def request_key(kind: str, text: str, ending: Any) -> str:
    """What is asked: kind generate or score, the context, and stop strings and new tokens, or the continuation."""
    return hashlib.sha256(canonical_json([kind, text, ending]).encode()).hexdigest()[:32]


def answers_path(run_dir: Path, checkpoint: str, asked: AnswerContext) -> Path:
    """Where a checkpoint's answers under these circumstances lie."""
    return run_dir / FOLDER / f"{checkpoint}--{digest(asdict(asked), 12)}.jsonl"


class AnswerStore:
    """Answers by request key; a dictionary whose additions reach the disk in chunks.

    path: the file to read and to append to, which only one process may do at a time; None keeps all in memory.
    asked: given by who will append; damaged lines are then taken out of the file.
    n_damaged: lines that did not verify.
    """

    def __init__(self, path: Path | None = None, *, asked: AnswerContext | None = None) -> None:
        self.path, self.asked = path, asked
        self.n_damaged = 0
        self._known: dict[str, Stored] = {}
        self._waiting: list[str] = []
        self._flushed = time.monotonic()
        if path is not None and path.exists():
            whole = self._read(path)
            if self.n_damaged and asked is not None:
                write_atomic(path, b"".join([_line(["asked", asdict(asked)]).encode(), *whole]))

    def __len__(self) -> int:
        return len(self._known)

    def __contains__(self, key: str) -> bool:
        return key in self._known

    def __getitem__(self, key: str) -> Stored:
        return self._known[key]

    def add(self, key: str, answer: Answer, *, seconds: float) -> None:
        """Take an answer. It is on disk after CHUNK more, a few seconds, or `flush`."""
        self._known[key] = Stored(answer, seconds)
        if self.path is None:
            return
        self._waiting.append(_line([key, *_plain(answer), round(seconds, 6)]))
        if len(self._waiting) >= CHUNK or time.monotonic() - self._flushed > _FLUSH_S:
            self.flush()

    def flush(self) -> None:
        """Append what waits, and wait for the disk."""
        if self.path is None or not self._waiting:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab") as handle:
            if handle.tell() == 0:
                handle.write(_line(["asked", asdict(self.asked) if self.asked else None]).encode())
            handle.write("".join(self._waiting).encode())
            handle.flush()
            os.fsync(handle.fileno())
        self._waiting.clear()
        self._flushed = time.monotonic()

    @contextmanager
    def flushed(self) -> Iterator[None]:
        """What was added inside is on disk at the end, also if that is an exception."""
        try:
            yield
        finally:
            self.flush()

    def _read(self, path: Path) -> list[bytes]:
        """Take in what verifies; returns the lines of answers that do. A last line that was cut off does not."""
        whole: list[bytes] = []
        headed = False
        lines = path.read_bytes().split(b"\n")
        for raw in filter(None, lines):
            content = _verified(raw)
            if content is None:
                self.n_damaged += 1
            elif content[0] == "asked":
                headed = True
                self.asked = self.asked or (AnswerContext(**content[1]) if content[1] else None)
            else:
                key, *plain, seconds = content
                self._known[key] = Stored(_answer(plain), seconds)
                whole.append(raw + b"\n")
        # the next answer must not be glued to a line that lacks its end, nor stand in a file that says of nobody
        if not self.n_damaged and (lines[-1] or (lines[0] and not headed)):
            self.n_damaged = 1
        return whole


def answered(run_dir: Path, checkpoint: str) -> bool:
    """Whether there are any answers of a checkpoint."""
    return next((run_dir / FOLDER).glob(f"{checkpoint}--*.jsonl"), None) is not None


def stored_answers(run_dir: Path, checkpoint: str) -> Iterator[AnswerStore]:
    """Every file of answers of a checkpoint; `asked` says under which circumstances they were given."""
    for path in sorted((run_dir / FOLDER).glob(f"{checkpoint}--*.jsonl")):
        yield AnswerStore(path)


def _plain(answer: Answer) -> list[Any]:
    if isinstance(answer, Generation):
        return ["generate", str(answer), answer.finish_reason, answer.n_tokens]
    return ["score", answer.log_probability, answer.is_greedy]


def _answer(plain: list[Any]) -> Answer:
    kind, *values = plain
    if kind == "generate":
        text, finish_reason, n_tokens = values
        return Generation(text, finish_reason=finish_reason, n_tokens=n_tokens)
    return Score(*values)


def _line(content: list[Any]) -> str:
    """JSON with its own checksum as last item; one line whatever the text holds."""
    text = json.dumps(content, ensure_ascii=True, separators=(",", ":"))
    return json.dumps([*content, _checksum(text)], ensure_ascii=True, separators=(",", ":")) + "\n"


def _verified(raw: bytes) -> list[Any] | None:
    try:
        *content, claimed = json.loads(raw)
    except (ValueError, TypeError):
        return None
    text = json.dumps(content, ensure_ascii=True, separators=(",", ":"))
    return content if claimed == _checksum(text) else None


def _checksum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]
