"""One writer per run folder, many readers: a lock that names its holder and dies with it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from infosteer_bench.errors import UserError

_WORKERS_END_S = 20.0


@contextlib.contextmanager
def locked(run_dir: Path) -> Iterator[int]:
    """One writer per folder, yields the lock's descriptor; the kernel frees it when its holders die, however they do.

    Workers outlive a parent that was killed by a moment: where the holder named in the file is gone, wait for them.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    path = run_dir / ".lock"
    with path.open("a+", encoding="utf-8") as handle:
        deadline = time.monotonic() + _WORKERS_END_S
        while not _taken(handle):
            handle.seek(0)
            holder = handle.read().strip()
            if _alive(holder) or time.monotonic() > deadline:
                raise UserError(
                    f"{run_dir} is in use by {holder or 'another process'}",
                    hint="wait for it, or choose another --output",
                )
            time.sleep(0.1)
        handle.truncate(0)
        handle.write(f"process {os.getpid()} on {socket.gethostname()}")
        handle.flush()
        yield handle.fileno()


def _taken(handle: IO[str]) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _alive(holder: str) -> bool:
    """Whether "process 123 on HOST" still runs; true where nobody can say, as of another host's."""
    number, _, host = holder.removeprefix("process ").partition(" on ")
    if not number.isdecimal() or host != socket.gethostname():
        return True
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
