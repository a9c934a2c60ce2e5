"""A small board with everything that a page must bear: hostile names and answers, flips, long and cut generations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from infosteer_bench.leaderboard.numbers.board import Board
from infosteer_bench.leaderboard.store import compact
from infosteer_bench.leaderboard.store.items import Items
from infosteer_bench.records import CellRecord, CheckpointRecord, samples_path, write_atomic, write_items, write_sealed

MODEL = "mo\"del <b>'s</b> & co"
SCRIPT = "<script>alert(1)</script><img src=x onerror=alert(2)>"
LONG = "so it goes on " * 300
METHODS = ("base", "sft", "infosteer-intervention", "infosteer-regularization")
TASKS = {"boolq": "commonsense", "piqa": "commonsense", "gsm8k": "gsm8k"}
ITEMS = 40


def right(method: str, seed: int | None, task: str, doc: int) -> bool:
    """Whether an item is answered right: without chance, other for every method, seed and task."""
    if doc in (1, 2, 3):  # those with remarkable answers
        return method.startswith("infosteer")
    number = (doc * 7 + len(task) * 5 + (seed or 0) * 3) % 10
    return {"base": number < 2, "sft": number < 6, "infosteer-regularization": number < 6 or doc % 9 == 0}.get(
        method, number < 8 and doc % 11 != 3
    )


def generation(method: str, task: str, doc: int) -> str:
    """What was written: markup at item 1, very much at item 2, nothing at item 3."""
    if doc in (1, 2, 3):
        return {1: f"{SCRIPT} </script> by {method}", 2: LONG, 3: ""}[doc]
    return f"{method} says of {task} {doc}:\nthe answer is \u2028 {doc % 4}"


def write_run(folder: Path, *, seeds: tuple[int, ...] = (0, 1, 2), model: str = MODEL, mechanism: bool = False) -> Path:
    """A run's folder: four methods, two mixes, three tasks. mechanism: with statistics of the key coefficients."""
    for method in METHODS:
        for mix in dict.fromkeys(TASKS.values()) if method != "base" else (None,):
            for seed in seeds if method != "base" else (None,):
                entries = {mix: _statistics(method, seed)} if mechanism and mix else {}
                _checkpoint(folder, model=model, method=method, mix=mix, seed=seed, mechanism=entries)
                for task in (name for name, of_mix in TASKS.items() if mix in (None, of_mix)):
                    _cell(folder, model=model, method=method, mix=mix, seed=seed, task=task)
    grid = {
        "name": "toy",
        "description": "three tasks, four methods",
        "models": [{"id": model, "family": "llama"}],
        "methods": [{"name": name, "arm": ""} for name in METHODS],
        "mixes": [{"name": mix, "tasks": [t for t in TASKS if TASKS[t] == mix]} for mix in ("commonsense", "gsm8k")],
        "tasks": list(TASKS),
        "seeds": list(seeds),
    }
    write_sealed(folder / "grid.json", grid)
    return folder


def write_board(folder: Path, **run: object) -> Path:
    """The records of such a run's board, without its tables."""
    made = write_run(folder / "run", **run)  # type: ignore[arg-type]
    board = compact.collect(made, name="demo")
    write_atomic(folder / "demo" / compact.ITEMS_FILE, compact.items_bytes(made, board.cells))
    for name, text in compact.text_files(board).items():
        write_atomic(folder / "demo" / name, text)
    return folder / "demo"


def read_board(board_dir: Path) -> Board:
    """As for publishing."""
    return Board.of(compact.load(board_dir), Items(board_dir / compact.ITEMS_FILE))


def _key(method: str, mix: str | None, seed: int | None) -> str:
    return f"{method}-{mix}-{seed}"


def _statistics(method: str, seed: int | None) -> dict[str, Any]:
    more = 0.01 * METHODS.index(method) * (1 + (seed or 0))
    overall = {f"{kind}entropy_{unit}": 0.8 + more for kind in ("", "knowledge_") for unit in ("nats", "share")}
    overall |= {"effective_memories": 300.0, "low_share": 0.25}
    part = {"part": "dev", "rows": 4, "tokens": 99, "digest": "0" * 16}
    return {"version": 1, "slice": part, "width": 640, "n_layers": 2, "dtype": "float32", "overall": overall}


def _checkpoint(
    folder: Path, *, model: str, method: str, mix: str | None, seed: int | None, mechanism: dict[str, Any]
) -> None:
    slower = {"infosteer-intervention": 1.5, "infosteer-regularization": 1.1}.get(method, 1.0)
    CheckpointRecord(
        key=_key(method, mix, seed),
        status="success",
        identity={"model": model, "method": method},
        provenance={"device": "cpu"},
        model=model,
        family="llama",
        method=method,
        arm="",
        mix=mix,
        seed=seed,
        mechanism=mechanism,
        training={} if seed is None else {"step_time_s": 0.2 * slower, "peak_memory_bytes": 2**30, "world_size": 1},
    ).save(folder)


def _cell(folder: Path, *, model: str, method: str, mix: str | None, seed: int | None, task: str) -> None:
    key = f"{_key(method, mix, seed)}-{task}"
    marks = [right(method, seed, task, doc) for doc in range(ITEMS)]
    items = [
        {
            "doc_id": doc,
            "prompt_digest": f"{doc:016x}",
            "generation": generation(method, task, doc),
            "finish_reason": "length" if doc == 2 else "stop",
            "n_tokens": 6,
            "target": f"target <i>{doc % 4}</i>",
            "extracted": json.dumps({"robust": None if doc == 3 else f"read {doc % 4}" if mark else "other"}),
            "correct": json.dumps({"robust": int(mark)}),
            "option_rank": None,
        }
        for doc, mark in enumerate(marks)
    ]
    CellRecord.model_validate(
        {
            "key": key,
            "status": "success",
            "identity": {"task": task},
            "checkpoint_key": _key(method, mix, seed),
            "model": model,
            "family": "llama",
            "method": method,
            "arm": "",
            "mix": mix,
            "seed": seed,
            "task": task,
            "split": "ID",
            "engine": "hf",
            "dtype": "float32",
            "limit": None,
            "n_items": ITEMS,
            "n_total": ITEMS,
            "exact_match": {"robust": 100 * sum(marks) / ITEMS},
            "unparsed": {"robust": 2.5},
            "truncated": 2.5,
            "samples_sha256": write_items(samples_path(folder, key), items),
        }
    ).save(folder)
