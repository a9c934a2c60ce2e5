"""Marks inside a picture file: what it shows, and whether its bytes are still those that were drawn.

Two versions of matplotlib, or of a font, draw the same numbers with other bytes, so pictures cannot be compared byte
for byte. Each file carries the digest of the numbers and labels drawn (SVG: dc:description; PNG: tEXt Description;
matplotlib writes both), and at its end a seal, the sha256 of all bytes before it: a comment, or a PNG's last text
chunk. A file is right if sealing what lies before its seal gives the file itself (nobody edited a digit of the drawing,
and no other program saved it) and the digest is the one that the records give.
"""

from __future__ import annotations

import hashlib
import re
import zlib

PREFIX = "infosteer_bench figure, shows sha256:"
_SHOWN = re.compile(re.escape(PREFIX.encode()) + rb"([0-9a-f]{16})")  # a CRC follows in a PNG, of any bytes
_IEND = b"\0\0\0\0IEND\xaeB`\x82"  # the last chunk of every PNG


def describe(digest: str) -> str:
    """The description of a file that shows what `digest` was taken of."""
    return PREFIX + digest


def seal(name: str, data: bytes) -> bytes:
    """The same .svg or .png with its seal."""
    return _sealed(name, data.rstrip() + b"\n" if name.endswith(".svg") else data.removesuffix(_IEND))


def shown(name: str, data: bytes) -> str | None:
    """The digest of what a sealed .svg or .png shows; None if it was edited or is not one of ours."""
    body = data[: len(data) - len(_sealed(name, b""))]
    found = _SHOWN.search(body) if _sealed(name, body) == data else None
    return found[1].decode() if found else None


def _sealed(name: str, body: bytes) -> bytes:
    digest = hashlib.sha256(body).hexdigest().encode()
    if name.endswith(".svg"):
        return body + b"<!-- sealed sha256:" + digest + b" -->\n"
    text = b"Seal\0sha256:" + digest
    chunk = b"tEXt" + text
    return body + len(text).to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big") + _IEND
