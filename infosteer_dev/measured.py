"""Tables of the documentation that come from files that are kept: boards, and what `profile` measured."""

from __future__ import annotations

import csv
import json
import os
from collections import Counter
from pathlib import Path

import infosteer_bench
from infosteer_bench.benchmark import COMMONSENSE
from infosteer_bench.leaderboard.views.facts import MINIWORLD
from infosteer_bench.leaderboard.views.text import escape, markdown
from infosteer_dev.tables import text_table

BOARD = Path("leaderboards/embedded")
TWINS = Path("leaderboards/embedded-twins")
MEASURED = Path(infosteer_bench.__file__).parent / "profiling" / "measured"
EXCERPT = ("mean:id", "mean:ood", "mean:all")


def board(root: Path, start: Path) -> str:
    """An excerpt of the kept board: means per method, and what they are worth; its link starts from `start`."""
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
        notes.append(markdown(MINIWORLD))
    else:
        notes.append("A demonstration that the pipeline runs on real input; far too small to tell methods apart.")
    target = Path(os.path.relpath(folder / "leaderboard.md", start)).as_posix()
    return "\n".join([text_table(header, lines), "", *notes, f"All of it: [{BOARD.name}/leaderboard.md]({target})."])


def headline(root: Path) -> str:
    """What the kept board says, in one sentence: sft against base, and the variants against sft."""
    if not (root / BOARD / "leaderboard.csv").is_file():
        return f"*No board is kept in `{BOARD.as_posix()}/` yet.*"
    with open(root / BOARD / "leaderboard.csv", encoding="utf-8", newline="") as handle:
        rows = [row for row in csv.DictReader(handle) if row["task"] == "mean:all" and row["delta_vs_sft"]]
    gains = sorted(-float(row["delta_vs_sft"]) for row in rows if row["method"] == "base")
    steered = [row for row in rows if row["method"] != "base"]
    verdicts = Counter(row["verdict"] or "no verdict" for row in steered)
    counted = ", ".join(f"{n} {name if n == 1 else _PLURALS.get(name, name)}" for name, n in verdicts.items())
    lifted = f"{gains[0]:.0f} to {gains[-1]:.0f} points" if gains else "an unmeasured amount"
    return (
        f"Plain fine-tuning (`sft`) adds {lifted} to the mean of all tasks of these "
        f"{len({row['model'] for row in rows})} toy models; {len(steered)} comparisons of an InfoSteer variant with it "
        f"came out as {counted}."
    )


_PLURALS = {"win": "wins", "tie": "ties", "loss": "losses"}


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
            text_table(header, rows),
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
    return "\n".join([text_table(header, rows), *notes])


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
    return text_table(header, rows)


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
    return text_table(["measured on", "a finished run again", "`leaderboard`", "`--dry-run`"], rows)


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
