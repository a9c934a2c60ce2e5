"""`list`: what can be named on the command line and in a grid."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence

from infosteer_bench.errors import UserError
from infosteer_bench.grid import BUILTIN_MIXES, grid_names, load_grid


def list_command(options: argparse.Namespace) -> int:
    """Print one aligned table."""
    header, rows = {
        "models": _models,
        "methods": _methods,
        "tasks": lambda: _tasks(options),
        "mixes": _mixes,
        "grids": _grids,
    }[options.what]()
    _print_table(header, rows)
    return 0


def _models() -> tuple[list[str], list[list[str]]]:
    from infosteer_bench.models.catalog import CATALOG

    rows = [
        [
            row.id,
            row.hub_id or "(in the package)",
            row.family,
            f"{row.parameters / 1e9:.3g} B",
            row.licence,
            "yes" if row.gated else "no",
        ]
        for row in CATALOG.values()
    ]
    return ["model", "hub id", "family", "parameters", "licence", "gated"], rows


def _methods() -> tuple[list[str], list[list[str]]]:
    from infosteer_bench.methods import METHODS

    rows: list[list[str]] = []
    for name in METHODS:
        try:
            method = METHODS.get(name)
        except UserError as error:  # of an installed package that is broken: the others are listed
            rows.append([name, f"cannot be loaded: {error.what}", ""])
            continue
        defaults = method.Config().model_dump(mode="json", by_alias=True)
        settings = ", ".join(f"{key}={value}" for key, value in defaults.items())
        rows.append([name, method.summary, settings or "none"])
    return ["method", "what it does", "settings and defaults"], rows


def _tasks(options: argparse.Namespace) -> tuple[list[str], list[list[str]]]:
    from infosteer_bench.tasks.catalog import read_tasks

    rows = [
        [info.name, info.lm_eval_name, info.default_split, info.type, info.kind, info.data_file or "named in its YAML"]
        for info in read_tasks(options.include_path).values()
    ]
    return ["task", "lm-eval name", "split", "type", "answer", "data"], rows


def _mixes() -> tuple[list[str], list[list[str]]]:
    rows = [[name, ", ".join(spec.sources), ", ".join(spec.tasks)] for name, spec in BUILTIN_MIXES.items()]
    return ["mix", "training data of", "answers"], rows


def _grids() -> tuple[list[str], list[list[str]]]:
    rows: list[list[str]] = []
    for name in grid_names():
        grid = load_grid(name)
        rows.append([name, str(len(grid.models)), str(len(grid.seeds)), grid.description])
    return ["grid", "models", "seeds", "what it is"], rows


def _print_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    table = [list(header), *[list(row) for row in rows]]
    widths = [max(len(row[column]) for row in table) for column in range(len(header))]
    for row in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
