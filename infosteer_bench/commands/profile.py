"""`profile train`, `eval` and `runs`: measure on this machine, print a table, keep everything as JSON."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from infosteer_bench.errors import UserError


def train_command(options: argparse.Namespace) -> int:
    """Progress on stderr, the table on stdout; --json keeps settings, times, ratios and bytes."""
    from infosteer_bench.profiling.train import Setting, profile_train

    _check_json(options.json)
    setting = Setting(
        shape=options.shape,
        n_layers=options.layers,
        batch_size=options.batch,
        tokens=options.tokens,
        precision=options.precision,
        gradient_checkpointing=not options.no_checkpointing,
        rounds=options.rounds,
    )
    found = profile_train(
        setting,
        _methods(options.methods, options.set),
        on_progress=_told,
    )
    print("\n".join(table(found)))
    _keep(found, options.json)
    return 0


def eval_command(options: argparse.Namespace) -> int:
    """As `train_command`; variants of the model are written to a temporary folder."""
    from infosteer_bench.data.roots import MINIWORLD
    from infosteer_bench.evaluation.engine import choose_backend, vllm_installed
    from infosteer_bench.evaluation.evaluate import EvalSettings
    from infosteer_bench.grid import load_grid
    from infosteer_bench.models.load import materialize
    from infosteer_bench.profiling.evaluate import make_variant, profile_eval
    from infosteer_bench.runs.choose import plan_grid

    _check_json(options.json)
    wanted = "vllm" if options.backend == "auto" and vllm_installed() else options.backend
    backend, _ = choose_backend(wanted)
    settings = ["eval.dtype=float32", *options.set, f"eval.limit={options.limit}", f"eval.backend={backend}"]
    grid = load_grid("eval", overrides=settings).model_copy(
        update={"models": (options.model,), "tasks": tuple(name.strip() for name in options.tasks.split(","))}
    )
    root = options.data_root or MINIWORLD
    plan, roots = plan_grid(grid, data_root=root, model_root=options.model_root, quiet=True)
    (model,) = plan.inputs.models
    with tempfile.TemporaryDirectory(prefix="infosteer-profile-") as folder:
        source, variants = materialize(model), []
        for seed in range(options.checkpoints):
            _told(f"writing variant {seed + 1} of {options.checkpoints} of {model.id}")
            variants.append(make_variant(source, Path(folder) / f"variant-{seed}", seed=seed))
        asking = EvalSettings(plan.grid.eval, plan.grid.prompt, roots.data_root)
        found = profile_eval(variants, plan.inputs.tasks, asking, backend=backend, on_progress=_told)
    found = {"model": model.id, **found}
    print("\n".join(eval_table(found)))
    _keep(found, options.json)
    return 0


def runs_command(options: argparse.Namespace) -> int:
    """As `train_command`, on a run that is invented."""
    from infosteer_bench.profiling.runs import profile_runs

    _check_json(options.json)
    found = profile_runs(cells=options.cells, items=options.items, planned_cells=options.plan, on_progress=_told)
    print(f"a finished run of {found['cells']} cells of {found['items']} items, whole commands:")
    print(f"  leaderboard {found['leaderboard_s']:>8.2f} s")
    print(f"  run again   {found['rerun_s']:>8.2f} s (the first time {found['first_rerun_s']:.2f} s)")
    print(f"a plan of {found['planned_cells']} cells, nothing done yet:")
    print(f"  dry run     {found['plan_s']:>8.2f} s")
    _keep(found, options.json)
    return 0


def _told(text: str) -> None:
    print(f"profile: {text}", file=sys.stderr, flush=True)


def _check_json(path: Path | None) -> None:
    if path is not None and path.is_dir():
        raise UserError(f"--json: {path} is a folder", allowed="a file's name")


def _keep(found: dict[str, Any], path: Path | None) -> None:
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def _methods(names: str, overrides: list[str]) -> dict[str, dict[str, Any]]:
    """Method -> settings; plain fine-tuning is always among them. Raises UserError for what is unknown."""
    from infosteer_bench.grid import apply_override
    from infosteer_bench.methods import METHODS, select_methods

    trained = [name for name in METHODS if METHODS.get(name).trains]
    chosen = select_methods([name.strip() for name in names.split(",")], grid_methods=trained)
    untrained = [name for name in chosen if name not in trained]
    if untrained:
        raise UserError(f"method {untrained[0]} trains nothing that could be measured", allowed=", ".join(trained))
    data: dict[str, Any] = {"methods": [{"name": name} for name in dict.fromkeys(["sft", *chosen])]}
    for text in overrides:
        if not text.startswith("methods."):
            raise UserError(f"--set {text!r} is no method's setting", allowed="methods.NAME.FIELD=VALUE")
        apply_override(data, text)
    return {arm["name"]: arm.get("settings", {}) for arm in data["methods"]}


def table(found: dict[str, Any]) -> list[str]:
    """What `profile_train` found, for reading."""
    setting = found["setting"]
    kind = "gradient checkpointing" if setting["gradient_checkpointing"] else "no gradient checkpointing"
    lines = [
        f"{setting['shape']}: {setting['n_layers']} layers, FFN width {setting['ffn_width']}, random weights; "
        f"{setting['batch_size']} x {setting['tokens']} tokens, {setting['precision']}, {kind}",
        f"{found['device']}; {setting['rounds']} rounds, methods in turn; ratios to sft of the same round, "
        "median (quartiles)",
        f"head and loss, the same for every method: {found['head_time_s']:.3f} s",
        "",
        f"{'method':<48} {'layers s':>9} {'x sft':>20} {'step s':>9} {'x sft':>20} {'memory x':>9} {'saved +':>8}",
    ]
    for name, row in found["methods"].items():
        label = f"{name} ({row['arm']})" if row["arm"] else name
        cells = [f"{label:<48}"]
        for part in ("layers", "step"):
            ratio = row["time_ratio"][part]
            cells.append(f"{row['time_s'][part]:>9.3f}")
            cells.append(f"{ratio['median']:>6.3f} ({ratio['q25']:.3f}-{ratio['q75']:.3f})")
        memory = row["peak_memory_ratio"]
        cells.append(f"{memory:>9.3f}" if memory is not None else f"{'':>9}")
        cells.append(f"{100 * row['saved_share_added']:>6.2f} %")
        lines.append(" ".join(cells))
    lines += [
        "",
        "layers: the decoder layers, forward and backward; step: the whole model and the optimizer's step.",
        "saved +: bytes kept from forward to backward beyond sft's, as a share of B*T*F*L*2 (one bf16 k per layer).",
    ]
    return lines


def eval_table(found: dict[str, Any]) -> list[str]:
    """What `profile_eval` found, for reading."""
    setting = found["setting"]
    lines = [
        f"{found['model']}: {setting['checkpoints']} variants, {len(setting['tasks'])} tasks of at most "
        f"{setting['limit']} items, engine {setting['backend']} in {setting['dtype']}; {found['device']}",
        "",
        f"{'':<8} {'first, s':>10} {'further, s':>12} {'(most)':>8} {'total, s':>10} {'checkpoints/h':>14} "
        f"{'tokens/s':>10}",
    ]
    for way in ("live", "fresh"):
        row = found[way]
        lines.append(
            f"{way:<8} {row['first_overhead_s']:>10.2f} {row['further_overhead_s']['mean']:>12.2f} "
            f"{row['further_overhead_s']['max']:>8.2f} {row['total_s']:>10.1f} {row['checkpoints_per_hour']:>14.1f} "
            f"{row['output_tokens_per_s']:>10.1f}"
        )
    return [
        *lines,
        "",
        f"fresh takes {found['ratio']:.2f} times as long; {found['same_items']} of {found['items']} items come out the "
        f"same both ways, {found['different_answers_between_checkpoints']} tell the variants apart",
        f"engine starts of the live way: {found['engine_starts']}, swaps: {found['engine_swaps']}",
        "first, further: overhead of a checkpoint, all but generating: loading, requests, scores, closing.",
    ]
