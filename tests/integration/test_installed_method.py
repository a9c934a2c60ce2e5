"""A run with a method of an installed package: its worker processes know it too."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from tests.integration.cli import run
from tests.unit.test_methods_installed import install

pytestmark = pytest.mark.integration

GRID = """
name: theirs
models: [mini-llama]
methods: [sft, scaled]
mixes: [commonsense]
tasks: [boolq]
seeds: [0]
data_root: miniworld
train: {max_steps: 1, max_examples: 8, batch_size: 4, gradient_accumulation: 1, warmup_steps: 0, precision: float32}
eval: {limit: 2, max_new_tokens: 4, dtype: float32, backend: hf}
"""


def test_workers_train_it(tmp_path: Path) -> None:
    (tmp_path / "theirs.yaml").write_text(GRID)
    folder = install(tmp_path / "site")
    path = os.pathsep.join([str(folder), *filter(None, sys.path)])
    run(["run", "--grid", "theirs.yaml", "--workers", "2", "--keep-checkpoints"], tmp_path, PYTHONPATH=path)
    records = [json.loads(path.read_text()) for path in (tmp_path / "runs/theirs/checkpoints").glob("*.json")]
    found = {one["method"]: one for one in (record.get("content", record) for record in records)}
    assert found["scaled"]["status"] == found["sft"]["status"] == "success"
    assert found["scaled"]["weight_digest"] != found["sft"]["weight_digest"]
    assert found["scaled"]["identity"]["method"]["source"]
