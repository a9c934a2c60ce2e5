"""The development split as a data root: exactly the rows that every mix holds out, in the form of test items."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from infosteer_bench.benchmark import COMMONSENSE
from infosteer_bench.data.development import write_development
from infosteer_bench.data.mixes import build_mix
from infosteer_bench.data.roots import open_source
from infosteer_bench.data.sources import LocalRoot
from infosteer_bench.errors import UserError
from infosteer_bench.grid import BUILTIN_MIXES, PromptConfig
from infosteer_bench.tasks.catalog import build_task, read_tasks
from tests.tiny import build_data_root

MINIWORLD = Path("miniworld")


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("dev") / "root"
    write_development(open_source(MINIWORLD), root)
    return root


def test_items_are_the_held_out_rows(dev: Path) -> None:
    for name in ("commonsense", "gsm8k"):
        spec = BUILTIN_MIXES[name]
        mix = build_mix(spec, open_source(MINIWORLD), prompt=PromptConfig(), max_examples=None, part="dev")
        held = sorted((row.prompt, row.completion) for row in mix.rows)
        tasks = read_tasks(None)
        items = []
        for task in spec.sources:
            for doc in build_task(tasks[task], data_root=dev).dataset["test"]:
                answer = "the correct answer is " if name == "commonsense" else "The final answer is: "
                items.append((doc["prompt"], answer + doc["target"]))
        assert [prompt for prompt, _ in sorted(items)] == [prompt for prompt, _ in held]
        for (_, mine), (_, theirs) in zip(sorted(items), held, strict=True):
            assert theirs.endswith(mine)


def test_the_same_rows_are_trained_on(dev: Path) -> None:
    for spec in BUILTIN_MIXES.values():
        mixes = [
            build_mix(spec, source, prompt=PromptConfig(), max_examples=500)
            for source in (open_source(MINIWORLD), LocalRoot(dev))
        ]
        assert mixes[0].digest == mixes[1].digest


def test_out_of_distribution_tasks_have_no_development_items(dev: Path) -> None:
    names = {path.parent.name for path in dev.rglob("test.json")}
    assert len(names) == len(COMMONSENSE) + 1


def test_works_on_any_root(tmp_path: Path) -> None:
    counts = write_development(LocalRoot(build_data_root(tmp_path / "root")), tmp_path / "dev")
    assert counts["gsm8k"] == len(json.loads((tmp_path / "dev/dataset/gsm8k/test.json").read_text()))


def test_refuses_a_folder_in_use(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="not empty"):
        write_development(open_source(MINIWORLD), tmp_path)
