"""Bytes that others wrote: bounded before they are parsed, and every fault of theirs told as one line with the path.

    value = read_json(path)                                    # raises OSError or ValueError, nothing else
    with told(path, hint="restore the file"):                  # and here any fault becomes a UserError
        value = read_json(path, most_bytes=MOST_CONFIG)

Whoever reads a file that came with a board, a run, a model, a task or a data set reads it through here. Parsers
raise RecursionError for brackets in brackets, MemoryError for what does not fit, and hang on a pipe or device in a
file's place; a caller who expects `OSError | ValueError` meets none of these.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from infosteer_bench.errors import UserError

MOST_CONFIG = 16 << 20
"""Bytes of a config, an index of shards, a sealed record."""
MOST_TEXT = 1 << 30
"""Bytes of a data file or a board's records: they are read whole."""


class Unreadable(ValueError):
    """Bytes that are not what they should be; the text is the reason, for people, without the path."""


def read_bytes(path: Path, *, most_bytes: int = MOST_TEXT) -> bytes:
    """A regular file's bytes, at most `most_bytes` of them.

    Raises OSError as open does, and Unreadable for a larger file and for a device, pipe or folder in its place.
    """
    # Without O_NONBLOCK, opening a pipe waits for a writer for ever.
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as handle:
        status = os.fstat(handle.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise Unreadable("it is no regular file")
        if status.st_size > most_bytes:
            raise Unreadable(f"it has {status.st_size:,} bytes, more than the {most_bytes:,} that are read")
        return handle.read(most_bytes)


def read_text(path: Path, *, most_bytes: int = MOST_TEXT) -> str:
    """A file's UTF-8 text, without a byte-order mark. Raises OSError or ValueError."""
    return decoded(read_bytes(path, most_bytes=most_bytes))


def read_json(path: Path, *, most_bytes: int = MOST_CONFIG) -> Any:
    """A file's JSON value. Raises OSError or ValueError."""
    return parse_json(read_bytes(path, most_bytes=most_bytes))


def decoded(data: bytes) -> str:
    """UTF-8 text, without a byte-order mark. Raises Unreadable."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Unreadable(f"not UTF-8 text (byte {error.start})") from None


def parse_json(data: bytes | str) -> Any:
    """The JSON value in `data`: no NaN, no infinity, no half of a character. Raises Unreadable."""
    text = decoded(data) if isinstance(data, bytes) else data
    try:
        value = json.loads(text, parse_constant=_constant)
        if "\\u" in text:  # only so can a lone surrogate come in; whoever writes or hashes it would fail
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise Unreadable("it holds half of a character (a lone surrogate)") from None
    except RecursionError:
        raise Unreadable("nested too deeply") from None
    except MemoryError:
        raise Unreadable("too large for the memory") from None
    except Unreadable:
        raise
    except json.JSONDecodeError as error:
        raise Unreadable(f"not valid JSON: {error}") from None
    except ValueError as error:  # an integer of thousands of digits
        raise Unreadable(f"not valid JSON: {str(error).splitlines()[0]}") from None
    return value


@contextmanager
def told(path: Path, *, allowed: str | None = None, hint: str | None = None) -> Iterator[None]:
    """Whatever reading `path` raises inside becomes a UserError: the path, why, what to do."""
    try:
        yield
    except (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError, MemoryError) as error:
        raise UserError(f"{path} cannot be read: {reason(error)}", allowed=allowed, hint=hint) from error


def reason(error: BaseException) -> str:
    """Why bytes could not be read or written, in a few words of one line."""
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if isinstance(error, MemoryError):
        return "too large for the memory"
    if isinstance(error, UnicodeError):
        return "not UTF-8 text"
    if isinstance(error, Unreadable):
        return str(error)
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {' '.join(lines[:2])[:200]}" if lines else type(error).__name__


def _constant(name: str) -> NoReturn:
    raise Unreadable(f"it holds {name}, which is no JSON")
