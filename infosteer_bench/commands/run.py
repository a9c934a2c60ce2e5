"""`run`, `train` and `eval`: build the grid from the options, plan, do, publish."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infosteer_bench.device import has_cuda
from infosteer_bench.errors import UserError
from infosteer_bench.grid import Grid, MethodArm, load_grid
from infosteer_bench.methods import register_file, select_methods
from infosteer_bench.runs.storage import Storage

if TYPE_CHECKING:
    from infosteer_bench.runs.inputs import Roots
    from infosteer_bench.runs.plan import Plan


def run_command(options: argparse.Namespace) -> int:
    """Train and evaluate what is not done yet, then build the leaderboard."""
    if options.keep_checkpoints and options.max_checkpoints_on_disk:
        raise UserError("--keep-checkpoints and --max-checkpoints-on-disk exclude one another", allowed="one of them")
    grid = chosen_grid(options)
    run_dir = _run_dir(options, grid)
    plan, roots = _plan(grid, options)
    storage = Storage(options.keep_checkpoints, options.max_checkpoints_on_disk)
    if options.dry_run:
        return _dry_run(plan, run_dir, storage, options.tflops)
    return _run(plan, run_dir, roots, options, storage)


def train_command(options: argparse.Namespace) -> int:
    """Train the grid's checkpoints in this process, or in every rank of a launcher; evaluate nothing."""
    from infosteer_bench.runs.local import train_only

    grid = chosen_grid(options)
    run_dir = _run_dir(options, grid)
    plan, roots = _plan(grid, options)
    failures = train_only(plan, run_dir, roots, quiet=options.quiet)
    if os.environ.get("RANK", "0") == "0":
        for planned in plan.checkpoints:
            if planned.method.trains:
                print(run_dir / "weights" / planned.key)
    return _ended(failures)


def eval_command(options: argparse.Namespace) -> int:
    """Evaluate one checkpoint folder: a grid of one model and the method `base`."""
    settings = [*options.set, f"eval.backend={options.backend}"] if options.backend else list(options.set)
    if options.limit:
        settings.append(f"eval.limit={options.limit}")
    grid = load_grid("eval", overrides=settings)
    update: dict[str, Any] = {"models": (str(options.checkpoint),), "tasks": tuple(_names(options.tasks, "tasks"))}
    if options.include_path:
        update["include_path"] = str(options.include_path)
    grid = grid.model_copy(update=update)
    run_dir = _run_dir(options, grid)
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
        return parity(plan, run_dir, roots, quiet=options.quiet)
    plan, roots = _plan(grid, options)
    return _run(plan, run_dir, roots, options, Storage(keep=True))


def chosen_grid(options: argparse.Namespace) -> Grid:
    """The grid that the options ask for. Raises UserError."""
    settings = list(options.set)
    if options.limit:
        settings.append(f"eval.limit={options.limit}")
    if options.backend:
        settings.append(f"eval.backend={options.backend}")
    models = _names(options.models, "models")
    grid = load_grid(options.grid or _default_grid(models), overrides=settings)
    for path in grid.method_files:
        register_file(Path(path))
    names = select_methods(_names(options.methods, "methods"), grid_methods=[arm.name for arm in grid.methods])
    arms = [arm for arm in grid.methods if arm.name in names]
    arms += [MethodArm(name=name) for name in names if name not in {arm.name for arm in grid.methods}]
    return grid.model_copy(
        update={
            "methods": tuple(arms),
            "models": _models(models, grid),
            "tasks": tuple(_names(options.tasks, "tasks")) if options.tasks != "all" else grid.tasks,
            "seeds": options.seeds or grid.seeds,
        }
    )


def _models(texts: list[str], grid: Grid) -> tuple[str, ...]:
    from infosteer_bench.models.catalog import select_models

    return tuple(select_models(texts, grid_models=grid.models))


def _names(text: str, option: str) -> list[str]:
    names = [part.strip() for part in text.split(",")]
    if not all(names):
        raise UserError(f"--{option} {text!r} holds an empty name", allowed="names by comma, without blanks between")
    return names


def _default_grid(models: list[str]) -> str:
    """The paper's grid on a CUDA GPU; without one the embedded one, or `laptop` for models that are not of it."""
    if has_cuda():
        print(
            "grid paper: a CUDA GPU was found (--grid laptop is the small one, embedded the smallest)", file=sys.stderr
        )
        return "paper"
    embedded = load_grid("embedded")
    if set(_models(models, embedded)) <= set(embedded.models):
        print(
            "grid embedded: no CUDA GPU was found, so the mini-world that comes with the package is run "
            "(small real models: --grid laptop)",
            file=sys.stderr,
        )
        return "embedded"
    print("grid laptop: no CUDA GPU was found, and the paper's grid needs one", file=sys.stderr)
    return "laptop"


