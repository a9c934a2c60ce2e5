"""From what a person asks for to a plan: which grid, which of its models, methods, tasks and seeds, and where data lie.

grid = choose_grid("laptop", models="qwen", settings=["train.max_steps=10"])
plan, roots = plan_grid(grid)
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infosteer_bench.device import has_cuda
from infosteer_bench.errors import UserError
from infosteer_bench.grid import Grid, MethodArm, load_grid
from infosteer_bench.methods import register_file, select_methods
from infosteer_bench.models.catalog import select_models

if TYPE_CHECKING:
    from infosteer_bench.runs.inputs import Roots
    from infosteer_bench.runs.plan import Plan


def choose_grid(
    grid: str | None = None,
    *,
    models: str = "all",
    methods: str = "all",
    tasks: str = "all",
    seeds: Sequence[int] | None = None,
    settings: Iterable[str] = (),
) -> Grid:
    """A grid and what of it is wanted; names by comma, as on the command line.

    grid: a shipped grid or a YAML file; None: by the machine. settings: KEY=VALUE. Raises UserError for what is not
    known.
    """
    wanted = names(models, "models")
    chosen = load_grid(grid or _default_grid(wanted), overrides=settings)
    for path in chosen.method_files:
        register_file(Path(path))
    arms_of = [arm.name for arm in chosen.methods]
    of_methods = select_methods(names(methods, "methods"), grid_methods=arms_of)
    arms = [arm for arm in chosen.methods if arm.name in of_methods]
    arms += [MethodArm(name=name) for name in of_methods if name not in arms_of]
    update: dict[str, Any] = {"methods": tuple(arms), "models": _models(wanted, chosen)}
    if tasks != "all":
        update["tasks"] = tuple(names(tasks, "tasks"))
    if seeds:
        update["seeds"] = tuple(seeds)
    return chosen.model_copy(update=update)


def checkpoint_grid(
    checkpoint: str, *, tasks: str = "all", include_path: Path | None = None, settings: Iterable[str] = ()
) -> Grid:
    """The grid of one checkpoint folder and the method `base`: nothing is trained."""
    update: dict[str, Any] = {"models": (checkpoint,), "tasks": tuple(names(tasks, "tasks"))}
    if include_path:
        update["include_path"] = str(include_path)
    return load_grid("eval", overrides=settings).model_copy(update=update)


def names(text: str, option: str) -> list[str]:
    """The names of a list by comma. Raises UserError for an empty one."""
    found = [part.strip() for part in text.split(",")]
    if not all(found):
        raise UserError(f"--{option} {text!r} holds an empty name", allowed="names by comma, without blanks between")
    return found


def _models(texts: list[str], grid: Grid) -> tuple[str, ...]:
    return tuple(select_models(texts, grid_models=grid.models))


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


def plan_grid(
    grid: Grid, *, data_root: Path | None = None, model_root: Path | None = None, quiet: bool = False
) -> tuple[Plan, Roots]:
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
