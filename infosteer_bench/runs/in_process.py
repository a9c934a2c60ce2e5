"""The runner without other processes: each job is done where its end is waited for."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from infosteer_bench.runs.group import run_group
from infosteer_bench.runs.placement import own_threads
from infosteer_bench.runs.runner import Done, Event, Job, Payload, Slots, Ticket
from infosteer_bench.runs.worker import Worker

if TYPE_CHECKING:
    from infosteer_bench.runs.plan import Plan
    from infosteer_bench.runs.progress import Progress


class InProcess:
    """One job at a time. What a job raises, a full disk or Ctrl-C, comes out of `events`."""

    name = "in-process"

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._waiting: deque[tuple[Ticket, Job]] = deque()
        self._submitted = 0

    def slots(self) -> Slots:
        """One, whatever the machine has."""
        return Slots(1)

    def check(self, plan: Plan) -> None:
        """It does whatever a plan holds."""

    def prepare(self, payload: Payload) -> None:
        """Make the one worker."""
        self._payload = payload
        self._worker = Worker(payload.plan, payload.run_dir, payload.roots, self._progress)

    def submit(self, job: Job) -> Ticket | None:
        """Taken while no other waits."""
        if self._waiting:
            return None
        self._submitted += 1
        self._waiting.append((self._submitted, job))
        return self._submitted

    def events(self, timeout_s: float) -> list[Event]:  # noqa: ARG002 - there is nothing to wait for
        """Do the job."""
        if not self._waiting:
            return []
        ticket, job = self._waiting.popleft()
        group = job.group(self._payload.plan)
        with own_threads(group[0].model):
            return [Done(ticket, run_group(self._worker, group, job.status, self._payload.storage))]

    def end(self, ticket: Ticket) -> None:
        """A job that has not begun does not begin."""
        self._waiting = deque(pair for pair in self._waiting if pair[0] != ticket)

    def close(self, *, now: bool = False) -> None:  # noqa: ARG002 - an engine is not left behind
        """End the engine."""
        self._worker.close_engine()
