"""`data`: fetch and verify the files that tasks and mixes need, or list what is there."""

from __future__ import annotations

import argparse
import sys

from infosteer_bench.errors import UserError


def data_command(options: argparse.Namespace) -> int:
    """One line per file: ok, stand-in or missing. Exit 1 if `fetch` could not get all."""
    from infosteer_bench.data.sources import open_source, pinned

    source = open_source(options.data_root)
    missing = 0
    for relative in sorted(pinned()):
        if options.action == "list" and not source.has(relative):
            print(f"missing   {relative}")
            continue
        try:
            file = source.get(relative)
        except UserError as error:
            missing += 1
            print(f"missing   {relative}")
            print(f"infosteer-bench: {error}", file=sys.stderr)
            continue
        print(f"{'stand-in ' if file.stand_in else 'ok       '} {relative}  sha256 {file.sha256[:16]}")
    return 1 if missing else 0
