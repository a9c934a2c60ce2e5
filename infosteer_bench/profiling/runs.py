"""What a large grid costs beside its work: planning it, finding it finished, building its board.

    found = profile_runs(cells=900, items=1000, planned_cells=10_000)

A finished run is written with invented answers into a temporary folder, under the keys of a real plan (the embedded
grid with more seeds); then the command line is timed on it, from its start to its end.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from infosteer_bench import provenance
from infosteer_bench.errors import CellFailure
from infosteer_bench.records import CellRecord, CheckpointRecord, digest, samples_path, write_items
from infosteer_bench.runs.plan import Plan, PlannedCheckpoint, cell_identity, cell_key, task_split

GRID = "embedded"
_WORDS = ("the", "answer", "is", "apples", "seven", "because", "he", "gave", "some", "away", "and", "then", "left")


def profile_runs(
    *, cells: int, items: int, planned_cells: int, on_progress: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """Seconds of whole commands, imports included. cells, items, planned_cells: at least so many.

    Raises CellFailure if a command fails or does anything but what it is timed for.
    """
    with tempfile.TemporaryDirectory(prefix="infosteer-profile-") as name:
        folder = Path(name)
        seeds = _seeds(cells)
        plan = _plan(seeds)
        on_progress(f"inventing {plan.n_cells} cells of {items} items")
        write_finished(plan, folder / "runs" / GRID, items=items)
        run = ["run", "--grid", GRID, "--seeds", seeds, "--quiet"]
        found: dict[str, Any] = {"cells": plan.n_cells, "items": items}
        on_progress("leaderboard")
        found["leaderboard_s"] = _timed(["leaderboard", "--runs", f"runs/{GRID}"], folder)[0]
        on_progress("its finished run again")
        found["first_rerun_s"], _ = _timed(run, folder)  # nothing of it is in the cache yet
        found["rerun_s"], out = _timed(run, folder)
        if f"{plan.n_cells} of {plan.n_cells} cells done" not in out:
            raise CellFailure(f"the finished run was not found finished: {out.strip()}")
        seeds = _seeds(planned_cells)
        found["planned_cells"] = _plan(seeds).n_cells
        on_progress(f"a plan of {found['planned_cells']} cells")
        found["plan_s"], _ = _timed(["run", "--grid", GRID, "--seeds", seeds, "--dry-run", "--output", "none"], folder)
        return {**found, "provenance": provenance.collect()}


def write_finished(plan: Plan, run_dir: Path, *, items: int) -> None:
    """Records and items of a run of `plan` that is done; what was answered is invented."""
    rng = random.Random(0)  # noqa: S311
    for planned in plan.checkpoints:
        weights = digest(["invented", planned.key], 64)
        _checkpoint(planned, weights).save(run_dir)
        for task in planned.tasks:
            identity = cell_identity(plan, planned, task, weights)
            key = cell_key(planned.key, task, identity)
            rows = [_item(rng, doc) for doc in range(items)]
            right = sum(json.loads(row["correct"])["robust"] for row in rows)
            CellRecord(
                key=key,
                status="success",
                identity=identity,
                checkpoint_key=planned.key,
                weight_digest=weights,
                model=planned.model.id,
                family=planned.model.family.name,
                method=planned.method.name,
                arm=planned.method.arm,
                mix=planned.spec.name if planned.spec else None,
                seed=planned.seed,
                task=task,
                split=task_split(plan, planned, task),
                engine=plan.inputs.engine,
                dtype=plan.grid.eval.dtype,
                limit=None,
                n_items=items,
                n_total=items,
                exact_match={"robust": 100 * right / items},
                unparsed={"robust": 0.0},
                samples_sha256=write_items(samples_path(run_dir, key), rows),
            ).save(run_dir)


def _checkpoint(planned: PlannedCheckpoint, weights: str) -> CheckpointRecord:
    return CheckpointRecord(
        key=planned.key,
        status="success",
        identity=planned.identity,
        model=planned.model.id,
        family=planned.model.family.name,
        method=planned.method.name,
        arm=planned.method.arm,
        mix=planned.spec.name if planned.spec else None,
        seed=planned.seed,
        weight_digest=weights,
    )


def _item(rng: random.Random, doc: int) -> dict[str, Any]:
    right = rng.random() < 0.6
    return {
        "doc_id": doc,
        "prompt_digest": digest(["prompt", doc]),
        "generation": " ".join(rng.choices(_WORDS, k=40)),
        "finish_reason": "stop",
        "n_tokens": 40,
        "target": "seven",
        "extracted": json.dumps({"robust": "seven" if right else "eight"}),
        "correct": json.dumps({"robust": int(right)}),
        "option_rank": None,
    }


def _plan(seeds: str) -> Plan:
    from infosteer_bench.grid import load_grid
    from infosteer_bench.runs.inputs import Roots, resolve_inputs
    from infosteer_bench.runs.plan import build_plan

    grid = load_grid(GRID).model_copy(update={"seeds": tuple(map(int, seeds.split(",")))})
    roots = Roots(data_root=Path(grid.data_root) if grid.data_root else None, model_root=None)
    return build_plan(grid, resolve_inputs(grid, roots))


def _seeds(cells: int) -> str:
    """As many seeds as make at least so many cells of the grid, as --seeds takes them."""
    one, two = (_plan(seeds).n_cells for seeds in ("0", "0,1"))
    number = 1 + max(0, -(-(cells - one) // (two - one)))
    return ",".join(map(str, range(number)))


def _timed(arguments: list[str], folder: Path) -> tuple[float, str]:
    begun = time.perf_counter()
    command = [sys.executable, "-m", "infosteer_bench", *arguments]
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise CellFailure(f"{arguments[0]} ended with {ended.returncode}: {ended.stderr.strip()[-500:]}")
    return round(time.perf_counter() - begun, 2), ended.stdout
