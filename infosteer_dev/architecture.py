"""The parts of docs/architecture.md that are read from the code: floors, and the paths through the main loop.

A reading path is a list of functions in the order in which they call one another. Each is looked up in the package's
files without importing them: a function that moves takes its link along, one that changes its name stops the
documentation until its line here is corrected.
"""

from __future__ import annotations

import ast
import os
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from infosteer_bench.errors import UserError
from infosteer_dev.tables import text_table

STRUCTURE = Path("tests/unit/test_structure.py")


class Step(NamedTuple):
    """function: name, or Class.name; what: said in one line; within: part of the path, where several have the name."""

    function: str
    what: str
    within: str = ""


READING_PATHS: dict[str, list[Step]] = {
    "train": [
        Step("main", "reads the arguments, imports the command, turns errors into one line", within="cli"),
        Step("run_command", "the command: grid, plan, run, board"),
        Step("choose_grid", "the grid file with what was asked for on top"),
        Step("load_grid", "YAML to a frozen `Grid`; an unknown field is refused"),
        Step("resolve_inputs", "looks up models, data, tasks, engine; all digests"),
        Step("build_plan", "pure: the checkpoints and their keys"),
        Step("do", "takes the folder's lock, finds what is done, hands out the rest", within="runs/local"),
        Step("read_status", "reads the records: done, missing, failed, stale, damaged", within="runs/"),
        Step("jobs", "which checkpoints go together, and the GPUs they need", within="runs/placement"),
        Step("Schedule.run", "gives jobs to a runner; tries again what is lost"),
        Step("Pool.submit", "the runner of one machine: a worker process takes the job"),
        Step("_work", "a worker's whole life: take a job, do it, say so", within="runs/"),
        Step("run_group", "checkpoints of one model: train, answer, drop"),
        Step("Worker.checkpoint", "one checkpoint and its record"),
        Step("Worker._train", "what training needs, and what the record says of it"),
        Step("train_checkpoint", "load, prepare, attach, train, export"),
        Step("build_trainer", "the recipe of the grid as trainer arguments"),
        Step(
            "MethodTrainer.get_batch_samples",
            "counts the tokens that the penalty is divided by: the whole optimizer batch's",
        ),
        Step("MethodTrainer.compute_loss", "**adds the penalty to the loss**: `total = loss + penalty`"),
        Step("InfoSteerRegularization.penalty", "what is added: -lambda x sum of H over layers and tokens"),
        Step("InfoSteerIntervention.attach", "the other variant: hooks that lift the weakest coefficients"),
        Step("Tap", "where k is read or edited: the input of `down_proj`"),
        Step("key_entropy", "H and its gradient"),
        Step("lift_smallest", "the lift, and its controls"),
        Step("export", "a plain Hugging Face folder, whole or not at all", within="training/"),
    ],
    "answer": [
        Step("Worker.cells", "has a checkpoint answer its tasks"),
        Step("Evaluator.cells", "one queue, then a record per task"),
        Step("Evaluator.stored", "what was answered before needs no model"),
        Step("make_engine", "`hf` or `vllm`, one contract (`Engine`)"),
        Step("VLLMEngine.load", "swaps weights into the live engine, reads back"),
        Step("evaluate_tasks", "builds lm-eval's tasks, asks, scores"),
        Step("EngineLM.generate_until", "lm-eval calls back here"),
        Step("EngineLM.generate_ids", "each engine's own: `HFLM`, `VLLMLM`"),
        Step("AnswerStore.add", "every answer to a file as it comes"),
        Step("robust", "from a text to an answer", within="tasks/"),
        Step("write_items", "one row per item"),
        Step("Record.save", "the sealed record: temporary file, sync, rename"),
    ],
    "board": [
        Step("publish", "a run's folder to a board's folder", within="leaderboard/"),
        Step("collect", "the records that count, made small", within="leaderboard/"),
        Step("rebuild", "the same for a clean clone, from records alone", within="leaderboard/"),
        Step("Items.disagree", "do the items give the recorded scores?"),
        Step("Items.scores", "the marks of every item"),
        Step("Board.of", "the value that every view takes"),
        Step("build_rows", "a row per model, method, mix, task and mean"),
        Step("with_statistics", "each row against sft"),
        Step("compare", "interval and p-values over seeds and items", within="leaderboard/"),
        Step("to_markdown", "`leaderboard.md`", within="leaderboard/"),
        Step("build_page", "`index.html`"),
        Step("update_figures", "SVG and PNG"),
    ],
}


def reading_path(name: str, root: Path, folder: Path) -> str:
    """One path as a table with links from `folder`. Raises UserError for a step that is found nowhere, or twice."""
    defined = _defined(root / "infosteer_bench")
    rows: list[list[str]] = []
    for number, step in enumerate(READING_PATHS[name], 1):
        files = [path for path in defined.get(step.function, ()) if step.within in path.as_posix()]
        if len(files) != 1:
            raise UserError(
                f"reading path {name!r}: {step.function} is defined in {len(files)} files",
                allowed="one, narrowed by `within`",
                hint="correct infosteer_dev/architecture.py",
            )
        link = Path(os.path.relpath(files[0], folder)).as_posix()
        short = files[0].relative_to(root / "infosteer_bench").as_posix()
        rows.append([str(number), f"`{step.function}`", f"[{short}]({link})", step.what])
    return text_table(["", "function", "file", "what it does"], rows)


@lru_cache
def _defined(package: Path) -> dict[str, list[Path]]:
    """Functions and classes of a package, methods as Class.name -> files that define them."""
    found: dict[str, list[Path]] = {}
    for path in sorted(package.rglob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                found.setdefault(node.name, []).append(path)
            if isinstance(node, ast.ClassDef):
                for inner in node.body:
                    if isinstance(inner, ast.FunctionDef):
                        found.setdefault(f"{node.name}.{inner.name}", []).append(path)
    return found


def floors(root: Path) -> str:
    """Every room with its floor (the table that the test of imports holds) and what it is for (its docstring)."""
    found = _assigned(root / STRUCTURE, "FLOORS")
    rows = [
        [str(floor), f"`{room}`", purpose]
        for room, floor in sorted(found.items(), key=lambda item: item[1])  # on a floor in the order of the test
        if (purpose := _purpose(root / "infosteer_bench", room)) is not None
    ]
    return text_table(["floor", "room", "what it is for"], rows)


def _assigned(path: Path, name: str) -> dict[str, int]:
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == name for t in node.targets):
            return ast.literal_eval(node.value)
    raise UserError(f"{path} assigns no {name}")


def _purpose(package: Path, room: str) -> str | None:
    """The first sentence of a room's docstring; None for a room that does not exist."""
    parts = room.replace(".", "/")
    for path in (package / f"{parts}.py", package / parts / "__init__.py"):
        if path.is_file():
            docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
            return " ".join(docstring.split("\n\n")[0].split()).replace("|", "\\|")
    return None
