"""`data`: fetch, verify or list the files that tasks and mixes need; write the development split; find overlaps."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from infosteer_bench.errors import Unreachable, UserError

if TYPE_CHECKING:
    from infosteer_bench.data.sources import DataSource, SourceFile


def data_command(options: argparse.Namespace) -> int:
    """One line per file: ok, stand-in, to fetch or missing. Exit 1 if `fetch` could not get all."""
    from infosteer_bench.data.roots import open_source

    if options.action == "audit":
        from infosteer_bench.commands.data_audit import audit_command

        return audit_command(options)
    unused = [f"--{name}" for name in ("board", "json") if getattr(options, name) is not None]
    if unused:
        raise UserError(f"data {options.action} takes no {' and no '.join(unused)}", allowed="only with data audit")
    source = open_source(options.data_root)
    if options.action == "dev":
        return _development(source, options.output)
    return _listed(source) if options.action == "list" else _fetched(source)


def _listed(source: DataSource) -> int:
    """What is on this machine; nothing is fetched."""
    for relative in sorted(source.files()):
        file = source.at_hand(relative)
        state = "missing  " if not source.has(relative) else "to fetch "
        print(_line(file) if file else f"{state} {relative}")
    return 0


def _fetched(source: DataSource) -> int:
    missing = 0
    for relative in sorted(source.files()):
        try:
            print(_line(source.get(relative)))
        except Unreachable:
            raise  # nor will the others be reached
        except UserError as error:
            missing += 1
            print(f"missing   {relative}")
            print(f"infosteer-bench: {error}", file=sys.stderr)
    return 1 if missing else 0


def _line(file: SourceFile) -> str:
    return f"{'stand-in ' if file.stand_in else 'ok       '} {file.relative}  sha256 {file.sha256[:16]}"


def _development(source: DataSource, output: Path | None) -> int:
    from infosteer_bench.data.development import write_development

    if output is None:
        raise UserError("data dev needs --output", allowed="a new folder for the data root it writes")
    for task, count in write_development(source, output).items():
        print(f"{task}: {count} items")
    print(f"use it: infosteer-bench run ... --data-root {output}")
    return 0
