"""The generated parts of README.md: commands, models, methods, tasks, grids, costs, and an excerpt of a board.

A generated part stands between `<!-- generated:NAME -->` and `<!-- /generated -->`.

    python -m infosteer_bench.docs            writes them anew
    python -m infosteer_bench.docs --check    exits 1 and names those that are not what the code says
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from infosteer_bench.benchmark import COMMONSENSE
from infosteer_bench.errors import UserError
from infosteer_bench.leaderboard.views.markdown import MINIWORLD_NOTE, escape, table
from infosteer_bench.records import canonical_json

ROOT = Path(__file__).resolve().parents[1]
BOARD = Path("leaderboards/embedded")
TWINS = Path("leaderboards/embedded-twins")
MEASURED = Path(__file__).parent / "profiling" / "measured"
BLOCK = re.compile(r"(<!-- generated:(?P<name>[a-z]+) -->\n).*?(<!-- /generated -->)", re.DOTALL)
EXCERPT = ("mean:id", "mean:ood", "mean:all")


def _text_table(header: list[str], rows: list[list[str]]) -> str:
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
            " ".join(f"`{option.replace('|', chr(92) + '|')}`" for option in options),
        ]
        for name, text, options in _commands_of(build_parser())
    ]
    return _text_table(["command", "what it does", "options"], rows)


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
                option.option_strings[-1] if option.option_strings else "|".join(map(str, option.choices or []))
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
    return _text_table(header, rows)


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
    return _text_table(["method", "what it does", "settings and defaults"], rows)


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
    listed = _text_table(["task", "lm-eval name", "split", "type", "answer", "file (LLM-Adapters)"], rows)
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
    return _text_table(header, rows)


def board(root: Path) -> str:
    """An excerpt of the board on the first screen: means per method, and what they are worth."""
    import json

    folder = root / BOARD
    if not (folder / "leaderboard.csv").is_file():
        return f"*No board is kept in `{BOARD.as_posix()}/` yet.*"
    facts = json.loads((folder / "provenance.json").read_text(encoding="utf-8"))
    with open(folder / "leaderboard.csv", encoding="utf-8", newline="") as handle:
        rows = [row for row in csv.DictReader(handle) if row["task"] in EXCERPT]
    lines: list[list[str]] = []
    for model, method, arm in dict.fromkeys((row["model"], row["method"], row["arm"]) for row in rows):
        of_method = {
            row["task"]: row for row in rows if (row["model"], row["method"], row["arm"]) == (model, method, arm)
        }
        cells = [
            _spread(of_method[task]) + ("" if of_method[task]["complete"] == "true" else " \\*")
            if task in of_method
            else ""
            for task in EXCERPT
        ]
        whole = of_method.get("mean:all", {})
        name = escape(method + (f" ({arm})" if arm else ""))
        lines.append([escape(model), name, *cells, _against_sft(whole), whole.get("unparsed_rate", "")])
    header = ["model", "method", "mean ID (9 tasks)", "mean OOD (6)", "mean of 15", "against sft", "unparsed answers"]
    several = any("±" in cell for line in lines for cell in line)
    spread = (
        ", ± standard deviation over seeds; against `sft` with 95 % interval over seeds and items" if several else ""
    )
    notes = [f"Percent{spread}; {'; '.join(facts['settings'])}; {facts['items']} answers in all."]
    if facts["instruct_models"]:
        notes.append(
            f"{', '.join(map(escape, facts['instruct_models']))}: an instruction-tuned model, not a base model."
        )
    if facts["stand_ins"]:
        notes.append(f"Stand-in data: {', '.join(map(escape, facts['stand_ins']))}.")
    if any("*" in cell for line in lines for cell in line):
        notes.append("`*`: partial, the board says why.")
    if (facts.get("grid") or {}).get("miniworld"):
        notes.append(MINIWORLD_NOTE)
    else:
        notes.append("A demonstration that the pipeline runs on real input; far too small to tell methods apart.")
    link = f"All of it: [{BOARD.as_posix()}/leaderboard.md]({BOARD.as_posix()}/leaderboard.md)."
    return "\n".join([_text_table(header, lines), "", *notes, link])


def knowledge(root: Path) -> str:
    """What stored knowledge is worth on the commonsense eight: each fine-tuned model against its fine-tuned twin."""
    from infosteer_bench.data.roots import MINIWORLD, open_source
    from infosteer_dev.miniworld.baselines import baselines

    board, twins = (_accuracies(root / folder) for folder in (BOARD, TWINS))
    if not board or not twins:
        return "*Not measured yet.*"
    rows: list[list[str]] = []
    for model in dict.fromkeys(model for model, _, _ in board):
        sft, twin = _mean(board, model, "sft"), _mean(twins, f"{model}-twin", "sft")
        base = _mean(board, model, "base")
        rows.append([model, f"{base:.2f}", f"{twin:.2f}", f"{sft:.2f}", f"{sft - twin:+.2f}"])
    floor = [row for row in baselines(open_source(MINIWORLD)) if row.task in COMMONSENSE]
    floors = {
        "chance": sum(row.random or 0.0 for row in floor) / len(floor),
        "the majority's label": sum(row.majority for row in floor) / len(floor),
        "reading the options only": sum(row.option_only or 0.0 for row in floor) / len(floor),
    }
    known = ", ".join(f"{name} {value:.2f}" for name, value in floors.items())
    header = ["model", "not fine-tuned", "sft on the twin", "sft", "sft above twin"]
    return "\n".join(
        [
            _text_table(header, rows),
            "",
            f"Mean of the eight commonsense tasks, percent, three seeds. Baselines: {known}.",
        ]
    )


def costs() -> str:
    """What `profile train` measured, from the files that are kept."""
    rows: list[list[str]] = []
    notes: list[str] = []
    for file in sorted((MEASURED / "train").glob("*.json")):
        found = json.loads(file.read_text(encoding="utf-8"))
        setting = found["setting"]
        where = (
            f"{found['device']}; {setting['shape']}, {setting['n_layers']} layers, "
            f"{setting['batch_size']} x {setting['tokens']} tokens, {setting['precision']}"
        )
        if "note" in found:
            notes += ["", f"{where}: {found['note']}."]
        for name, row in found["methods"].items():
            if name == "sft":
                continue
            ratios = [row["time_ratio"][part] for part in ("layers", "step")]
            times = [f"{ratio['median']:.3f} ({ratio['q25']:.3f} to {ratio['q75']:.3f})" for ratio in ratios]
            memory = f"{row['peak_memory_ratio']:.3f}" if row["peak_memory_ratio"] else ""
            rows.append([where, f"`{name}`", *times, memory, f"{100 * row['saved_share_added']:.2f} %"])
    header = [
        "measured on",
        "method",
        "decoder layers x sft",
        "whole step x sft",
        "peak memory x sft",
        "saved tensors +",
    ]
    return "\n".join([_text_table(header, rows), *notes])


def serving() -> str:
    """What `profile eval` measured, from the files that are kept."""
    rows: list[list[str]] = []
    for file in sorted((MEASURED / "eval").glob("*.json")):
        found = json.loads(file.read_text(encoding="utf-8"))
        setting = found["setting"]
        where = (
            f"{found['device']}; {found['model']}, {setting['checkpoints']} variants x {len(setting['tasks'])} tasks x "
            f"{setting['limit']} items, {setting['backend']} in {setting['dtype']}"
        )
        for way, name in (("live", "one live engine"), ("fresh", "an engine for each")):
            row = found[way]
            rows.append(
                [
                    where if way == "live" else "",
                    name,
                    f"{row['first_overhead_s']:.1f} s",
                    f"{row['further_overhead_s']['mean']:.1f} s",
                    f"{row['total_s']:.0f} s",
                    f"{row['checkpoints_per_hour']:.0f}",
                    f"{row['output_tokens_per_s']:.0f}",
                ]
            )
    header = ["measured on", "", "overhead, first", "each further", "in all", "checkpoints/h", "tokens/s"]
    return _text_table(header, rows)


def scale() -> str:
    """What `profile runs` measured, from the files that are kept."""
    rows: list[list[str]] = []
    for file in sorted((MEASURED / "runs").glob("*.json")):
        found = json.loads(file.read_text(encoding="utf-8"))
        cells = f"{found['cells']} cells x {found['items']} items"
        rows.append(
            [
                found["provenance"]["device"],
                f"{cells}: {found['rerun_s']:.1f} s",
                f"{cells}: {found['leaderboard_s']:.1f} s",
                f"{found['planned_cells']} cells: {found['plan_s']:.1f} s",
            ]
        )
    return _text_table(["measured on", "a finished run again", "`leaderboard`", "`--dry-run`"], rows)


def _accuracies(folder: Path) -> dict[tuple[str, str, str], float]:
    """(model, method, task) -> percent of a kept board's default arms; {} where there is no board."""
    if not (folder / "leaderboard.csv").is_file():
        return {}
    with open(folder / "leaderboard.csv", encoding="utf-8", newline="") as handle:
        rows = [row for row in csv.DictReader(handle) if row["accuracy"]]
    return {(row["model"], row["method"], row["task"]): float(row["accuracy"]) for row in rows}


