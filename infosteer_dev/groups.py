"""The YAMLs of tasks/groups, made of benchmark.py.

python -m infosteer_dev.groups            writes them anew
python -m infosteer_dev.groups --check    exits 1 and names those that are not what benchmark.py says
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from infosteer_bench.benchmark import GROUPS, TASKS, TYPES

FOLDER = Path(__file__).resolve().parents[1] / "tasks" / "groups"
_MEANING = {
    "id": "In distribution: the tasks whose training sets the two mixes hold. Mean over tasks, each with the same "
    "weight.",
    "ood": "Out of distribution: six arithmetic tasks after training on GSM8K.",
    "ood5": "The paper's out-of-distribution mean, which leaves AQuA out.",
    "all": "All 15, as the two groups of which it is made; the mean is over the 15 tasks.",
}
_TYPES = {"reading": "Reading comprehension", "commonsense": "Commonsense reasoning"}


def group_yaml(name: str) -> str:
    """The text of a group's YAML; `option_rank` where every member ranks options."""
    meaning = _MEANING.get(name) or (
        f"{_TYPES.get(name, name.capitalize())}, one of the paper's five types; which task is in which is our reading "
        "(its Table 3 does not say)."
    )
    metrics = [(metric, "[robust, strict, legacy]") for metric in ("exact_match", "unparsed")]
    if name in TYPES and all(TASKS[task].kind == "choice" for task in GROUPS[name]):
        metrics.append(("option_rank", "[none]"))
    members = ("id", "ood") if name == "all" else GROUPS[name]
    lines = [f"# {meaning}", f"group: infosteer_{name}", "task:", *(f"  - infosteer_{member}" for member in members)]
    lines.append("aggregate_metric_list:")
    lines += [
        f"  - {{metric: {metric}, aggregation: mean, weight_by_size: false, filter_list: {filters}}}"
        for metric, filters in metrics
    ]
    return "\n".join([*lines, "metadata: {version: 1.0}"]) + "\n"


def stale(folder: Path = FOLDER) -> dict[str, str | None]:
    """File name -> what should stand there, None for a file of no group; only where it differs."""
    wanted: dict[str, str | None] = {f"infosteer_{name}.yaml": group_yaml(name) for name in GROUPS}
    wanted |= {path.name: None for path in folder.glob("*.yaml") if path.name not in wanted}
    found = {name: path.read_text(encoding="utf-8") if (path := folder / name).is_file() else None for name in wanted}
    return {name: text for name, text in wanted.items() if text != found[name]}


def main(arguments: list[str] | None = None) -> int:
    """Exit code 1 if --check found a file that differs."""
    parser = argparse.ArgumentParser(prog="python -m infosteer_dev.groups")
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args(arguments).check
    found = stale()
    for name, text in found.items():
        if check:
            print(f"tasks/groups/{name} is not what benchmark.py says; next: python -m infosteer_dev.groups")
        elif text is None:
            (FOLDER / name).unlink()
        else:
            (FOLDER / name).write_text(text, encoding="utf-8")
    return int(check and bool(found))


if __name__ == "__main__":
    sys.exit(main())
