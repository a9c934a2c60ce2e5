"""Does the board of the run rebuild from its records, and has it every row?"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING

from infosteer_bench.smoke.check import Check, Problems, check

if TYPE_CHECKING:
    from infosteer_bench.runs.plan import Plan


def check_board(plan: Plan, run_dir: Path) -> Check:
    """One check over `run_dir`/leaderboard, published before."""
    expected = {
        (planned.model.id, planned.method.name, planned.spec.name if planned.spec else "", task)
        for planned in plan.checkpoints
        for task in planned.tasks
    }
    return check("leaderboard", lambda problems: examine_board(problems, run_dir / "leaderboard", expected=expected))


def examine_board(problems: Problems, board: Path, *, expected: set[tuple[str, str, str, str]]) -> str:
    """expected: (model, method, mix, task) of every row that is no mean."""
    from infosteer_bench.leaderboard.publish import check as stale_files

    problems.equal("files that its records do not give", expected=[], got=stale_files(board))
    with (board / "leaderboard.csv").open(encoding="utf-8", newline="") as handle:
        rows = list(csv.DictReader(handle))
    means = [row for row in rows if row["task"].startswith("mean:")]
    by_place = {(r["model"], r["method"], r["mix"], r["task"]): r for r in rows if r not in means}
    problems.equal("rows that are missing", expected=[], got=sorted(expected - by_place.keys()))
    problems.equal("rows that nobody asked for", expected=[], got=sorted(by_place.keys() - expected))
    partial = sorted(place for place, row in by_place.items() if not row["accuracy"] or row["complete"] != "true")
    problems.equal("rows without a number, or partial", expected=[], got=partial)
    entrants = {(model, method) for model, method, _, _ in expected}
    with_mean = {(row["model"], row["method"]) for row in means if row["task"] == "mean:all" and row["accuracy"]}
    problems.equal("methods without a mean over all tasks", expected=[], got=sorted(entrants - with_mean))
    return f"{len(by_place)} rows and {len(means)} means, rebuilt from its records byte for byte"
