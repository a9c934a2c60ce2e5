"""Keys become file names: whatever a mix, model or task is called, they stay in their folder and fit a file system."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from infosteer_bench.grid import MethodArm, load_grid
from infosteer_bench.records import CellRecord, CheckpointRecord, samples_path, write_atomic
from infosteer_bench.runs.choose import plan_grid
from infosteer_bench.runs.plan import Plan, build_plan, cell_key

HOSTILE = {
    "up": "../../x",
    "absolute": "/etc/passwd",
    "nul": "a\0b",
    "dots": "..",
    "nothing": "",
    "windows": "C:\\x\\..\\y",
    "lines": "a\nb",
    "tilde": "~/x",
    "letters": "ключ",
    "very long": "x" * 5000,
}


@pytest.fixture(scope="module")
def plan() -> Plan:
    """sft of one embedded model on one mix."""
    grid = load_grid("embedded").model_copy(
        update={"models": ("mini-llama",), "methods": (MethodArm(name="sft"),), "tasks": ("addsub",), "seeds": (0,)}
    )
    return plan_grid(grid, data_root=None, model_root=None, quiet=True)[0]


@pytest.mark.parametrize("name", HOSTILE.values(), ids=HOSTILE)
def test_hostile_names_stay_in_their_folder(plan: Plan, tmp_path: Path, name: str) -> None:
    inputs = plan.inputs
    (spec,), (mix,) = inputs.mix_specs, inputs.mixes.values()
    model = replace(inputs.models[0], id=name)
    other = replace(
        inputs,
        models=(model,),
        mix_specs=(spec.model_copy(update={"name": name}),),
        mixes={(name, name): replace(mix, name=name)},
    )
    (planned,) = build_plan(plan.grid, other).checkpoints
    key = cell_key(planned.key, name, {"a": 1})
    for folder, file in (
        (CheckpointRecord.FOLDER, f"{planned.key}.json"),
        (CellRecord.FOLDER, f"{key}.json"),
        ("logs", f"{key}.log"),
    ):
        write_atomic(tmp_path / folder / file, "{}")
        assert [path.name for path in (tmp_path / folder).iterdir()] == [file]
    write_atomic(samples_path(tmp_path, key), b"")
    assert len(list(tmp_path.rglob("*"))) == 8, "four folders with a file each, and nothing elsewhere"


def test_long_names_stay_apart(plan: Plan) -> None:
    (model,) = plan.inputs.models
    keys = set()
    for ending in "ab":
        named = replace(model, id="x" * 300 + ending)
        mixes = {(name, named.id): mix for (name, _), mix in plan.inputs.mixes.items()}
        (planned,) = build_plan(plan.grid, replace(plan.inputs, models=(named,), mixes=mixes)).checkpoints
        keys.add(planned.key)
    assert len(keys) == 2
    (usual,) = plan.checkpoints
    assert usual.key.startswith("mini-llama--sft--")
