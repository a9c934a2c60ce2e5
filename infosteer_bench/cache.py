"""What is kept between runs, outside of any run's folder: downloads, and digests of big files.

INFOSTEER_CACHE names the folder (default ~/.cache/infosteer_bench). Deleting it costs time, never results.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from infosteer_bench.records import CorruptRecord, digest, read_sealed, write_sealed


def cache_dir() -> Path:
    """The cache folder; it need not exist yet."""
    given = os.environ.get("INFOSTEER_CACHE")
    return Path(given).expanduser() if given else Path.home() / ".cache" / "infosteer_bench"


def remembered_digest(kind: str, paths: Sequence[Path], compute: Callable[[], str]) -> str:
    """`compute()`, remembered for as long as none of `paths` changes place, inode, size or time stamps.

    kind: says what is computed, so that two digests of one file are kept apart. A cache that cannot be read or
    written is done without.
    """
    stats = [(str(path.resolve()), path.stat()) for path in paths]
    key = digest([kind, [[name, s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns] for name, s in stats]], length=32)
    store = cache_dir() / "digests" / f"{key}.json"
    try:
        return read_sealed(store)["digest"]
    except (CorruptRecord, KeyError):
        value = compute()
    with suppress(OSError):
        write_sealed(store, {"digest": value})
    return value
