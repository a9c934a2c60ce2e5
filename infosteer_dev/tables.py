"""Tables of the documentation that come from the code: commands, models, methods, tasks, grids."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from infosteer_bench.leaderboard.views.text import escape, table
from infosteer_bench.records import canonical_json


def text_table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table, all columns to the left."""
    lines = table(header, rows)
    lines[1] = "|" + "---|" * len(header)
    return "\n".join(lines)


def commands() -> str:
    """Every command with what it does and its options, from the parser itself."""
    from infosteer_bench.cli import build_parser

    rows = [
        [
            f"`{name}`",
            escape(text).replace("\\`", "`"),
            " ".join(f"`{option}`" for option in options),
        ]
        for name, text, options in _commands_of(build_parser())
    ]
    return text_table(["command", "what it does", "options"], rows)


def _commands_of(parser: argparse.ArgumentParser, prefix: str = "") -> Iterator[tuple[str, str, list[str]]]:
    """Name, help and options of every command below a parser; `profile train` is one of them, `profile` is not."""
    for action in parser._actions:
        if not isinstance(action, argparse._SubParsersAction):
            continue
        for choice in action._choices_actions:
            command, name = action.choices[choice.dest], f"{prefix}{choice.dest}"
            below = list(_commands_of(command, f"{name} "))
            if below:
                yield from below
                continue
            options = [
                option.option_strings[-1] if option.option_strings else "/".join(map(str, option.choices or []))
                for option in command._actions
                if "--help" not in option.option_strings
            ]
            yield name, choice.help or "", [option for option in options if option]


def models() -> str:
    """The catalog."""
    from infosteer_bench.models.catalog import CATALOG

    rows = [
        [
            f"`{row.id}`",
            escape(row.hub_id or "comes with the package"),
            row.family,
            f"{row.parameters / 1e9:.3g}",
            escape(row.licence),
            "yes" if row.gated else "no",
            "yes" if row.paper_name else "no",
        ]
        for row in CATALOG.values()
    ]
    header = ["id", "hub", "family", "billion parameters", "licence", "needs a hub token", "in the paper"]
    return text_table(header, rows)


def methods() -> str:
    """Every method with its settings and their defaults."""
    from infosteer_bench.methods import METHODS

    rows: list[list[str]] = []
    for name in METHODS:
        method = METHODS.get(name)
        defaults = method.Config().model_dump(mode="json", by_alias=True)
        settings = [
            f"`{key}={value if isinstance(value, str) else canonical_json(value)}`" for key, value in defaults.items()
        ]
        rows.append([f"`{name}`", escape(method.summary), " ".join(settings)])
    return text_table(["method", "what it does", "settings and defaults"], rows)


def tasks() -> str:
    """The tasks and the groups that average them."""
    from infosteer_bench.benchmark import GROUPS
    from infosteer_bench.tasks.catalog import read_tasks

    known = read_tasks()
    rows = [
        [f"`{info.name}`", f"`{info.lm_eval_name}`", info.default_split, info.type, info.kind, info.data_file or ""]
        for info in (known[name] for name in GROUPS["all"])
    ]
    groups = [f"- `{group}`: {', '.join(members)}" for group, members in GROUPS.items() if group != "all"]
    listed = text_table(["task", "lm-eval name", "split", "type", "answer", "file (LLM-Adapters)"], rows)
    return listed + "\n\nGroups, each also a mean on the board:\n\n" + "\n".join(groups)


def grids() -> str:
    """The grids that ship with the package."""
    from infosteer_bench.grid import grid_names, load_grid

    loaded = [load_grid(name) for name in grid_names()]
    rows = [
        [
            f"`{grid.name}`",
            escape(grid.description),
            escape(", ".join(grid.models)) or "the one given",
            "all" if grid.eval.limit is None else f"first {grid.eval.limit}",
            "all" if grid.train.max_examples is None else str(grid.train.max_examples),
            "yes" if grid.needs_cuda else "no",
        ]
        for grid in loaded
    ]
    header = ["grid", "what it is", "models", "items per task", "training rows per mix", "needs CUDA"]
    return text_table(header, rows)
