"""`rescore`: filters and metrics as they are now, on the answers that a run stored; no model is loaded."""

from __future__ import annotations

import argparse
import sys

from infosteer_bench.records import CellRecord


def rescore_command(options: argparse.Namespace) -> int:
    """Print what changed, one line per cell, and build the run's board again; exit 1 if cells were left alone."""
    from infosteer_bench.leaderboard.publish import publish
    from infosteer_bench.runs.inputs import Roots
    from infosteer_bench.runs.rescore import rescore

    def told(done: int, total: int) -> None:
        if not options.quiet:
            print(f"scored {done} of {total} checkpoints", file=sys.stderr, flush=True)

    roots = Roots(options.data_root, options.model_root)
    outcome = rescore(options.runs, roots, include_path=options.include_path, on_checkpoint=told)
    for before, after in outcome.changed:
        print(f"{before.checkpoint_key} {before.task}: {_changes(before, after)}")
    for failure in outcome.failures:
        print(f"infosteer-bench: {failure}", file=sys.stderr)
    n_scored = outcome.same + len(outcome.changed)
    board = publish(options.runs, options.runs / "leaderboard") / "leaderboard.md" if n_scored else "not made"
    print(f"{n_scored} cells scored again, {len(outcome.changed)} of them changed; leaderboard: {board}")
    return 1 if outcome.failures else 0


def _changes(before: CellRecord, after: CellRecord) -> str:
    """Which scores moved, in percent; items can change without any."""
    was = {**before.exact_match, "option_rank": before.option_rank}
    now = {**after.exact_match, "option_rank": after.option_rank}
    names = [name for name in {**was, **now} if was.get(name) != now.get(name)]
    moved = [f"{name} {_shown(was.get(name))} -> {_shown(now.get(name))}" for name in names]
    return ", ".join(moved) or "the same scores, other extracted answers"


def _shown(value: float | None) -> str:
    return "none" if value is None else f"{value:.2f}"
