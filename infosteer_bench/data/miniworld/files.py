"""The world's data files, laid out like upstream's, so that every other part of the package reads them alike.

root = data_root()         # written to the cache on first use: dataset/<dir>/test.json, train.json, gsm8k_train.jsonl
"""

from __future__ import annotations

import json
from pathlib import Path

from infosteer_bench.benchmark import COMMONSENSE, TASKS
from infosteer_bench.cache import cache_dir
from infosteer_bench.data.miniworld import items
from infosteer_bench.data.miniworld.world import make_world
from infosteer_bench.data.sources import GSM8K_TRAIN, LocalRoot, SourceFile
from infosteer_bench.errors import UserError
from infosteer_bench.records import file_sha256, write_atomic

TEST_ITEMS = 100
"""Items of every test set."""
TRAIN_ROWS = 2400
"""Rows of every commonsense training file: each `mix` creature 24 times."""
GSM8K_ROWS = 1500
"""Rows of the gsm8k-like training file; the last 300 are the development part, as in GSM8K."""
PINNED = Path(__file__).with_name("pinned.sha256")


def contents() -> dict[str, bytes]:
    """Relative path -> bytes of every data file."""
    world = make_world()
    out: dict[str, bytes] = {}
    for task in TASKS:
        folder = f"dataset/{TASKS[task].folder}"
        out[f"{folder}/test.json"] = _json(items.task_items(world, task, count=TEST_ITEMS))
        if task in COMMONSENSE:
            rows = items.commonsense_records(world, task, "train", count=TRAIN_ROWS)
            out[f"{folder}/train.json"] = _json(rows)
    rows = items.gsm8k_train_records(world.seed, count=GSM8K_ROWS)
    out[GSM8K_TRAIN] = "".join(json.dumps(row) + "\n" for row in rows).encode()
    return out


def pinned() -> dict[str, str]:
    """Relative path -> sha256 of every data file: the world that the shipped models were pretrained in."""
    lines = PINNED.read_text(encoding="utf-8").splitlines()
    return {relative: sha256 for sha256, relative in (line.split("  ", 1) for line in lines)}


def data_root() -> Path:
    """The folder with all files, written where it is not there yet.

    Raises UserError if this Python generates other bytes than those that are pinned.
    """
    pins = pinned()
    root = cache_dir() / "miniworld" / file_sha256(PINNED)[:12]
    if all((root / relative).is_file() and file_sha256(root / relative) == pins[relative] for relative in pins):
        return root
    for relative, content in contents().items():
        write_atomic(root / relative, content)
        if file_sha256(root / relative) != pins.get(relative):
            raise UserError(
                f"the mini-world's {relative} comes out different from the one its models were built with",
                hint="install the released package anew, or build the models anew: infosteer-bench miniworld build",
            )
    return root


class MiniWorld(LocalRoot):
    """A data source like `LocalRoot`, whose files are no stand-ins: they are what they claim to be."""

    def __init__(self) -> None:
        super().__init__(data_root())

    def files(self) -> list[str]:
        """All of the world's."""
        return list(pinned())

    def get(self, relative: str) -> SourceFile:
        """See `LocalRoot.get`."""
        file = super().get(relative)
        return SourceFile(file.path, file.relative, file.sha256, stand_in=file.sha256 != pinned().get(relative))


def _json(records: list[dict[str, str]]) -> bytes:
    return (json.dumps(records, indent=1, ensure_ascii=False) + "\n").encode()
