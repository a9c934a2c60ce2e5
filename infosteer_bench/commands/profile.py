"""`profile train`: measure on this machine, print a table, keep everything as JSON."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from infosteer_bench.errors import UserError


def profile_command(options: argparse.Namespace) -> int:
    """Progress on stderr, the table on stdout; --json keeps settings, times, ratios and bytes."""
    from infosteer_bench.profiling.train import Setting, profile_train

    if options.json is not None and options.json.is_dir():
        raise UserError(f"--json: {options.json} is a folder", allowed="a file's name")
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
        on_progress=lambda text: print(f"profile: {text}", file=sys.stderr, flush=True),
    )
    print("\n".join(table(found)))
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0


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
