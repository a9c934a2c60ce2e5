"""What the package does for those who call it from Python; the commands `run` and `eval` are made of it.

import infosteer_bench as ib

outcome = ib.run("embedded", output="runs")
ib.read_board(outcome.board)
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from infosteer_bench.errors import UserError
from infosteer_bench.grid import Grid, load_grid
from infosteer_bench.processes import quiet_libraries
from infosteer_bench.runs.choose import checkpoint_grid, plan_grid
from infosteer_bench.runs.storage import Storage

if TYPE_CHECKING:
    from infosteer_bench.leaderboard.numbers.board import Board
    from infosteer_bench.runs.inputs import Roots
    from infosteer_bench.runs.plan import Plan
    from infosteer_bench.runs.runner import Runner


@dataclass(frozen=True)
class Outcome:
    """What a run ended with.

    done, planned: cells. failures: a line for each checkpoint or cell that failed. repaired: a line for each file that
    did not verify and does now. folder: the run's. board: the board's folder, None if nothing is done. made: the board
    if it was made now, None if it was finished before.
    """

    done: int
    planned: int
    failures: tuple[str, ...]
    repaired: tuple[str, ...]
    folder: Path
    board: Path | None
    made: Board | None = field(default=None, repr=False, compare=False)


def run(
    grid: Grid | str | Path,
    *,
    output: Path | str = "runs",
    data_root: Path | str | None = None,
    model_root: Path | str | None = None,
    workers: int | None = None,
    keep_checkpoints: bool = False,
    max_checkpoints_on_disk: int | None = None,
    retries: int = 2,
    max_silence_s: float | None = 3600.0,
    quiet: bool = False,
    runner: Runner | None = None,
) -> Outcome:
    """Train and answer what of a grid is not done yet, and build its board; the same call again goes on.

    grid: from `load_grid`, or its name or file. output: the run lies in a folder of the grid's name below it. runner:
    takes the jobs in place of processes of this machine (runs/runner.py). The other arguments are the command's options
    of these names (docs/reference.md). Raises UserError for what the caller can correct, before any work is done.
    """
    quiet_libraries()
    for name, value, least in (("workers", workers, 0), ("max_checkpoints_on_disk", max_checkpoints_on_disk, 1)):
        if value is not None and value < least:
            raise UserError(f"{name}={value}", allowed=f"None, or a whole number of at least {least}")
    storage = Storage(keep_checkpoints, max_checkpoints_on_disk)
    chosen = grid if isinstance(grid, Grid) else load_grid(str(grid))
    folder = run_folder(Path(output), chosen)
    plan, roots = plan_grid(chosen, data_root=_path(data_root), model_root=_path(model_root), quiet=quiet)
    return finish(
        *(plan, folder, roots),
        storage=storage,
        workers=workers,
        retries=retries,
        max_silence_s=max_silence_s,
        quiet=quiet,
        runner=runner,
    )


def evaluate(
    checkpoint: Path | str,
    *,
    tasks: str = "all",
    output: Path | str = "runs",
    include_path: Path | str | None = None,
    data_root: Path | str | None = None,
    model_root: Path | str | None = None,
    settings: Iterable[str] = (),
    quiet: bool = False,
) -> Outcome:
    """Have a checkpoint folder answer tasks; nothing is trained.

    tasks: names or groups by comma. settings: KEY=VALUE as after --set, such as "eval.limit=20". Raises UserError.
    """
    quiet_libraries()
    grid = checkpoint_grid(str(checkpoint), tasks=tasks, include_path=_path(include_path), settings=settings)
    folder = run_folder(Path(output), grid)
    plan, roots = plan_grid(grid, data_root=_path(data_root), model_root=_path(model_root), quiet=quiet)
    return finish(plan, folder, roots, storage=Storage(keep=True), workers=0, quiet=quiet)


def run_folder(output: Path, grid: Grid) -> Path:
    """The folder of a run. Raises UserError before anything is looked up if it cannot be one."""
    for path in (output, output / grid.name):
        if path.exists() and not path.is_dir():
            raise UserError(f"--output: {path} is a file", allowed="a folder, which may not exist yet")
    return output / grid.name


def finish(
    plan: Plan,
    folder: Path,
    roots: Roots,
    *,
    storage: Storage,
    workers: int | None = None,
    retries: int = 2,
    max_silence_s: float | None = None,
    quiet: bool = False,
    runner: Runner | None = None,
) -> Outcome:
    """Do what of a plan is open, and build the board."""
    from infosteer_bench.leaderboard import publish_run
    from infosteer_bench.runs.local import do
    from infosteer_bench.runs.schedule import RetryPolicy

    policy = RetryPolicy(retries, max_silence_s)
    result = do(plan, folder, roots, quiet=quiet, storage=storage, workers=workers, retry_policy=policy, runner=runner)
    board = folder / "leaderboard" if result.done else None
    made = publish_run(folder, board) if board else None
    return Outcome(result.done, plan.n_cells, result.failures, result.repaired, folder, board, made)


def _path(given: Path | str | None) -> Path | None:
    return None if given is None else Path(given)
