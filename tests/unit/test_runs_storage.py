"""How many checkpoints lie on disk at once: trained and answered in batches, the most of them recorded."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from infosteer_bench.cli import main
from infosteer_bench.runs.group import run_group
from infosteer_bench.runs.repair import drop_passing, repair
from infosteer_bench.runs.status import Status
from infosteer_bench.runs.storage import PASSING, Storage, high_water, note_storage


@dataclass
class Scripted:
    """Stands in for a Worker: trains by making a folder, answers one task; says what it did in which order."""

    run_dir: Path
    unanswerable: str = ""
    did: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.progress = SimpleNamespace(cell=lambda *_, **__: None, at=lambda _: None)
        self.evaluator = SimpleNamespace(stored=lambda *_: iter(()))

    def has_weights(self, planned: Any, record: Any) -> bool:
        return (self.run_dir / "weights" / planned.key).is_dir()

    def checkpoint(self, planned: Any) -> Any:
        folder = self.run_dir / "weights" / planned.key
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_bytes(bytes(100))
        self.did.append(f"train {planned.key}")
        return record()

    def cells(self, planned: Any, record: Any, tasks: list[str]) -> Any:
        self.did.append(f"answer {planned.key}")
        status = "failed" if planned.key == self.unanswerable else "success"
        for task in tasks:
            yield SimpleNamespace(task=task, status=status, error="no", exact_match={}, n_items=1, time_s=0.0)

    def drop_weights(self, planned: Any) -> None:
        self.did.append(f"drop {planned.key}")
        shutil.rmtree(self.run_dir / "weights" / planned.key)
        (self.run_dir / "weights" / f"{planned.key}{PASSING}").unlink()

    def mark_passing(self, planned: Any) -> None:
        (self.run_dir / "weights" / f"{planned.key}{PASSING}").touch()


def record() -> Any:
    return SimpleNamespace(status="success", weight_digest="w", error=None)


def group(keys: str) -> list[Any]:
    return [SimpleNamespace(key=key, label=key, tasks=("boolq",)) for key in keys]


def found(keys: str, recorded: str = "") -> Status:
    return Status(records={key: record() for key in recorded}, open_tasks={key: ["boolq"] for key in keys})


def test_a_batch_is_trained_answered_and_dropped_before_the_next(tmp_path: Path) -> None:
    worker: Any = Scripted(tmp_path)
    assert run_group(worker, group("abc"), found("abc"), Storage(most=2)) == []
    assert worker.did == [
        *("train a", "train b", "answer a", "drop a", "answer b", "drop b"),
        *("train c", "answer c", "drop c"),
    ]
    assert high_water(tmp_path) == {"most_checkpoints": 2, "most_bytes": 200}


def test_without_a_limit_one_batch(tmp_path: Path) -> None:
    worker: Any = Scripted(tmp_path)
    run_group(worker, group("abc"), found("abc"), Storage())
    assert worker.did[:3] == ["train a", "train b", "train c"]
    assert high_water(tmp_path)["most_checkpoints"] == 3
    assert not list((tmp_path / "weights").iterdir())


def test_kept_checkpoints_stay(tmp_path: Path) -> None:
    worker: Any = Scripted(tmp_path)
    run_group(worker, group("ab"), found("ab"), Storage(keep=True))
    assert len(list((tmp_path / "weights").iterdir())) == 2


def left_by_a_killed_run(tmp_path: Path) -> set[str]:
    return {path.name for path in (tmp_path / "weights").iterdir()}


def test_killed_right_before_dropping(tmp_path: Path) -> None:
    """The last cell is done and the weights still lie there: the next run removes them, unless they are kept or asked
    to be; weights of open cells wait for those."""

    class Killed(Scripted):
        def drop_weights(self, planned: Any) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_group(Killed(tmp_path), group("a"), found("a"), Storage())  # type: ignore[arg-type]
    assert left_by_a_killed_run(tmp_path) == {"a", f"a{PASSING}"}
    drop_passing(found("a"), Storage(), tmp_path)
    assert left_by_a_killed_run(tmp_path) == {"a", f"a{PASSING}"}, "its cell is open"
    done = Status(open_tasks={"a": []})
    drop_passing(Status(), Storage(), tmp_path)
    assert left_by_a_killed_run(tmp_path) == {"a", f"a{PASSING}"}, "not of this plan"
    drop_passing(done, Storage(), tmp_path)
    assert left_by_a_killed_run(tmp_path) == set()

    run_group(Scripted(tmp_path), group("a"), found("a"), Storage(keep=True))  # type: ignore[arg-type]
    drop_passing(done, Storage(), tmp_path)
    assert left_by_a_killed_run(tmp_path) == {"a"}, "a later run without the option leaves what was to stay"
    (tmp_path / "weights" / f"a{PASSING}").touch()
    drop_passing(done, Storage(keep=True), tmp_path)
    drop_passing(done, Storage(), tmp_path)
    assert left_by_a_killed_run(tmp_path) == {"a"}


def test_passing_weights_that_are_damaged(tmp_path: Path) -> None:
    weights = tmp_path / "weights" / "a"
    weights.mkdir(parents=True)
    weights.with_name(f"a{PASSING}").touch()
    damaged = Status(open_tasks={"a": []}, damaged=[weights])
    drop_passing(damaged, Storage(), tmp_path)
    repair(damaged, Storage())
    assert left_by_a_killed_run(tmp_path) == set()


def test_what_failed_to_answer_stays_unless_there_is_a_limit(tmp_path: Path) -> None:
    for storage, left in ((Storage(), ["b", f"b{PASSING}"]), (Storage(most=1), [])):
        run_dir = tmp_path / str(storage.most)
        worker: Any = Scripted(run_dir, unanswerable="b")
        (failure,) = run_group(worker, group("abc"), found("abc"), storage)
        assert failure == "b boolq: no"
        assert sorted(path.name for path in (run_dir / "weights").iterdir()) == left


def test_what_lies_there_already_makes_room_first(tmp_path: Path) -> None:
    (tmp_path / "weights" / "c").mkdir(parents=True)
    worker: Any = Scripted(tmp_path)
    run_group(worker, group("abc"), found("abc", recorded="c"), Storage(most=1))
    assert worker.did[:2] == ["answer c", "drop c"]
    assert high_water(tmp_path)["most_checkpoints"] == 1


def test_marks_never_fall_and_survive_damage(tmp_path: Path) -> None:
    assert high_water(tmp_path) == {}
    folder = tmp_path / "weights" / "a"
    folder.mkdir(parents=True)
    (folder / "x").write_bytes(bytes(7))
    note_storage(tmp_path)
    shutil.rmtree(folder)
    note_storage(tmp_path)
    assert high_water(tmp_path) == {"most_checkpoints": 1, "most_bytes": 7}
    (tmp_path / "storage.json").write_text('{"most')
    note_storage(tmp_path)
    assert high_water(tmp_path) == {"most_checkpoints": 0, "most_bytes": 0}


def test_both_options_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--keep-checkpoints", "--max-checkpoints-on-disk", "2", "--output", str(tmp_path / "runs")]
    assert main(["run", *options]) == 2
    assert "exclude one another" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
