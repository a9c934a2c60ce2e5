"""`leaderboard`: rebuild boards from records alone, or check that committed boards are what their records say."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from infosteer_bench.errors import UserError


def leaderboard_command(options: argparse.Namespace) -> int:
    """With --runs: publish that run. Without: rebuild (or --check) every board below --output or leaderboards/."""
    from infosteer_bench.leaderboard.publish import board_dirs, check, publish, rebuild

    if options.runs is not None:
        if options.check:
            raise UserError("--check looks at boards, not at runs", hint="leaderboard --check --output BOARD_FOLDER")
        if not (options.runs / "cells").is_dir():
            raise UserError(f"--runs {options.runs} holds no records", allowed="a run's folder, such as runs/laptop")
        output = options.output or options.runs / "leaderboard"
        if output.exists() and not output.is_dir():
            raise UserError(f"--output: {output} is a file", allowed="a folder")
        print(publish(options.runs, output) / "leaderboard.md")
        return 0
    root = options.output or Path("leaderboards")
    boards = board_dirs(root)
    if not boards:
        raise UserError(f"{root} holds no leaderboard", allowed="a folder with records/cells.jsonl, or one of such")
    differing: list[str] = []
    for board in boards:
        if options.check:
            differing += [f"{board.name}: {problem}" for problem in check(board)]
        else:
            rebuild(board)
        print(f"{'checked' if options.check else 'rebuilt'} {board}")
    for problem in differing:
        print(f"infosteer-bench: {problem}", file=sys.stderr)
    return 1 if differing else 0
