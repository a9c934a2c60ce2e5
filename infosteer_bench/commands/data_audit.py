"""`data audit`: test questions that stand in a training mix, or in several tests; for a data root, a board or a run."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from infosteer_bench.errors import UserError
from infosteer_bench.grid import BUILTIN_MIXES, MixSpec

if TYPE_CHECKING:
    from collections.abc import Iterable

    from infosteer_bench.data.sources import DataSource, SourceFile
    from infosteer_bench.leaderboard.store.compact import BoardRecords
    from infosteer_bench.records import DataAudit


def audit_command(options: argparse.Namespace) -> int:
    """Print what overlaps; with --board keep it beside the records that were made from these data. Exit 0."""
    from infosteer_bench.data.audit import audit_data
    from infosteer_bench.data.roots import open_source
    from infosteer_bench.records import write_atomic
    from infosteer_bench.tasks.catalog import read_tasks

    if options.json is not None and options.json.is_dir():
        raise UserError(f"--json: {options.json} is a folder", allowed="a file, which may not exist yet")
    board = None if options.board is None else _records(options.board)
    root, specs, max_examples = options.data_root, list(BUILTIN_MIXES.values()), None
    if board is not None:
        specs, max_examples = _mixes_of(board)
        root = root or _own_root(board)
    source = open_source(root)
    answered = None if board is None else {cell.task for cell in board.cells}
    files = {info.name: info.data_file for info in read_tasks().values() if answered is None or info.name in answered}
    tests, missing = _tests(files, source)
    present, without = _mixes(specs, source)
    audit = audit_data(source, mixes=present, tests=tests, max_examples=max_examples)
    if board is not None:
        _check(audit, board)
    for line in (*_in_mixes(audit, present), "", *_between(audit), "", *_repeats(audit)):
        print(line)
    for line in (*missing, *without):
        print(f"missing, so not looked at: {line}")
    if options.json is not None:
        write_atomic(options.json, json.dumps(audit.model_dump(mode="json"), indent=1, ensure_ascii=False) + "\n")
    if options.board is not None:
        _keep(audit, options.board)
    return 0


# --- what there is to compare -----------------------------------------------------------------------------------


def _tests(files: dict[str, str | None], source: DataSource) -> tuple[dict[str, SourceFile], list[str]]:
    """The test files that are there, by task, and a line for each that is not."""
    known = {task: relative for task, relative in files.items() if relative is not None}
    missing = [f"{relative}, the test of {task}" for task, relative in known.items() if not source.has(relative)]
    return {task: source.get(relative) for task, relative in known.items() if source.has(relative)}, missing


def _mixes(specs: Iterable[MixSpec], source: DataSource) -> tuple[list[MixSpec], list[str]]:
    """The mixes that have a source here. A user's own file that is not here leaves its whole mix out."""
    from infosteer_bench.data.mixes import SOURCES, source_file

    present: list[MixSpec] = []
    missing: list[str] = []
    for spec in specs:
        own = [name for name in spec.sources if name not in SOURCES and not Path(name).expanduser().is_file()]
        there = [] if own else [name for name in spec.sources if source_file(name, source) is not None]
        if there:
            present.append(spec)
        absent = [name for name in spec.sources if name not in there]
        if absent:
            missing.append(f"{', '.join(absent)} of mix {spec.name}" + ("" if there else ", so all of it"))
    return present, missing


# --- a board or a run --------------------------------------------------------------------------------------------


def _records(folder: Path) -> BoardRecords:
    """What a board or a run is made of, without an audit that it may have."""
    from infosteer_bench.leaderboard.store import compact

    if _is_run(folder):
        return compact.collect(folder, name=None, audited=False)
    return compact.load(folder, audited=False)


def _is_run(folder: Path) -> bool:
    return (folder / "cells").is_dir()


def _own_root(board: BoardRecords) -> Path | None:
    """Where its data come from if they have a name of their own, as the mini-world's have."""
    name = (board.grid or {}).get("data_root")
    return Path(name) if name else None


