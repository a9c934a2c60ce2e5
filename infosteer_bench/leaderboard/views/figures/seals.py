"""Marks inside a picture file: what it shows, and whether its bytes are still those that were drawn.

Two versions of matplotlib, or of a font, draw the same numbers with other bytes, so pictures cannot be compared byte
for byte. Each file carries the digest of the numbers and labels drawn (SVG: dc:description; PNG: tEXt Description),
and at its end a seal, the sha256 of all bytes before it. A file is right if it parses, the seal holds (nobody edited a
digit of the drawing) and the digest is the one that the records give.
"""

from __future__ import annotations

import hashlib
import re
import struct
import zlib
from collections.abc import Iterator
from xml.etree import ElementTree

SIGNATURE = b"\x89PNG\r\n\x1a\n"
DESCRIPTION = "{http://purl.org/dc/elements/1.1/}description"
PREFIX = "infosteer_bench figure, shows sha256:"
_SVG_SEAL = re.compile(rb"<!-- sealed sha256:([0-9a-f]{64}) -->\n\Z")
_PNG_SEAL = b"Seal\0sha256:"


def describe(digest: str) -> str:
    """The description of a file that shows what `digest` was taken of."""
    return PREFIX + digest


def seal_svg(data: bytes) -> bytes:
    """The same drawing with its seal as a comment at the end."""
    body = data.rstrip() + b"\n"
    return body + b"<!-- sealed sha256:" + hashlib.sha256(body).hexdigest().encode() + b" -->\n"


def seal_png(data: bytes) -> bytes:
    """The same image with its seal in a tEXt chunk before the last one. Raises ValueError if it is no PNG."""
    end = list(_chunks(data))[-1][2]
    seal = _PNG_SEAL + hashlib.sha256(data[:end]).hexdigest().encode()
    return data[:end] + _chunk(b"tEXt", seal) + data[end:]


def shown(name: str, data: bytes) -> str | None:
    """The digest of what a sealed .svg or .png shows; None if it does not parse, was edited or is not one of ours."""
    try:
        text = _svg_description(data) if name.endswith(".svg") else _png_description(data)
    except (ElementTree.ParseError, ValueError):
        return None
    return text.removeprefix(PREFIX) if text.startswith(PREFIX) else None


def _svg_description(data: bytes) -> str:
    seal = _SVG_SEAL.search(data)
    if seal is None or hashlib.sha256(data[: seal.start()]).hexdigest().encode() != seal[1]:
        raise ValueError("the seal does not hold")
    root = ElementTree.fromstring(data)  # noqa: S314  (our own file, whose seal holds; no entity is resolved)
    return next((element.text or "" for element in root.iter(DESCRIPTION)), "")


def _png_description(data: bytes) -> str:
    found = sealed = ""
    for kind, content, start in _chunks(data):
        if kind == b"tEXt" and content.startswith(b"Description\0"):
            found = content.partition(b"\0")[2].decode("latin-1")
        if kind == b"tEXt" and content == _PNG_SEAL + hashlib.sha256(data[:start]).hexdigest().encode():
            sealed = found
    return sealed


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes, int]]:
    """(kind, content, place in the file) of each chunk of a PNG. Raises ValueError where one is damaged."""
    if not data.startswith(SIGNATURE):
        raise ValueError("no PNG")
    place, kind = len(SIGNATURE), b""
    while kind != b"IEND":
        start = place
        if len(data) < start + 12:
            raise ValueError("the file ends early")
        (length,) = struct.unpack(">I", data[start : start + 4])
        kind, place = data[start + 4 : start + 8], start + 12 + length
        content = data[start + 8 : place - 4]
        if data[start:place] != _chunk(kind, content):
            raise ValueError("a chunk does not match its checksum")
        yield kind, content, start
    if place != len(data):
        raise ValueError("bytes after the end")


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
