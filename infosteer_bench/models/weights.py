"""Safetensors files without torch: are they whole, how many parameters, and one digest of their content.

A safetensors file is: 8 bytes with the header's length (little-endian), the header (JSON: tensor name -> dtype, shape,
data_offsets), then the tensors' bytes.
"""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

from infosteer_bench.cache import remembered_digest
from infosteer_bench.errors import UserError

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
_MAX_HEADER_BYTES = 100_000_000  # the format's own limit


def weight_files(path: Path) -> list[Path]:
    """The safetensors files that a model folder consists of.

    Raises UserError if there are none (pickles are never loaded) or a shard of the index is not there.
    """
    index = path / INDEX
    if (path / SINGLE).is_file():
        return [path / SINGLE]
    if index.is_file():
        try:
            names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        except (OSError, ValueError, KeyError, AttributeError, TypeError):
            raise UserError(f"{index} is not a readable index of safetensors shards") from None
        absent = [name for name in names if not (path / name).is_file()]
        if absent:
            raise UserError(f"{path} lacks {len(absent)} of {len(names)} weight shards, first {absent[0]}")
        return [path / name for name in names]
    check_not_pickle_only([file.name for file in path.iterdir()], str(path))
    raise UserError(f"{path} has no weights", allowed=f"{SINGLE}, or {INDEX} with its shards")


def check_not_pickle_only(names: list[str], where: str) -> None:
    """Raise UserError if `names` has pickled weights and no safetensors."""
    pickles = [name for name in names if name.endswith((".bin", ".pt", ".pth", ".ckpt"))]
    if pickles and not any(name.endswith(".safetensors") for name in names):
        raise UserError(
            f"{where} has pickle weights only ({pickles[0]}), and pickle weights are never loaded",
            allowed="safetensors",
            hint="convert it: load it where you trust it and save_pretrained(DIR), then give DIR",
        )


def read_header(file: Path) -> tuple[dict[str, dict[str, Any]], int]:
    """A file's tensors (name -> dtype, shape, data_offsets) and where their bytes begin.

    Raises UserError if the header cannot be read or the file's length is not what the header says.
    """
    try:
        with open(file, "rb") as handle:
            length = int.from_bytes(handle.read(8), "little")
            raw = handle.read(length) if 0 < length <= _MAX_HEADER_BYTES else b""
        header = json.loads(raw)
        header.pop("__metadata__", None)
        end = max(entry["data_offsets"][1] for entry in header.values())
    except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError):
        raise UserError(f"{file} is not a readable safetensors file", hint="download or export it again") from None
    start = 8 + length
    if file.stat().st_size != start + end:
        raise UserError(
            f"{file} is truncated or damaged: {file.stat().st_size} bytes, its header says {start + end}",
            hint="download or export it again",
        )
    return header, start


def count_parameters(path: Path) -> int:
    """Parameters stored in a model folder (tied ones once). Raises UserError on a damaged file."""
    return sum(math.prod(entry["shape"]) for file in weight_files(path) for entry in read_header(file)[0].values())


def weight_digest(path: Path) -> str:
    """sha256 over the tensors (name, dtype, shape, bytes) in the order of their names: how they are sharded, and the
    file's metadata, do not matter. Remembered in the cache while the files stay as they are.

    Raises UserError as `weight_files` and `read_header` do.
    """
    files = weight_files(path)
    return remembered_digest("weights 1", files, lambda: _weight_digest(files))


def _weight_digest(files: list[Path]) -> str:
    tensors: dict[str, tuple[Path, dict[str, Any], int]] = {}
    for file in files:
        header, start = read_header(file)
        tensors.update({name: (file, entry, start) for name, entry in header.items()})
    total = hashlib.sha256()
    handles = {file: open(file, "rb") for file in files}  # noqa: SIM115, closed below
    try:
        for name in sorted(tensors):
            file, entry, start = tensors[name]
            total.update(f"{name}\0{entry['dtype']}\0{entry['shape']}\0".encode())
            begin, end = entry["data_offsets"]
            handles[file].seek(start + begin)
            left = end - begin
            while left:
                chunk = handles[file].read(min(left, 1 << 24))
                if not chunk:
                    raise UserError(f"{file} became shorter while it was read")
                total.update(chunk)
                left -= len(chunk)
    finally:
        for handle in handles.values():
            handle.close()
    return total.hexdigest()
