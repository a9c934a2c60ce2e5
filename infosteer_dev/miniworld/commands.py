"""`miniworld build` and `miniworld audit`, as `infosteer_bench.commands.miniworld` calls them in a clone."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from infosteer_bench.data.miniworld.world import make_world
from infosteer_bench.data.roots import MINIWORLD, open_source
from infosteer_bench.errors import UserError, unknown_name
from infosteer_bench.records import write_atomic
from infosteer_dev.miniworld import audit as auditing
from infosteer_dev.miniworld import build as building
from infosteer_dev.miniworld.architecture import FAMILIES
from infosteer_dev.miniworld.baselines import baselines


def build(options: argparse.Namespace) -> int:
    """Pretrain models and twins; resumes."""
    if options.family != "all" and options.family not in FAMILIES:
        raise unknown_name("family", options.family, ("all", *FAMILIES))
    output = options.output or Path("miniworld")
    if output.exists() and not output.is_dir():
        raise UserError(f"--output {output} is a file", allowed="a folder, new or of an earlier build")
    for family in FAMILIES if options.family == "all" else (options.family,):
        for built in building.build_family(family, output, recipe=building.Recipe(), twin=options.twin, report=print):
            print(f"model {built.path}, record {built.path / 'build.json'}")
    return 0


def audit(options: argparse.Namespace) -> int:
    """Look for leaks, list baselines. Exit 1 if a leak is found."""
    source = open_source(MINIWORLD)
    found, floor = auditing.leak_audit(make_world(), source), baselines(source)
    for what, count in found.counts.items():
        print(f"{count:6d}  {what}")
    print("\npercent right without knowing the world; test questions in a mix (with other numbers)\n")
    print(f"{'task':<15}{'items':>5}  {'majority':<20}{'options only':>12}{'random':>9}{'in a mix':>12}")
    for row in floor:
        majority = f"{row.majority:.2f} ({row.answer})"
        overlap = "{exact} ({numbers masked})".format_map(found.overlap[row.task])
        right = f"{majority:<20}{_number(row.option_only):>12}{_number(row.random):>9}"
        print(f"{row.task:<15}{row.items:5d}  {right}{overlap:>12}")
    print(f"\nleaks: {len(found.leaks) or 'none'}")
    if options.json is not None:
        content = {**asdict(found), "baselines": [asdict(row) for row in floor]}
        write_atomic(options.json, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    if found.leaks:
        more = f" (and {len(found.leaks) - 1} more, see --json)" if len(found.leaks) > 1 else ""
        print(f"infosteer-bench: leak: {' '.join(found.leaks[0].split())}{more}", file=sys.stderr)
        return 1
    return 0


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
