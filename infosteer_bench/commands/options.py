"""What the options of several commands stand for."""

from __future__ import annotations

import argparse

from infosteer_bench.grid import Grid
from infosteer_bench.runs.choose import choose_grid


def chosen_grid(options: argparse.Namespace) -> Grid:
    """The grid that the options ask for. Raises UserError."""
    return choose_grid(
        options.grid,
        models=options.models,
        methods=options.methods,
        tasks=options.tasks,
        seeds=options.seeds,
        settings=settings_of(options),
    )


def settings_of(options: argparse.Namespace) -> list[str]:
    """--set, and the settings that have an option of their own."""
    own = {"eval.limit": options.limit, "eval.backend": options.backend}
    return [*options.set, *(f"{name}={value}" for name, value in own.items() if value)]
