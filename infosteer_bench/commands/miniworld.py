"""`miniworld`: pretrain the embedded models, audit their world for leaks, write its data files for people to read."""

from __future__ import annotations

import argparse
from pathlib import Path

from infosteer_bench.errors import UserError


def miniworld_command(options: argparse.Namespace) -> int:
    """Exit 1 if `audit` finds a leak. `build` and `audit` are not run-time code: a clone of the repository has them."""
    if options.action == "data":
        return _data(options)
    try:
        from infosteer_dev.miniworld import commands
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("infosteer_dev"):
            raise
        raise UserError(
            f"miniworld {options.action} is not part of the installed package",
            hint="clone the repository and install it with pip install -e .",
        ) from None
    return {"build": commands.build, "audit": commands.audit}[options.action](options)


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
