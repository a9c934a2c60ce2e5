"""`doctor`: is this machine ready, and for a grid too? Each line ok, warn or fail, with the fix."""

from __future__ import annotations

import argparse
from typing import Any


def doctor_command(options: argparse.Namespace) -> int:
    """Print findings as they come; exit 2 if anything failed."""
    from infosteer_bench.commands.options import chosen_grid
    from infosteer_bench.runs.doctor import examine
    from infosteer_bench.runs.inputs import Roots

    grid = chosen_grid(options) if options.grid else None
    counts: dict[str, int] = {"ok": 0, "warn": 0, "fail": 0}
    roots: Any = Roots(options.data_root, options.model_root)
    for finding in examine(grid, roots, options.output, start_vllm=options.start_vllm):
        counts[finding.state] += 1
        fix = f"; next: {finding.fix}" if finding.fix else ""
        print(f"{finding.state:<4}  {finding.text}{fix}", flush=True)
    print(f"{counts['ok']} ok, {counts['warn']} warnings, {counts['fail']} failed")
    return 2 if counts["fail"] else 0