def _run_dir(options: argparse.Namespace, grid: Grid) -> Path:
    """The folder of this run; refused before anything is looked up if it cannot be one."""
    for path in (options.output, options.output / grid.name):
        if path.exists() and not path.is_dir():
            raise UserError(f"--output: {path} is a file", allowed="a folder, which may not exist yet")
    return options.output / grid.name


def _plan(grid: Grid, options: argparse.Namespace) -> tuple[Plan, Roots]:
    return plan_grid(grid, data_root=options.data_root, model_root=options.model_root, quiet=options.quiet)


def plan_grid(grid: Grid, *, data_root: Path | None, model_root: Path | None, quiet: bool) -> tuple[Plan, Roots]:
    """Look up what the grid names and plan it; unless quiet, say what there is to do. Raises UserError."""
    from infosteer_bench.data.roots import MINIWORLD
    from infosteer_bench.runs.inputs import Roots, resolve_inputs
    from infosteer_bench.runs.plan import build_plan

    if data_root is not None:  # a folder's path is nobody else's business, so the grid keeps the name only
        grid = grid.model_copy(update={"data_root": "miniworld" if data_root == MINIWORLD else None})
    root = data_root or (Path(grid.data_root) if grid.data_root else None)
    roots = Roots(data_root=root, model_root=model_root)
    inputs = resolve_inputs(grid, roots)
    plan = build_plan(grid, inputs)
    if not quiet:
        print(
            f"grid {grid.name}: {len(plan.inputs.models)} models, {len(plan.checkpoints)} checkpoints, "
            f"{plan.n_cells} cells; answers by {inputs.engine}: {inputs.engine_reason}",
            file=sys.stderr,
        )
        for note in _notes(plan):
            print(f"note: {note}", file=sys.stderr)
    return plan, roots


def _notes(plan: Plan) -> list[str]:
    """What a reader of the board will want to have known before."""
    notes: list[str] = []
    if plan.grid.needs_cuda and not has_cuda():
        notes.append(f"grid {plan.grid.name} is sized for CUDA GPUs; none was found")
    mixes = {mix.name: mix for mix in plan.inputs.mixes.values()}
    for mix in mixes.values():
        if mix.missing:
            notes.append(f"mix {mix.name}: no training file for {', '.join(mix.missing)}; those tasks count as OOD")
    files = {name for mix in mixes.values() for name in mix.stand_ins}
    files |= {file.relative for file in plan.inputs.test_files.values() if file.stand_in}
    if files:
        notes.append(f"stand-ins for upstream data, named in every record: {', '.join(sorted(files))}")
    return notes


def _dry_run(plan: Plan, run_dir: Path, storage: Storage, tflops: float | None) -> int:
    """Print the plan, how far it is and what the rest will cost; exit 0."""
    from infosteer_bench.runs.estimate import (
        REACHED,
        estimate,
        machine_throughput,
        measured_throughput,
        room,
        would_not_fit,
    )
    from infosteer_bench.runs.status import read_status

    found = read_status(plan, run_dir)
    trained = sum(planned.method.trains for planned in plan.checkpoints)
    print(f"checkpoints: {len(plan.checkpoints)} ({trained} to train, {len(found.records)} recorded)")
    print(f"cells: {plan.n_cells} (done {found.done}, missing {found.missing}, failed {found.failed})")
    print(f"stale cells of earlier settings: {found.stale}")
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
        left = found.open_tasks[planned.key]
        print(f"  {planned.label}: {len(planned.tasks) - len(left)}/{len(planned.tasks)} cells done")
    return 0


def _run(plan: Plan, run_dir: Path, roots: Roots, options: argparse.Namespace, storage: Storage) -> int:
    from infosteer_bench.leaderboard.publish import publish
    from infosteer_bench.runs.local import run
    from infosteer_bench.runs.pool import RetryPolicy

    retry_policy, workers = None, 0  # `eval` has one checkpoint and somebody who looks on
    if options.command == "run":
        retry_policy, workers = RetryPolicy(options.retries, 60 * options.max_silence), options.workers
    outcome = run(
        plan, run_dir, roots, quiet=options.quiet, storage=storage, workers=workers, retry_policy=retry_policy
    )
    board = publish(run_dir, run_dir / "leaderboard") / "leaderboard.md" if outcome.done else "none, nothing is done"
    if outcome.repaired:
        print(f"repaired: {len(outcome.repaired)} file(s) that did not verify, named in {run_dir / 'run.log'}")
    print(f"{outcome.done} of {plan.n_cells} cells done; leaderboard: {board}")
    return _ended(outcome.failures)


def _ended(failures: tuple[str, ...] | list[str]) -> int:
    for failure in failures:
        print(f"infosteer-bench: failed: {failure}", file=sys.stderr)
    return 1 if failures else 0
