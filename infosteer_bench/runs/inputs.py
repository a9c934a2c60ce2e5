"""Everything a plan needs from outside, looked up once: model revisions, mixes, tasks, test files, the engine."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from infosteer_bench.errors import UserError, unknown_name
from infosteer_bench.grid import Grid, MixSpec
from infosteer_bench.methods import METHODS, register_file
from infosteer_bench.methods.base import Method
from infosteer_bench.tasks.catalog import TaskInfo, read_tasks, select_tasks
from infosteer_bench.tasks.items import check_items
from infosteer_bench.training.recipe import OPTIMIZER_PACKAGES

if TYPE_CHECKING:
    from infosteer_bench.data.mixes import Mix
    from infosteer_bench.data.sources import SourceFile
    from infosteer_bench.models.load import ResolvedModel


@dataclass(frozen=True)
class Roots:
    """Where data and models come from; None means upstream and the hub."""

    data_root: Path | None = None
    model_root: Path | None = None


@dataclass(frozen=True)
class Inputs:
    """What the grid's names stand for on this day."""

    models: tuple[ResolvedModel, ...]
    methods: tuple[Method, ...]
    mixes: dict[tuple[str, str], Mix]  # (mix name, model id) -> rows; the model matters for chat templates only
    mix_specs: tuple[MixSpec, ...]
    tasks: dict[str, TaskInfo]
    test_files: dict[str, SourceFile]  # tasks of our own; a user's YAML names its data itself
    engine: str
    engine_reason: str


def resolve_inputs(grid: Grid, roots: Roots) -> Inputs:
    """Look everything up, cheapest first, so that a typo is told before any download. Raises UserError."""
    from infosteer_bench.data.mixes import build_mix
    from infosteer_bench.data.roots import open_source
    from infosteer_bench.evaluation.engine import choose_backend
    from infosteer_bench.models.catalog import select_models
    from infosteer_bench.models.load import load_tokenizer, materialize, resolve_model

    methods = configure_methods(grid)
    include = Path(grid.include_path) if grid.include_path else None
    known = read_tasks(include)
    names = select_tasks(list(grid.tasks), known)
    tasks = {name: known[name] for name in names}
    specs = serving_mixes(grid, names, known)
    texts = select_models(list(grid.models), grid_models=grid.models)
    if not texts:
        raise UserError(f"grid {grid.name} names no model", hint="give --models, or models: in the grid")
    engine, reason = choose_backend(grid.eval.backend)
    check_fit(grid, methods, tasks, engine)
    source = open_source(roots.data_root)
    test_files = {name: source.get(info.data_file) for name, info in tasks.items() if info.data_file}
    for name, file in test_files.items():
        check_items(file, tasks[name].kind)
    models = tuple(resolve_model(text, model_root=roots.model_root) for text in texts)
    _distinct_models(models)
    for model in models:
        for method in methods:
            method.validate_for(model.n_layers)
    mixes: dict[tuple[str, str], Mix] = {}
    if any(method.trains for method in methods):
        for spec in specs:
            plain: Mix | None = None
            for model in models:
                needs_tokenizer = grid.prompt.template == "chat"
                if needs_tokenizer or plain is None:
                    tokenizer = load_tokenizer(materialize(model)) if needs_tokenizer else None
                    plain = build_mix(
                        spec, source, prompt=grid.prompt, max_examples=grid.train.max_examples, tokenizer=tokenizer
                    )
                mixes[spec.name, model.id] = plain
    return Inputs(models, methods, mixes, specs, tasks, test_files, engine, reason)


def configure_methods(grid: Grid) -> tuple[Method, ...]:
    """The grid's arms, built and checked; the same arm twice is an error."""
    for path in grid.method_files:
        register_file(Path(path))
    methods = tuple(METHODS.get(arm.name).configure(arm.settings) for arm in grid.methods)
    seen: set[tuple[str, str]] = set()
    for method in methods:
        if (method.name, method.arm) in seen:
            raise UserError(f"grid {grid.name}: method {method.name} stands twice with the same settings")
        seen.add((method.name, method.arm))
    return methods


def check_fit(grid: Grid, methods: tuple[Method, ...], tasks: dict[str, TaskInfo], engine: str) -> None:
    """Refuse before any training what no cell could honour."""
    from infosteer_bench.evaluation.engine import refuse_runtime

    for method in methods:
        refuse_runtime(engine, method.runtime, shards=grid.eval.tensor_parallel or 1)
    package = OPTIMIZER_PACKAGES.get(grid.train.optimizer)
    if package and any(method.trains for method in methods) and importlib.util.find_spec(package) is None:
        raise UserError(
            f"train.optimizer={grid.train.optimizer} needs {package}, which is not installed",
            hint=f"pip install {package}",
        )
    own = [name for name, info in tasks.items() if info.kind == "other"]
    if grid.prompt.template == "alpaca" and own:
        raise UserError(
            f"prompt.template=alpaca wraps our tasks only, and {own[0]!r} is a YAML of your own",
            hint="write the wrapper into its doc_to_text and use template plain, or leave the task out",
        )


def serving_mixes(grid: Grid, names: list[str], known: dict[str, TaskInfo]) -> tuple[MixSpec, ...]:
    """The mixes that serve a chosen task; a task that no mix serves would never meet a trained model."""
    for spec in grid.mixes:
        for task in spec.tasks:
            if task not in known:
                raise unknown_name(f"task of mix {spec.name}", task, known)
    served = {task for spec in grid.mixes for task in spec.tasks}
    trains = any(METHODS.get(arm.name).trains for arm in grid.methods)
    orphans = [name for name in names if name not in served]
    if trains and orphans:
        raise UserError(
            f"grid {grid.name}: no mix serves task {orphans[0]!r}", hint="name it under `tasks` of a mix in the grid"
        )
    return tuple(spec for spec in grid.mixes if set(spec.tasks) & set(names))


def _distinct_models(models: tuple[ResolvedModel, ...]) -> None:
    ids = [model.id for model in models]
    for name in ids:
        if ids.count(name) > 1:
            raise UserError(f"two models are both called {name!r}", hint="rename one folder; the name labels its rows")
