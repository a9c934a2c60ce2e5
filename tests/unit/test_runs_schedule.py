"""The schedule on a runner that is played: which job goes when, what a lost or silent worker costs, in what order."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from infosteer_bench.runs import schedule
from infosteer_bench.runs.placement import at_once
from infosteer_bench.runs.runner import DiskFull, Done, Event, Job, Lost, Payload, Said, Slots
from infosteer_bench.runs.schedule import RetryPolicy, Schedule
from infosteer_bench.runs.status import Status


class Played:
    """A runner of four GPUs. lives: what each try at a job's first checkpoint does, the last one again and again."""

    name = "played"

    def __init__(self, **lives: list[Any]) -> None:
        self.lives = lives
        self.tries: dict[str, int] = {}
        self.running: dict[int, Job] = {}
        self.log: list[str] = []
        self.closed = False

    def slots(self) -> Slots:
        return Slots(4, ("0", "1", "2", "3"))

    def check(self, plan: Any) -> None:
        pass

    def prepare(self, payload: Payload) -> None:
        raise AssertionError("the schedule takes a runner that is prepared")

    def submit(self, job: Job) -> int | None:
        if job.gpus > 4 - sum(other.gpus for other in self.running.values()):
            return None
        ticket = len(self.log)
        self.log.append("".join(job.keys))
        self.running[ticket] = job
        return ticket

    def events(self, timeout_s: float) -> list[Event]:
        """The oldest job goes on by one event."""
        for ticket, job in self.running.items():
            key = job.keys[0]
            number = self.tries.get(key, 0)
            self.tries[key] = number + 1
            lives = self.lives.get(key, [])
            event = lives[min(number, len(lives) - 1)](ticket) if lives else Done(ticket, [])
            if event is None:
                time.sleep(0.02)
                continue
            if isinstance(event, Done | Lost):
                del self.running[ticket]
            return [event]
        return []

    def end(self, ticket: int) -> None:
        del self.running[ticket]

    def close(self, *, now: bool = False) -> None:
        self.closed = True


class Shown:
    def __init__(self) -> None:
        self.told: list[tuple[str, tuple[Any, ...]]] = []

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **_: self.told.append((name, args))


def scheduled(
    runner: Played, jobs: dict[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **policy: Any
) -> tuple[list[str], Shown]:
    """Run jobs of one letter per checkpoint with the GPUs they need; what is done stays so after a loss."""
    letters = "".join(jobs)
    plan: Any = SimpleNamespace(checkpoints=[SimpleNamespace(key=letter, label=letter) for letter in letters])
    status = Status(open_tasks={letter: ["boolq"] for letter in letters})
    monkeypatch.setattr(schedule, "read_status", lambda *_: Status(open_tasks=dict(status.open_tasks)))
    shown: Any = Shown()
    payload: Any = SimpleNamespace(plan=plan, run_dir=tmp_path)
    found = Schedule(payload, runner, shown, status, RetryPolicy(**policy)).run(
        Job(tuple(keys), status.of(keys), gpus) for keys, gpus in jobs.items()
    )
    assert runner.closed
    return found, shown


def test_jobs_of_different_sizes_go_side_by_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A job of four GPUs waits for all; those of one and two fill what is left meanwhile, without a barrier."""
    runner = Played()
    failures, _ = scheduled(runner, {"a": 2, "b": 4, "c": 1, "d": 1, "e": 1}, tmp_path, monkeypatch)
    assert failures == []
    assert runner.log == ["a", "c", "d", "e", "b"]


def test_failures_come_in_the_order_of_the_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    lives = {name: [lambda ticket, name=name: Done(ticket, [f"{name} failed"])] for name in "ab"}
    failures, _ = scheduled(Played(**lives), {"a": 4, "b": 1}, tmp_path, monkeypatch)
    assert failures == ["a failed", "b failed"]


def test_a_lost_checkpoint_is_tried_again_and_then_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    runner = Played(a=[lambda ticket: Lost(ticket, "gone")])
    failures, shown = scheduled(runner, {"ab": 1, "c": 1}, tmp_path, monkeypatch, retries=2)
    assert failures == ["a: gone (log: logs/a.log)"]
    assert runner.log == ["ab", "c", "ab", "ab", "b"]
    assert [args[0].rpartition("; ")[2] for name, args in shown.told if name == "line"][:2] == ["trying again"] * 2


def test_what_a_worker_said_last_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The checkpoint it said it works on is the one that pays, and its last words are in the log."""
    lives = [
        lambda ticket: Said(ticket, "at", ("b",), {}),
        lambda ticket: Said(ticket, "activity", ("step 7",), {}),
        lambda ticket: Lost(ticket, "gone"),
        lambda ticket: Done(ticket, []),
    ]
    failures, shown = scheduled(Played(a=lives), {"ab": 1}, tmp_path, monkeypatch, retries=0)
    assert failures == ["b: gone (log: logs/b.log)"]
    assert (tmp_path / "logs/b.log").read_text() == "gone\nits last words: step 7\n"
    assert ("activity", ("step 7",)) in shown.told


def test_silence_ends_a_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    runner = Played(a=[lambda _: None])
    failures, _ = scheduled(runner, {"a": 1, "b": 1}, tmp_path, monkeypatch, retries=0, silence_s=0.2)
    (failure,) = failures
    assert failure.startswith("a: its worker said nothing for 0 s and was ended")
    assert runner.log == ["a", "b"]


def test_a_job_that_no_slot_can_take_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """It would wait for ever."""
    runner = Played()
    with pytest.raises(RuntimeError, match="no room for a job although it does nothing"):
        scheduled(runner, {"a": 5}, tmp_path, monkeypatch)
    assert runner.closed


@pytest.mark.parametrize(
    ("gpus", "number", "wanted"), [([4, 4, 4], 8, 2), ([4, 1, 1], 8, 3), ([1] * 9, 8, 8), ([2, 2], 1, 1), ([5], 4, 1)]
)
def test_how_many_jobs_run_at_once(gpus: list[int], number: int, wanted: int):
    slots = Slots(number, tuple(map(str, range(8))))
    assert at_once([Job(("a",), Status(), need) for need in gpus], slots) == wanted


def test_a_full_disk_ends_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    runner = Played(a=[lambda ticket: DiskFull(ticket, "no room")])
    with pytest.raises(OSError, match="no room"):
        scheduled(runner, {"a": 1}, tmp_path, monkeypatch)
    assert runner.closed


def test_a_run_takes_a_runner_of_ones_own(tmp_path: Path) -> None:
    """A class of the protocol's shape is all that a new runner is: this one tells each job before it is done."""
    from infosteer_bench.grid import load_grid
    from infosteer_bench.runs.choose import plan_grid
    from infosteer_bench.runs.in_process import InProcess
    from infosteer_bench.runs.local import do
    from infosteer_bench.runs.progress import Progress

    class Telling(InProcess):
        name = "telling"
        taken: list[int]

        def submit(self, job: Job) -> int | None:
            ticket = super().submit(job)
            self.taken += [len(job.keys)] if ticket else []
            return ticket

    grid = load_grid("embedded", overrides=["methods=[base]", "tasks=[boolq]", "eval.limit=1", "eval.max_new_tokens=2"])
    plan, roots = plan_grid(grid, quiet=True)
    with Progress(total=3, log=tmp_path / "log", quiet=True) as progress:
        runner = Telling(progress)
        runner.taken = []
        result = do(plan, tmp_path / "run", roots, quiet=True, runner=runner)
    assert (result.done, result.failures) == (3, ())
    assert runner.taken == [1, 1, 1], "one job per base model"
