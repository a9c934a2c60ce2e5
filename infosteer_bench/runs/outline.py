"""A plan without a network: models as the catalog has them, data by their known numbers, for `run --dry-run`.

What it costs can be told; what is done cannot, since keys cover the bytes that are out of reach.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from infosteer_bench.benchmark import TASKS
from infosteer_bench.data.mixes import COMMONSENSE_DEV_MODULUS, GSM8K_DEV_ROWS, Mix, MixRow
from infosteer_bench.evaluation.engine import choose_backend
from infosteer_bench.models.catalog import CATALOG, select_models
from infosteer_bench.models.families import FAMILIES
from infosteer_bench.models.load import ResolvedModel
from infosteer_bench.runs.inputs import Inputs, check_fit, configure_methods, serving_mixes
from infosteer_bench.runs.plan import Plan, build_plan
from infosteer_bench.tasks.catalog import read_tasks, select_tasks

if TYPE_CHECKING:
    from infosteer_bench.grid import Grid, MixSpec


def outline(grid: Grid) -> Plan | None:
    """The plan; None for a grid of models, data or tasks that the package does not know. Raises UserError."""
    ids = select_models(list(grid.models), grid_models=grid.models)
    if any(name not in CATALOG or CATALOG[name].shape is None for name in ids):
        return None
    if grid.include_path or any(set(spec.sources) - TASKS.keys() for spec in grid.mixes):
        return None
    known = read_tasks()
    tasks = {name: known[name] for name in select_tasks(list(grid.tasks), known)}
    specs = serving_mixes(grid, list(tasks), known)
    mixes = {spec.name: _mix(grid, spec) for spec in specs}
    methods = configure_methods(grid)
    engine, _ = choose_backend(grid.eval.backend)
    check_fit(grid, methods, tasks, engine)
    inputs = Inputs(
        models=tuple(map(_model, ids)),
        methods=methods,
        mixes={(name, model): mix for name, mix in mixes.items() for model in ids},
        mix_specs=specs,
        tasks=tasks,
        test_files={},
        engine=engine,
        engine_reason="as far as is known",
    )
    return build_plan(grid, inputs)


def _model(name: str) -> ResolvedModel:
    row = CATALOG[name]
    assert row.shape is not None
    return ResolvedModel(
        id=name,
        origin="hub",
        hub_id=row.hub_id,
        path=None,
        revision="not looked up",
        tokenizer_digest="not looked up",
        family=FAMILIES[row.family],
        parameters=row.parameters,
        n_layers=row.shape.layers,
        instruct=False,
    )


def _mix(grid: Grid, spec: MixSpec) -> Mix:
    """As many rows as the files hold, but for the development part, each as long as the source's are on average."""
    rows: tuple[MixRow, ...] = ()
    for source in spec.sources:
        row = TASKS[source]
        held_out = GSM8K_DEV_ROWS if source == "gsm8k" else row.train_rows // COMMONSENSE_DEV_MODULUS
        rows += (MixRow("x" * row.characters, "", source),) * (row.train_rows - held_out)
    if grid.train.max_examples is not None and rows:
        step = max(1, len(rows) // grid.train.max_examples)
        rows = rows[::step][: grid.train.max_examples]
    return Mix(spec.name, rows, {}, (), "not looked up", ())
