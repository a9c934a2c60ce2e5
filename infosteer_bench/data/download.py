"""Download one file: resumed, retried, checked, and in place only when it is whole."""

from __future__ import annotations

import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path

from infosteer_bench.errors import Unreachable, UserError
from infosteer_bench.records import file_sha256

Progress = Callable[[str, int, int | None], None]
"""Called with the file's name, the bytes had so far and the bytes in all (None where the server does not say)."""

ATTEMPTS = 3
TIMEOUT_S = 30.0
CHUNK_BYTES = 1 << 20


class _TransientError(Exception):
    """Worth another attempt: a server error, a broken connection, a body shorter than announced.

    final: but not now: there is no network.
    """

    def __init__(self, message: str, *, final: bool = False) -> None:
        self.final = final
        super().__init__(message)


def download(url: str, path: Path, *, sha256: str, progress: Progress | None = None, wait_s: float = 1.0) -> None:
    """Fetch `url` to `path`, which then holds exactly the bytes with this sha256.

    An interrupted download is kept as `<path>.part` and resumed by Range; a lock keeps two processes from
    writing it at once. `wait_s` is the pause before the second attempt, doubled before the third.

    Raises UserError if the server cannot be reached, does not have the file, or has other bytes (nothing is kept).
    """
    from filelock import FileLock

    if not url.startswith(("http://", "https://")):
        raise UserError(f"data address {url} is not an http(s) address", hint="correct INFOSTEER_DATA_URL")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"the cache {path.parent} cannot be made: {error.strerror}", hint="set INFOSTEER_CACHE"
        ) from None
    with FileLock(f"{path}.lock"):
        if path.is_file() and file_sha256(path) == sha256:  # another process was faster
            return
        part = path.with_name(path.name + ".part")
        resumed = part.exists()
        _fetch(url, part, progress=progress, wait_s=wait_s)
        if file_sha256(part) != sha256 and resumed:  # the old beginning may be of another file: once more, from zero
            part.unlink()
            _fetch(url, part, progress=progress, wait_s=wait_s)
        got = file_sha256(part)
        if got != sha256:
            part.unlink()
            raise UserError(
                f"{url} has sha256 {got[:16]}..., not the pinned {sha256[:16]}...",
                hint="use a faithful mirror (INFOSTEER_DATA_URL), or --data-root, which accepts and names stand-ins",
            )
        part.replace(path)


def _fetch(url: str, part: Path, *, progress: Progress | None, wait_s: float) -> None:
    """Bring `part` to its full length, in up to ATTEMPTS attempts, each going on where the last one stopped."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return _attempt(url, part, progress)
        except _TransientError as error:
            if attempt == ATTEMPTS or error.final:
                raise Unreachable(
                    f"{url} cannot be had: {error}",
                    hint="check the network, set INFOSTEER_DATA_URL to a mirror, or use --data-root with local files",
                ) from None
            time.sleep(wait_s * 2 ** (attempt - 1))
    return None


def _attempt(url: str, part: Path, progress: Progress | None) -> None:
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"User-Agent": "infosteer-bench"})  # noqa: S310, scheme checked above
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:  # noqa: S310
            if response.status != 206:  # the server does not resume: from the start
                have = 0
            length = response.headers.get("Content-Length")
            total = have + int(length) if length else None
            with open(part, "ab" if have else "wb") as out:
                while chunk := response.read1(CHUNK_BYTES):  # what there is, so that a stall loses nothing
                    out.write(chunk)
                    have += len(chunk)
                    if progress:
                        progress(part.name.removesuffix(".part"), have, total)
            if total is not None and have < total:
                raise _TransientError(f"the connection closed after {have} of {total} bytes")
    except urllib.error.HTTPError as error:
        if error.code == 416:  # nothing is left to send: the part is whole, or it is not ours; the digest decides
            return
        if error.code >= 500 or error.code in (408, 429):
            raise _TransientError(f"the server says {error.code}") from None
        raise UserError(
            f"{url}: the server says {error.code}",
            hint="check INFOSTEER_DATA_URL, or use --data-root with local files",
        ) from None
    except (OSError, HTTPException) as error:
        reason = getattr(error, "reason", error)
        # a body that stalls is worth another attempt; no way to the server is not
        final = isinstance(error, urllib.error.URLError) and isinstance(reason, socket.gaierror | TimeoutError)
        raise _TransientError(str(reason) or type(reason).__name__, final=final) from None
