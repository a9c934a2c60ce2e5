"""What runs jobs: the protocol between the schedule (schedule.py) and the runners, one file each.

    in_process.py   everything in this process, one job after the other
    pool.py         worker processes of this machine

A runner takes jobs and tells events. It holds nothing that a resumed run needs: the records are the state, and whatever
ends a runner, the same command goes on from them. Another runner is another file with a class of this shape.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from infosteer_bench.runs.inputs import Roots
    from infosteer_bench.runs.plan import Plan, PlannedCheckpoint
    from infosteer_bench.runs.status import Status
    from infosteer_bench.runs.storage import Storage


@dataclass(frozen=True)
class Payload:
    """What every worker needs to know, told to it once: the whole plan, never a part of it.

    workers: how many share this machine's cores. storage: of one worker.
    """

    plan: Plan
    run_dir: Path
    roots: Roots
    storage: Storage
    workers: int = 1


@dataclass(frozen=True)
class Job:
    """Checkpoints of one base model that a worker takes in one go (placement.py).

    keys: of the plan's checkpoints. status: what is done of them. gpus: that the worker needs; 0 without GPUs.
    """

    keys: tuple[str, ...]
    status: Status
    gpus: int = 0

    def group(self, plan: Plan) -> list[PlannedCheckpoint]:
        """Its checkpoints, in the order of the plan."""
        wanted = set(self.keys)
        return [planned for planned in plan.checkpoints if planned.key in wanted]


@dataclass(frozen=True)
class Slots:
    """How many workers there may be at once, and the GPUs that they share out, as CUDA_VISIBLE_DEVICES names them.

    gpu_bytes: memory of each; None: as much as the first GPU of this machine has.
    """

    number: int
    gpus: tuple[str, ...] = ()
    gpu_bytes: int | None = None


Ticket = int
"""One try at a job."""


@dataclass(frozen=True)
class Said:
    """The worker calls a method of `Progress`: line, note, activity, cell, or at."""

    ticket: Ticket
    method: str
    arguments: tuple[Any, ...]
    keywords: dict[str, Any]


@dataclass(frozen=True)
class Done:
    """The job came to its end. failures: a line each."""

    ticket: Ticket
    failures: list[str]


@dataclass(frozen=True)
class Lost:
    """The worker is gone; what it had not recorded is to be done again."""

    ticket: Ticket
    why: str


@dataclass(frozen=True)
class DiskFull:
    """The worker found no room to write, so nobody will."""

    ticket: Ticket
    message: str


Event = Said | Done | Lost | DiskFull


class Runner(Protocol):
    """Takes jobs and tells events. Used by one thread."""

    name: str

    def slots(self) -> Slots:
        """What may run at once."""
        ...

    def check(self, plan: Plan) -> None:
        """Called before anything is written. Raises UserError for what this runner cannot do."""
        ...

    def prepare(self, payload: Payload) -> None:
        """Called once, before any job."""
        ...

    def submit(self, job: Job) -> Ticket | None:
        """Take a job; None if there is no room for it now. Never waits for its end."""
        ...

    def events(self, timeout_s: float) -> list[Event]:
        """What happened, within `timeout_s` at the latest; after Done or Lost nothing comes of that ticket."""
        ...

    def end(self, ticket: Ticket) -> None:
        """End a job's worker with all that it started. No event tells of it."""
        ...

    def close(self, *, now: bool = False) -> None:
        """End all workers: idle ones in their own time, busy ones, and with `now` all of them, at once."""
        ...
