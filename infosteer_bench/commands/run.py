"""`run`, `train` and `eval`: build the grid from the options, plan, do, say what came of it."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from infosteer_bench.api import Outcome, finish, run_folder
from infosteer_bench.commands.options import chosen_grid, settings_of
from infosteer_bench.errors import Unreachable, UserError
from infosteer_bench.grid import Grid
from infosteer_bench.runs.choose import checkpoint_grid, plan_grid
from infosteer_bench.runs.storage import Storage

if TYPE_CHECKING:
    from infosteer_bench.runs.inputs import Roots
    from infosteer_bench.runs.plan import Plan


def run_command(options: argparse.Namespace) -> int:
    """Train and evaluate what is not done yet, then build the leaderboard."""
    storage = Storage(options.keep_checkpoints, options.max_checkpoints_on_disk)
    grid = chosen_grid(options)
    folder = run_folder(options.output, grid)
    try:
        plan, roots = _plan(grid, options)
    except Unreachable as error:
        plan = _outline(grid, error) if options.dry_run else None
        if plan is None:
            raise
        return _dry_run(plan, folder, storage, options.tflops, known=False)
    if options.dry_run:
        return _dry_run(plan, folder, storage, options.tflops)
    policy = {"retries": options.retries, "max_silence_s": 60 * options.max_silence}
    return _told(
        finish(plan, folder, roots, storage=storage, workers=options.workers, quiet=options.quiet, **policy), options
    )


def train_command(options: argparse.Namespace) -> int:
    """Train the grid's checkpoints in this process, or in every rank of a launcher; evaluate nothing."""
    from infosteer_bench.runs.local import train_only

    grid = chosen_grid(options)
    folder = run_folder(options.output, grid)
    plan, roots = _plan(grid, options)
    failures = train_only(plan, folder, roots, quiet=options.quiet)
    if os.environ.get("RANK", "0") == "0":
        for planned in plan.checkpoints:
            if planned.method.trains:
                print(folder / "weights" / planned.key)
    return _ended(failures)


def eval_command(options: argparse.Namespace) -> int:
    """Evaluate one checkpoint folder: a grid of one model and the method `base`."""
    grid = checkpoint_grid(
        str(options.checkpoint), tasks=options.tasks, include_path=options.include_path, settings=settings_of(options)
    )
    folder = run_folder(options.output, grid)
    if options.parity:
        from infosteer_bench.commands.parity import parity
        from infosteer_bench.evaluation.engine import choose_backend

        if options.backend:
            raise UserError(
                f"--parity compares both engines, --backend {options.backend} names one", allowed="one of them"
            )
        choose_backend("vllm")  # refused before anything is read if it is not installed
        # which engine would answer by itself is no news here
        plan, roots = plan_grid(grid, data_root=options.data_root, model_root=options.model_root, quiet=True)
        return parity(plan, folder, roots, quiet=options.quiet)
    plan, roots = _plan(grid, options)
    # one checkpoint, and somebody who looks on
    return _told(finish(plan, folder, roots, storage=Storage(keep=True), workers=0, quiet=options.quiet), options)


def _plan(grid: Grid, options: argparse.Namespace) -> tuple[Plan, Roots]:
    return plan_grid(grid, data_root=options.data_root, model_root=options.model_root, quiet=options.quiet)


def _outline(grid: Grid, error: Unreachable) -> Plan | None:
    from infosteer_bench.runs.outline import outline

    plan = outline(grid)
    if plan is not None:
        print(f"infosteer-bench: {error}", file=sys.stderr)
        print(
            "note: planned by the catalog's sizes and upstream's numbers of rows; what is done cannot be told",
            file=sys.stderr,
        )
    return plan


def _dry_run(plan: Plan, run_dir: Path, storage: Storage, tflops: float | None, *, known: bool = True) -> int:
    """Print the plan, how far it is and what the rest will cost; exit 0.

    known: whether the plan's keys are those that records would have.
    """
    from infosteer_bench.runs.estimate import (
        REACHED,
        estimate,
        machine_throughput,
        measured_throughput,
        room,
        would_not_fit,
    )
    from infosteer_bench.runs.status import Status, read_status

    trained = sum(planned.method.trains for planned in plan.checkpoints)
    if known:
        found = read_status(plan, run_dir)
        print(f"checkpoints: {len(plan.checkpoints)} ({trained} to train, {len(found.records)} recorded)")
        print(f"cells: {plan.n_cells} (done {found.done}, missing {found.missing}, failed {found.failed})")
        print(f"stale cells of earlier settings: {found.stale}")
    else:
        found = Status(open_tasks={planned.key: list(planned.tasks) for planned in plan.checkpoints})
        print(f"checkpoints: {len(plan.checkpoints)} ({trained} to train)")
        print(f"cells: {plan.n_cells}")
    for problem in found.problems:
        print(f"damaged: {problem}")
    cost = estimate(plan, found, storage)
    if found.missing:
        measured = measured_throughput(plan, found.records)
        if tflops:
            speed, why = tflops * 1e12, "as stated"
        elif measured:
            speed, why = measured, "as its finished trainings reached"
        else:
            speed = REACHED * machine_throughput(plan.grid.train.precision)
            why = f"{REACHED:.0%} of what large matrix products reach here; --tflops states another"
        train_h, answer_h = cost.hours(speed)
        print(f"to train: {cost.n_train} checkpoints, about {cost.trained_tokens / 1e6:.1f} million tokens")
        print(
            f"time: about {train_h:.2g} h of training, at most {answer_h:.2g} h of answering, on one device at "
            f"{speed / 1e12:.3g} TFLOP/s ({why})"
        )
        print(
            f"space: {cost.disk_bytes / 1e9:.2f} GB of checkpoints at once, {cost.memory_bytes / 1e9:.2f} GB of "
            "memory for weights, gradients and optimizer"
        )
        for line in would_not_fit(cost, room(run_dir)):
            print(f"would not fit: {line}")
    for planned in plan.checkpoints:
        left, total = len(found.open_tasks[planned.key]), len(planned.tasks)
        print(f"  {planned.label}: {f'{total - left}/{total} cells done' if known else f'{total} cells'}")
    return 0


def _told(outcome: Outcome, options: argparse.Namespace) -> int:
    """Say what came of a run, with its board if that is new; exit 1 if something failed."""
    if outcome.made is not None and not options.quiet:
        from infosteer_bench.leaderboard.views.terminal import show

        show(outcome.made)
        print()
    if outcome.repaired:
        print(f"repaired: {len(outcome.repaired)} file(s) that did not verify, named in {outcome.folder / 'run.log'}")
    board = "none, nothing is done" if outcome.board is None else outcome.board / "index.html"
    print(f"{outcome.done} of {outcome.planned} cells done; leaderboard: {board}")
    return _ended(outcome.failures)


def _ended(failures: Iterable[str]) -> int:
    code = 0
    for failure in failures:
        print(f"infosteer-bench: failed: {failure}", file=sys.stderr)
        code = 1
    return code