def _mixes_of(board: BoardRecords) -> tuple[list[MixSpec], int | None]:
    """The mixes its checkpoints were trained on, and how many rows of them at most."""
    specs: dict[str, MixSpec] = {}
    limits: set[int | None] = set()
    for record in board.checkpoints:
        if record.mix is None or not record.data.get("sources"):
            continue
        tasks = sorted({cell.task for cell in board.cells if cell.mix == record.mix})
        sources = (*record.data["sources"], *record.data.get("missing", ()))
        specs.setdefault(record.mix, MixSpec(name=record.mix, sources=sources, tasks=tuple(tasks)))
        limits.add(record.identity.get("train", {}).get("max_examples"))
    if len(limits) > 1:
        raise UserError(
            f"board {board.name} has checkpoints of several train.max_examples: {sorted(map(str, limits))}",
            hint="run its command again: a run keeps the audit of its own data",
        )
    return list(specs.values()), limits.pop() if limits else None


def _check(audit: DataAudit, board: BoardRecords) -> None:
    """Raise UserError unless these are the data behind the board: its test files, and its mixes row by row."""
    from infosteer_bench.leaderboard.store.compact import other_tests

    other = other_tests(audit, board.cells)
    wrong = f"the test of {other[0]} is another file than was answered" if other else None
    for record in board.checkpoints:
        of_mix = audit.mixes.get(record.mix or "")
        sources = record.data.get("sources")
        if of_mix is None or not sources or wrong:
            continue
        known = {name: of_source["sha256"] for name, of_source in sources.items()}
        rows = sum(of_source["rows"] for of_source in sources.values())
        if (known, rows) != (of_mix.sources, of_mix.rows):
            wrong = f"mix {record.mix} holds other rows than were trained on"
    if wrong:
        raise UserError(
            f"these are not the data behind {board.name}: {wrong}", hint="give --data-root with the data of that run"
        )


def _keep(audit: DataAudit, folder: Path) -> None:
    from infosteer_bench.leaderboard.store import compact
    from infosteer_bench.records import write_atomic, write_sealed

    if _is_run(folder):
        write_sealed(folder / compact.RUN_AUDIT_FILE, audit.model_dump(mode="json"))
        print(f"kept in {folder / compact.RUN_AUDIT_FILE}; next: leaderboard --runs {folder}")
    else:
        write_atomic(folder / compact.AUDIT_FILE, compact.audit_text(audit))
        print(f"kept in {folder / compact.AUDIT_FILE}; next: leaderboard --output {folder}")


# --- for reading -------------------------------------------------------------------------------------------------


def _in_mixes(audit: DataAudit, specs: Iterable[MixSpec]) -> list[str]:
    lines = [
        "test items whose question stands in a training mix: in the same words, the same but for numbers, and in the",
        "same words in rows held out of training; tests that a mix does not serve are shown where anything was found",
        "",
        f"{'mix':<16}{'rows':>7}  {'test':<15}{'items':>6}{'exact':>7}{'masked':>8}{'held out':>10}",
    ]
    for spec in specs:
        found = audit.mixes[spec.name]
        for task, test in audit.tests.items():
            counts = [len(lists.get(task, ())) for lists in (found.exact, found.masked, found.development)]
            if task in spec.tasks or any(counts):
                numbers = f"{test.items:6d}{counts[0]:7d}{counts[1]:8d}{counts[2]:10d}"
                lines.append(f"{spec.name:<16}{found.rows:7d}  {task:<15}{numbers}")
    return lines


def _between(audit: DataAudit) -> list[str]:
    lines = [
        "different questions that two tests share: in the same words, and after masking, which may make several one",
        f"{'':<40}{'exact':>7}{'once masked':>13}",
    ]
    lines += [f"{pair.tests[0]:<20}{pair.tests[1]:<20}{pair.exact:7d}{pair.masked:13d}" for pair in audit.shared]
    return lines if audit.shared else [*lines, "none"]


def _repeats(audit: DataAudit) -> list[str]:
    """Of every test: items that an earlier item asks in the same words, there or in an earlier test."""
    own: dict[str, int] = {}
    earlier: dict[str, int] = {}
    for same in audit.repeated:
        seen: set[str] = set()
        for place, (task, _) in enumerate(same):
            own[task] = own.get(task, 0) + (task in seen)
            earlier[task] = earlier.get(task, 0) + (place > 0)
            seen.add(task)
    lines = [f"{'items that repeat an earlier item':<40}{'of the same test':>17}{'of any':>8}"]
    lines += [f"{task:<40}{own[task]:17d}{earlier[task]:8d}" for task in audit.tests if earlier.get(task)]
    return lines if any(earlier.values()) else [*lines, "none"]
