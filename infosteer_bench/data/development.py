"""The development split as a data root of its own: choose strengths on it with an ordinary run, never on test items.

    infosteer-bench data dev --data-root miniworld --output dev
    infosteer-bench run --grid embedded-strengths --data-root dev

Its test files are the rows that every mix holds out of training (docs/method.md: 2 % of each commonsense training file,
the last 300 GSM8K rows); its training files are the source's own, unchanged, so the same rows are trained on as ever.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from infosteer_bench.benchmark import COMMONSENSE, TASKS
from infosteer_bench.data.mixes import GSM8K_DEV_ROWS, in_commonsense_dev
from infosteer_bench.data.sources import GSM8K_TRAIN, DataSource, load_json_records
from infosteer_bench.errors import UserError
from infosteer_bench.records import write_atomic


def write_development(source: DataSource, output: Path) -> dict[str, int]:
    """Write the data root; returns items per task. Tasks whose training file the source lacks are left out.

    Raises UserError if there is none at all, or `output` holds something already.
    """
    if output.exists() and any(output.iterdir()):
        raise UserError(f"--output {output} is not empty", hint="give a new folder")
    items: dict[str, list[dict[str, Any]]] = {}
    for task in COMMONSENSE:
        relative = f"dataset/{TASKS[task].folder}/train.json"
        if source.has(relative):
            file = source.get(relative)
            rows = [row for row in load_json_records(file) if in_commonsense_dev(str(row.get("instruction", "")))]
            if rows:
                items[task] = rows
                _copy(file.path, output / relative)
    if source.has(GSM8K_TRAIN):
        file = source.get(GSM8K_TRAIN)
        items["gsm8k"] = [_as_item(row) for row in load_json_records(file)[-GSM8K_DEV_ROWS:]]
        _copy(file.path, output / GSM8K_TRAIN)
    if not items:
        raise UserError("no training file is there to take a development split from")
    for task, rows in items.items():
        text = json.dumps(rows, indent=1, ensure_ascii=False) + "\n"
        write_atomic(output / "dataset" / TASKS[task].folder / "test.json", text)
    return {task: len(rows) for task, rows in items.items()}


def _as_item(row: dict[str, Any]) -> dict[str, Any]:
    """GSM8K's {question, answer: "... #### n"} in the form of test items."""
    rationale, _, answer = str(row["answer"]).rpartition("####")
    return {"instruction": row["question"], "input": "", "output": rationale.strip(), "answer": answer.strip()}


def _copy(origin: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(origin, target)