def _mean(accuracies: dict[tuple[str, str, str], float], model: str, method: str) -> float:
    return sum(accuracies[model, method, task] for task in COMMONSENSE) / len(COMMONSENSE)


def _spread(row: dict[str, str]) -> str:
    """Accuracy, and its standard deviation over seeds where there is one."""
    return row["accuracy"] + (f" ± {row['seed_std']}" if row.get("seed_std") else "")


def _against_sft(row: dict[str, str]) -> str:
    """Difference in points with its 95 % interval and verdict; "" where there is none."""
    if not row.get("delta_vs_sft"):
        return ""
    interval = f" ({row['delta_ci_low']} to {row['delta_ci_high']})" if row["delta_ci_low"] else ""
    return f"{float(row['delta_vs_sft']):+.2f}{interval} {row['verdict']}".strip()


def blocks(root: Path) -> dict[str, Callable[[], str]]:
    """Name of each generated part -> what writes it."""
    return {
        "board": lambda: board(root),
        "knowledge": lambda: knowledge(root),
        "costs": costs,
        "serving": serving,
        "scale": scale,
        "commands": commands,
        "models": models,
        "methods": methods,
        "tasks": tasks,
        "grids": grids,
    }


def generate(text: str, root: Path) -> tuple[str, list[str]]:
    """`text` with every generated part anew, and the names of the parts that changed or are missing.

    Raises UserError for a part that nothing writes.
    """
    writers = blocks(root)
    found: list[str] = []
    stale: list[str] = []

    def replace(match: re.Match[str]) -> str:
        name = match["name"]
        if name not in writers:
            raise UserError(f"README.md: nothing generates the part {name!r}", allowed=", ".join(writers))
        found.append(name)
        fresh = f"{match[1]}{writers[name]()}\n{match[3]}"
        if fresh != match[0]:
            stale.append(name)
        return fresh

    new = BLOCK.sub(replace, text)
    return new, stale + [name for name in writers if name not in found]


def main(arguments: list[str] | None = None) -> int:
    """Write README.md's generated parts, or check them; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m infosteer_bench.docs", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where a part is stale")
    parser.add_argument("--root", type=Path, default=ROOT, help="the checkout")
    options = parser.parse_args(arguments)
    readme = options.root / "README.md"
    try:
        if not readme.is_file():
            raise UserError(f"{readme} does not exist", hint="run this in a checkout of the repository")
        text = readme.read_text(encoding="utf-8")
        new, stale = generate(text, options.root)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    if options.check:
        for name in stale:
            print(f"README.md: the generated part {name!r} is stale or missing; run python -m infosteer_bench.docs")
        return 1 if stale else 0
    readme.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
