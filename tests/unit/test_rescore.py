"""Scoring stored answers again: the same filters give the same cells, changed ones give new cells, nothing is asked."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from infosteer_bench.cli import main
from infosteer_bench.errors import UserError
from infosteer_bench.evaluation import engine as engine_module
from infosteer_bench.grid import Grid, MethodArm, load_grid
from infosteer_bench.records import CellRecord, read_items, read_records, samples_path
from infosteer_bench.runs.choose import plan_grid
from infosteer_bench.runs.inputs import Roots
from infosteer_bench.runs.local import do
from infosteer_bench.runs.lock import locked
from infosteer_bench.runs.rescore import rescore
from infosteer_bench.runs.status import read_status
from infosteer_bench.tasks import catalog

YAML = """
task: mine
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
generation_kwargs: {{until: ["\\n"], do_sample: false, max_gen_toks: 4}}
metric_list: [{{metric: exact_match, aggregation: mean, higher_is_better: true}}]
filter_list: [{{name: first, filter: [{{function: regex, regex_pattern: '{pattern}'}}, {{function: take_first}}]}}]
"""


def write_task(folder: Path, pattern: str) -> Path:
    folder.mkdir(exist_ok=True)
    rows = [{"question": f"The hobbit number {n} lives in", "answer": "a hole"} for n in range(3)]
    (folder / "mine.json").write_text(json.dumps(rows))
    (folder / "mine.yaml").write_text(YAML.format(data=folder / "mine.json", pattern=pattern))
    return folder


def grid_of(include: Path) -> Grid:
    grid = load_grid("embedded", overrides=["eval.limit=3", "eval.max_new_tokens=6"])
    return grid.model_copy(
        update={
            "models": ("mini-llama",),
            "methods": (MethodArm(name="base"),),
            "tasks": ("boolq", "gsm8k", "mine"),
            "include_path": str(include),
        }
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run (3 cells of an embedded model) and the user's task."""
    root = tmp_path_factory.mktemp("finished")
    plan, roots = plan_grid(grid_of(write_task(root / "own", "(.*)")), data_root=None, model_root=None, quiet=True)
    assert not do(plan, root / "run", roots, quiet=True, workers=0).failures
    return root


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished / "run", tmp_path / "run"))


@pytest.fixture
def no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("an engine was asked for")

    monkeypatch.setattr(engine_module, "make_engine", refuse)


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for name in ("cells", "samples", "answers")
        for path in (folder / name).iterdir()
    }


def test_the_same_filters_change_nothing(finished: Path, copy: Path, no_engine: None) -> None:
    before = files(copy)
    outcome = rescore(copy, Roots(), include_path=finished / "own")
    assert (outcome.same, outcome.changed, outcome.failures) == (3, [], [])
    assert files(copy) == before


def test_a_raised_version_gives_new_cells_that_the_next_run_takes(
    finished: Path, copy: Path, no_engine: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = files(copy)
    monkeypatch.setattr(catalog, "FILTERS_VERSION", 99)
    outcome = rescore(copy, Roots(), include_path=finished / "own")
    assert (outcome.same, outcome.changed, outcome.failures) == (3, [], [])
    after = files(copy)
    assert before.items() <= after.items()
    assert len([name for name in after.keys() - before.keys() if name.startswith("cells/")]) == 2
    assert not [name for name in after.keys() - before.keys() if name.startswith("answers/")]
    plan, roots = plan_grid(grid_of(finished / "own"), data_root=None, model_root=None, quiet=True)
    found = read_status(plan, copy)
    assert (found.done, found.missing, found.stale) == (3, 0, 2)
    assert not do(plan, copy, roots, quiet=True).failures


def test_a_changed_filter_changes_scores_and_no_generation(
    finished: Path, copy: Path, tmp_path: Path, no_engine: None, capsys: pytest.CaptureFixture[str]
) -> None:
    cells, _ = read_records(copy, CellRecord)
    (mine,) = [cell for cell in cells.values() if cell.task == "mine"]
    was = read_items(samples_path(copy, mine.key))
    assert any(json.loads(row["extracted"])["first"] for row in was)
    # the same data by the same path, another pattern
    own = finished / "own"
    changed = tmp_path / "changed"
    changed.mkdir()
    (changed / "mine.yaml").write_text(YAML.format(data=own / "mine.json", pattern="never (x) said"))
    assert main(["rescore", "--runs", str(copy), "--include-path", str(changed), "--quiet"]) == 0
    said = capsys.readouterr().out
    assert "3 cells scored again, 1 of them changed" in said
    assert "mine: the same scores, other extracted answers" in said
    now, _ = read_records(copy, CellRecord)
    (new,) = [cell for cell in now.values() if cell.task == "mine" and cell.key != mine.key]
    assert new.unparsed == {"first": 100.0}
    assert mine.unparsed == {"first": 0.0}
    items = read_items(samples_path(copy, new.key))
    assert [row["generation"] for row in items] == [row["generation"] for row in was]
    assert new.key in json.loads((copy / "plan.json").read_text())["cells"]
    assert mine.key not in json.loads((copy / "plan.json").read_text())["cells"]


def test_what_cannot_be_scored_is_left_and_named(finished: Path, copy: Path, no_engine: None) -> None:
    outcome = rescore(copy, Roots())  # without the user's tasks
    assert outcome.same == 2
    (line,) = outcome.failures
    assert "no task 'mine' is known here; --include-path" in line
    (answers,) = (copy / "answers").iterdir()
    lines = answers.read_bytes().splitlines(keepends=True)
    answers.write_bytes(b"".join(lines[:2]))  # the header and one answer
    outcome = rescore(copy, Roots(), include_path=finished / "own")
    assert outcome.same == 0
    assert len(outcome.failures) == 3
    assert all("answers are not stored; `run` asks for them" in line for line in outcome.failures)
    answers.unlink()
    outcome = rescore(copy, Roots(), include_path=finished / "own")
    assert ["no answers are stored" in line for line in outcome.failures] == [True] * 3


def test_other_data_than_was_asked(finished: Path, copy: Path, data_root: Path, no_engine: None) -> None:
    outcome = rescore(copy, Roots(data_root), include_path=finished / "own")
    assert outcome.same == 1
    assert len(outcome.failures) == 2
    assert all("differs from the one that was asked; --data-root" in line for line in outcome.failures)


def test_no_run_and_a_run_in_use(copy: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no run"):
        rescore(tmp_path, Roots())
    assert main(["rescore", "--runs", str(tmp_path)]) == 2
    with locked(copy), pytest.raises(UserError, match="is in use"):
        rescore(copy, Roots())


def test_lost_cells_come_back_from_their_answers(finished: Path, copy: Path, no_engine: None) -> None:
    """A run that was stopped between answering and recording asks nothing again, and loads no engine."""
    before, _ = read_records(copy, CellRecord)
    shutil.rmtree(copy / "cells")
    shutil.rmtree(copy / "samples")
    plan, roots = plan_grid(grid_of(finished / "own"), data_root=None, model_root=None, quiet=True)
    assert not do(plan, copy, roots, quiet=True, workers=0).failures
    after, _ = read_records(copy, CellRecord)
    assert after.keys() == before.keys()
    for key, cell in after.items():
        assert cell.samples_sha256 == before[key].samples_sha256
        assert (cell.exact_match, cell.option_rank) == (before[key].exact_match, before[key].option_rank)
        assert cell.time_s == pytest.approx(before[key].time_s, abs=1e-3), "the engine's time, as it was"
