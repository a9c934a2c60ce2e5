"""One row per task and model of the paper: what is written elsewhere says the same."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from infosteer_bench.benchmark import COMMONSENSE, GROUPS, MATH, MIXES, PAPER_MODELS, TASKS
from infosteer_bench.tasks.catalog import read_tasks
from infosteer_dev import groups


@pytest.mark.parametrize("name", TASKS)
def test_a_tasks_yaml_says_what_its_row_says(name: str) -> None:
    info, row = read_tasks()[name], TASKS[name]
    assert (info.data_file, info.type, info.default_split, info.kind) == (row.test_file, row.type, row.split, row.kind)


def test_groups_and_mixes() -> None:
    assert set(GROUPS["id"]) | set(GROUPS["ood"]) == set(TASKS)
    assert set(GROUPS["ood"]) - set(GROUPS["ood5"]) == {"aqua"}
    assert MIXES == {"commonsense": (COMMONSENSE, COMMONSENSE), "gsm8k": (("gsm8k",), MATH)}
    assert (len(COMMONSENSE), len(MATH), len(PAPER_MODELS)) == (8, 7, 6)


def test_group_yamls_are_what_the_rows_say() -> None:
    assert groups.stale() == {}
    assert groups.main(["--check"]) == 0


def test_a_group_yaml_that_differs_is_found(tmp_path: Path) -> None:
    for path in groups.FOLDER.glob("*.yaml"):
        shutil.copy(path, tmp_path)
    assert groups.stale(tmp_path) == {}
    (tmp_path / "infosteer_ood.yaml").write_text("group: infosteer_ood\n")
    (tmp_path / "infosteer_id.yaml").unlink()
    (tmp_path / "infosteer_old.yaml").touch()
    assert set(groups.stale(tmp_path)) == {"infosteer_ood.yaml", "infosteer_id.yaml", "infosteer_old.yaml"}
