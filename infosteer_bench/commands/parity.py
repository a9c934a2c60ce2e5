"""`eval --parity`: the same checkpoint and items by hf and by vllm, and each once more."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infosteer_bench.records import write_atomic

if TYPE_CHECKING:
    from infosteer_bench.runs.inputs import Roots
    from infosteer_bench.runs.plan import Plan

SHOWN = 20
"""Differing items that are printed; the file has all."""


def parity(plan: Plan, run_dir: Path, roots: Roots, *, quiet: bool) -> int:
    """Ask, print a table and the items that differ, keep all of it in <run_dir>/parity.json."""
    from infosteer_bench.evaluation.evaluate import EvalSettings
    from infosteer_bench.evaluation.parity import BACKENDS, ask, report
    from infosteer_bench.models.load import materialize, weight_digest

    grid, (planned,) = plan.grid, plan.checkpoints
    include = Path(grid.include_path) if grid.include_path else None
    asking = EvalSettings(grid.eval, grid.prompt, roots.data_root, include)
    folder = materialize(planned.model)
    passes = []
    for backend in BACKENDS:
        passes += ask(
            backend,
            folder,
            plan.inputs.tasks,
            asking,
            weight_digest=weight_digest(folder),
            on_progress=lambda text: None if quiet else print(f"parity: {text}", file=sys.stderr, flush=True),
        )
    found = {
        "model": planned.model.id,
        "weights": weight_digest(folder),
        "dtype": grid.eval.dtype,
        "limit": grid.eval.limit,
        "max_new_tokens": grid.eval.max_new_tokens,
        **report(passes),
    }
    print("\n".join(table(found)))
    path = run_dir / "parity.json"
    write_atomic(path, json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    print(f"all of it: {path}")
    return 0


def table(found: dict[str, Any]) -> list[str]:
    """The report for reading: shares of items in percent, first those of the engines, then of each with itself."""
    lines = [
        f"{found['model']}, {found['dtype']}: percent of items with equal extracted answers (and with equal texts)",
        "",
        f"{'task':<16} {'items':>6} {'hf - vllm':>18} {'hf - hf':>18} {'vllm - vllm':>18} {'hf, s':>8} {'vllm, s':>8}",
    ]
    for name, task in [*found["tasks"].items(), ("all", found["all"])]:
        pairs = (task["engines"], task["again"]["hf"], task["again"]["vllm"])
        shares = [
            f"{100 * pair['same_answers'] / pair['n_items']:.2f} ({100 * pair['same_texts'] / pair['n_items']:.2f})"
            for pair in pairs
        ]
        times = [f"{seconds:>8.1f}" for seconds in task.get("time_s", {}).values()]
        lines.append(f"{name:<16} {pairs[0]['n_items']:>6} " + " ".join([f"{share:>18}" for share in shares] + times))
    differing = [(name, one) for name, task in found["tasks"].items() for one in task["engines"]["differing"]]
    lines += ["", f"{len(differing)} items with different answers by hf and vllm" + (":" if differing else "")]
    for name, one in differing[:SHOWN]:
        lines.append(f"  {name} {one['doc_id']}: hf {one['first']['extracted']}, vllm {one['second']['extracted']}")
    if len(differing) > SHOWN:
        lines.append(f"  and {len(differing) - SHOWN} more")
    return lines
