"""Which job next, and what of those whose workers die or fall silent; the same for every runner.

A worker that is gone, or that reports nothing for too long, costs the checkpoint in its hands one of its tries. What is
left of its job is looked up in the records and given to another, but for a checkpoint that has cost too many.
"""

from __future__ import annotations

import errno
import time
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from infosteer_bench.records import write_atomic
from infosteer_bench.runs.runner import DiskFull, Done, Job, Lost, Payload, Runner, Said, Ticket
from infosteer_bench.runs.status import Status, read_status

if TYPE_CHECKING:
    from infosteer_bench.runs.progress import Progress

_LOOK_S = 1.0
"""How often silent workers are looked for."""


@dataclass(frozen=True)
class RetryPolicy:
    """retries: new workers for a checkpoint whose worker died or fell silent. silence_s: seconds without a word (a
    training step, a batch of answers, ...) after which a worker is taken for hung; None: for ever."""

    retries: int = 2
    silence_s: float | None = 3600.0


@dataclass
class _Handle:
    """A job that is being done: the checkpoint that its worker said it works on, and what it said last."""

    job: Job
    at: str | None = None
    last: str = "starting"
    heard: float = field(default_factory=time.monotonic)


class Schedule:
    """Runs jobs on a runner. status: of the whole plan, whose `retrain` the records cannot tell."""

    def __init__(
        self,
        payload: Payload,
        runner: Runner,
        progress: Progress,
        status: Status,
        retry_policy: RetryPolicy | None = None,
    ) -> None:
        self.payload, self.runner, self.progress, self.status = payload, runner, progress, status
        self.retry_policy = retry_policy or RetryPolicy()
        self._running: dict[Ticket, _Handle] = {}
        self._waiting: deque[Job] = deque()
        self._deaths: Counter[str] = Counter()  # workers that a checkpoint has cost
        self._failed: dict[str, list[str]] = {}  # by the first checkpoint of a job

    def run(self, jobs: Iterable[Job]) -> list[str]:
        """Do all jobs on the runner, which is prepared, and close it; returns failures in the order of the plan."""
        self._waiting = deque(jobs)
        try:
            while self._waiting or self._running:
                self._submit()
                if not self._running:
                    raise RuntimeError(f"runner {self.runner.name} has no room for a job although it does nothing")
                for event in self.runner.events(_LOOK_S):
                    self._hear(event)
                self._end_silent()
        except BaseException:
            self.runner.close(now=True)
            raise
        self.runner.close()
        return [text for planned in self.payload.plan.checkpoints for text in self._failed.get(planned.key, [])]

    def _submit(self) -> None:
        """Whatever there is room for, the first in line first; a small job does not wait for a large one's room."""
        left: deque[Job] = deque()
        full: set[int] = set()
        for job in self._waiting:
            ticket = None if job.gpus in full else self.runner.submit(job)
            if ticket is None:
                full.add(job.gpus)
                left.append(job)
            else:
                self._running[ticket] = _Handle(job)
        self._waiting = left

    def _hear(self, event: Said | Done | Lost | DiskFull) -> None:
        handle = self._running[event.ticket]
        handle.heard = time.monotonic()
        match event:
            case DiskFull(message=message):
                raise OSError(errno.ENOSPC, message)
            case Done(failures=failures):
                del self._running[event.ticket]
                if failures:
                    self._failed.setdefault(handle.job.keys[0], []).extend(failures)
            case Lost(why=why):
                self._lost(event.ticket, why)
            case Said(method="at", arguments=(key,)):
                handle.at = key
            case Said(method=method, arguments=arguments, keywords=keywords):
                handle.last = str(arguments[0])
                getattr(self.progress, method)(*arguments, **keywords)

    def _end_silent(self) -> None:
        limit = self.retry_policy.silence_s
        for ticket, handle in list(self._running.items()):
            if limit is not None and time.monotonic() - handle.heard > limit:
                self.runner.end(ticket)
                self._lost(ticket, f"its worker said nothing for {limit:.0f} s and was ended")

    def _lost(self, ticket: Ticket, why: str) -> None:
        """Another worker takes what is left of the job, but for a checkpoint that cost too many."""
        handle = self._running.pop(ticket)
        keys = handle.job.keys
        key = handle.at if handle.at in keys else keys[0]
        planned = next(planned for planned in self.payload.plan.checkpoints if planned.key == key)
        self._deaths[key] += 1
        given_up = self._deaths[key] > self.retry_policy.retries
        log = Path("logs") / f"{key}.log"
        write_atomic(self.payload.run_dir / log, f"{why}\nits last words: {handle.last}\n")
        what = f"{planned.label}: {why}"
        if given_up:
            self._failed[key] = [f"{what} (log: {log})"]
            self.progress.line(f"FAILED {self._failed[key][0]}", always=True)
        else:
            self.progress.line(f"{what}; trying again", always=True)
        self._look_again()
        left = tuple(k for k in keys if self.status.has_work(k) and not (given_up and k == key))
        if left:
            self._waiting.append(Job(left, self.status.of(left), handle.job.gpus))

    def _look_again(self) -> None:
        """What the lost worker had finished."""
        run_dir, before = self.payload.run_dir, self.status
        self.status = read_status(self.payload.plan, run_dir)
        self.status.retrain = {key for key in before.retrain if not (run_dir / "weights" / key).is_dir()}
