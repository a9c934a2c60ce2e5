"""`miniworld`: pretrain the embedded models, audit their world for leaks, write its data files for people to read."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from infosteer_bench.errors import UserError, unknown_name


def miniworld_command(options: argparse.Namespace) -> int:
    """Exit 1 if `audit` finds a leak."""
    return {"build": _build, "audit": _audit, "data": _data}[options.action](options)


def _build(options: argparse.Namespace) -> int:
    from infosteer_bench.data.miniworld.architecture import FAMILIES
    from infosteer_bench.data.miniworld.build import Recipe, build_family

    if options.family != "all" and options.family not in FAMILIES:
        raise unknown_name("family", options.family, ("all", *FAMILIES))
    output = options.output or Path("miniworld")
    if output.exists() and not output.is_dir():
        raise UserError(f"--output {output} is a file", allowed="a folder, new or of an earlier build")
    for family in FAMILIES if options.family == "all" else (options.family,):
        for built in build_family(family, output, recipe=Recipe(), twin=options.twin, report=print):
            print(f"model {built.path}, record {built.path / 'build.json'}")
    return 0


def _audit(options: argparse.Namespace) -> int:
    from infosteer_bench.data.miniworld.audit import leak_audit
    from infosteer_bench.data.miniworld.baselines import baselines
    from infosteer_bench.data.miniworld.world import make_world
    from infosteer_bench.data.sources import MINIWORLD, open_source
    from infosteer_bench.records import write_atomic

    source = open_source(MINIWORLD)
    audit, floor = leak_audit(make_world(), source), baselines(source)
    for what, count in audit.counts.items():
        print(f"{count:6d}  {what}")
    print("\npercent right without knowing the world; test questions in a mix (with other numbers)\n")
    print(f"{'task':<15}{'items':>5}  {'majority':<20}{'options only':>12}{'random':>9}{'in a mix':>12}")
    for row in floor:
        majority = f"{row.majority:.2f} ({row.answer})"
        overlap = "{exact} ({numbers masked})".format_map(audit.overlap[row.task])
        right = f"{majority:<20}{_number(row.option_only):>12}{_number(row.random):>9}"
        print(f"{row.task:<15}{row.items:5d}  {right}{overlap:>12}")
    print(f"\nleaks: {len(audit.leaks) or 'none'}")
    if options.json is not None:
        content = {**asdict(audit), "baselines": [asdict(row) for row in floor]}
        write_atomic(options.json, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    if audit.leaks:
        more = f" (and {len(audit.leaks) - 1} more, see --json)" if len(audit.leaks) > 1 else ""
        print(f"infosteer-bench: leak: {' '.join(audit.leaks[0].split())}{more}", file=sys.stderr)
        return 1
    return 0


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _data(options: argparse.Namespace) -> int:
    from infosteer_bench.data.miniworld.files import contents
    from infosteer_bench.records import write_atomic

    output = options.output or Path("miniworld")
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UserError(f"--output {output} is not an empty folder", hint="give a new folder")
    for relative, content in contents().items():
        write_atomic(output / relative, content)
        print(output / relative)
    print(f"use it: infosteer-bench run ... --data-root {output if output.is_absolute() else f'./{output}'}")
    return 0
