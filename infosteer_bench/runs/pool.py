"""Several workers side by side: processes that take one job after the other and tell the parent what they do.

A job is some checkpoints of one model (`placement.jobs`). A worker that dies (killed for memory, say), or that reports
nothing for too long, is ended with all its processes; what is left of its job is tried again by a new one, until the
checkpoint in its hands has cost `retries` + 1 workers. When the parent goes, however it goes, its workers end too, and
the folder stays locked until the last of them has.
"""

from __future__ import annotations

import errno
import multiprocessing
import os
import pickle
import signal
import tempfile
import time
from collections import Counter, deque
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from unittest import mock

from infosteer_bench.errors import is_disk_full
from infosteer_bench.methods import register_file
from infosteer_bench.processes import cause, end, end_with_parent
from infosteer_bench.records import write_atomic
from infosteer_bench.runs.group import run_group
from infosteer_bench.runs.placement import Slots, own_threads
from infosteer_bench.runs.status import Status, read_status
from infosteer_bench.runs.storage import Storage
from infosteer_bench.runs.worker import Worker

if TYPE_CHECKING:
    from infosteer_bench.runs.inputs import Roots
    from infosteer_bench.runs.plan import Plan
    from infosteer_bench.runs.progress import Progress

_LOOK_S = 1.0
"""How often silent workers are looked for."""
_LEAVE_S = 60.0
"""How long a worker may take to end, its engine included."""


@dataclass(frozen=True)
class Payload:
    """Everything a worker needs to know, sent to it once."""

    plan: Plan
    run_dir: Path
    roots: Roots
    found: Status
    storage: Storage
    workers: int


@dataclass(frozen=True)
class RetryPolicy:
    """retries: new workers for a checkpoint whose worker died or fell silent. silence_s: seconds without a word (a
    training step, a batch of answers, ...) after which a worker is taken for hung; None: for ever."""

    retries: int = 2
    silence_s: float | None = 3600.0


@dataclass
class _Handle:
    """A worker: its process, its slot, the positions in the plan it was given, the checkpoint it said it works on."""

    process: BaseProcess
    gpu: str | None
    job: list[int]
    at: str | None = None
    last: str = "starting"
    heard: float = field(default_factory=time.monotonic)


class Pool:
    """Runs jobs on a process per slot.

    lock_fd: descriptor of the run folder's lock, which the workers share.
    Raises pickle.PicklingError, AttributeError or TypeError for a task that holds what cannot go to another process
    (a method class made inside a function, say).
    """

    def __init__(
        self, task: Payload, *, slots: Slots, progress: Progress, lock_fd: int, retry_policy: RetryPolicy | None = None
    ) -> None:
        self.task, self.progress, self.lock_fd = task, progress, lock_fd
        self.retry_policy = retry_policy or RetryPolicy()
        self._free = deque(slots.gpus or [None] * slots.number)
        self._context = multiprocessing.get_context("spawn")
        self._handles: dict[Connection, _Handle] = {}  # by a worker's connection
        self._deaths: Counter[str] = Counter()  # workers that a checkpoint has cost
        self._failed: dict[int, list[str]] = {}
        self._waiting: deque[list[int]] = deque()
        self._payload = pickle.dumps(task)

    def run(self, jobs: Iterable[list[int]]) -> list[str]:
        """Do all jobs; returns what failed, one line each, in the order of the plan."""
        self._waiting = deque(jobs)
        self._file = _written(self._payload)
        # Killed workers leave semaphores of libraries behind; the tracker frees them, and need not say so.
        with mock.patch.dict(os.environ, {"PYTHONWARNINGS": "ignore::UserWarning:multiprocessing.resource_tracker"}):
            resource_tracker.ensure_running()
        try:
            self._fill()
            while self._handles:
                for connection in wait(list(self._handles), timeout=_LOOK_S):
                    assert isinstance(connection, Connection)
                    self._listen(connection)
                self._end_silent()
                self._fill()
        finally:
            for handle in self._handles.values():
                end(handle.process)  # nothing to save: what is recorded is whole, what is not is done again
            self._file.unlink(missing_ok=True)
        return [text for position in sorted(self._failed) for text in self._failed[position]]

    def _fill(self) -> None:
        """A worker for every free slot, while there is work."""
        while self._free and self._waiting:
            self._start(self._free.popleft(), self._waiting.popleft())

    def _start(self, gpu: str | None, job: list[int]) -> None:
        mine, theirs = self._context.Pipe()
        files = self.task.plan.grid.method_files
        # few bytes: a worker that dies before it reads more than a pipe holds would keep us writing for ever
        arguments = (theirs, files, self._file, _SharedLock(self.lock_fd))
        # not a daemon, which may have no children: an engine is one
        process = self._context.Process(target=_work, args=arguments)
        with mock.patch.dict(os.environ, {} if gpu is None else {"CUDA_VISIBLE_DEVICES": gpu}):
            process.start()
        theirs.close()
        self._handles[mine] = _Handle(process, gpu, job)
        _tell(mine, job)

    def _listen(self, connection: Connection) -> None:
        """One message: something to show, a job done, or the end of the worker."""
        handle = self._handles[connection]
        try:
            kind, content = connection.recv()
        except (EOFError, OSError):  # the latter for half a message
            handle.process.join()
            self._lost(connection, f"its worker ended, {cause(handle.process.exitcode)}")
            return
        handle.heard = time.monotonic()
        if kind == "full":
            raise OSError(errno.ENOSPC, content)
        if kind == "done":
            self._done(connection, content)
            return
        arguments, keywords = content
        if kind == "at":
            (handle.at,) = arguments
            return
        handle.last = str(arguments[0])
        getattr(self.progress, kind)(*arguments, **keywords)

    def _done(self, connection: Connection, failures: list[str]) -> None:
        handle = self._handles[connection]
        if failures:
            self._failed.setdefault(handle.job[0], []).extend(failures)
        if self._waiting:
            handle.job, handle.at = self._waiting.popleft(), None
            _tell(connection, handle.job)
            return
        _tell(connection, None)
        handle.process.join(_LEAVE_S)
        end(handle.process)  # if it does not come to its end, it has nothing left to do
        del self._handles[connection]
        self._free.append(handle.gpu)

    def _end_silent(self) -> None:
        limit = self.retry_policy.silence_s
        for connection, handle in list(self._handles.items()):
            if limit is not None and time.monotonic() - handle.heard > limit:
                self._lost(connection, f"its worker said nothing for {limit:.0f} s and was ended")

    def _lost(self, connection: Connection, why: str) -> None:
        """A worker is gone or is to go: another takes what is left of its job, but for a checkpoint that cost many."""
        handle = self._handles.pop(connection)
        end(handle.process)
        connection.close()
        self._free.append(handle.gpu)
        plan = self.task.plan
        keys = [plan.checkpoints[position].key for position in handle.job]
        position = handle.job[keys.index(handle.at)] if handle.at in keys else handle.job[0]
        planned = plan.checkpoints[position]
        self._deaths[planned.key] += 1
        given_up = self._deaths[planned.key] > self.retry_policy.retries
        log = Path("logs") / f"{planned.key}.log"
        write_atomic(self.task.run_dir / log, f"{why}\nits last words: {handle.last}\n")
        what = f"{planned.label}: {why}"
        if given_up:
            self._failed[position] = [f"{what} (log: {log})"]
            self.progress.line(f"FAILED {self._failed[position][0]}", always=True)
        else:
            self.progress.line(f"{what}; trying again", always=True)
        self._look_again()
        left = [
            p
            for p in handle.job
            if self.task.found.has_work(plan.checkpoints[p].key) and not (given_up and p == position)
        ]
        if left:
            self._waiting.append(left)

    def _look_again(self) -> None:
        """New workers know what the lost one had finished."""
        before, run_dir = self.task.found, self.task.run_dir
        found = read_status(self.task.plan, run_dir)
        found.retrain = {key for key in before.retrain if not (run_dir / "weights" / key).is_dir()}
        self.task = replace(self.task, found=found)
        self._file.write_bytes(pickle.dumps(self.task))


def _tell(connection: Connection, job: list[int] | None) -> None:
    """Give a worker its next job. If it is dead, its line ends, and that is where it is dealt with."""
    with suppress(OSError):
        connection.send(job)


def _written(payload: bytes) -> Path:
    handle, name = tempfile.mkstemp(prefix="infosteer-task-")
    with os.fdopen(handle, "wb") as file:
        file.write(payload)
    return Path(name)


class _SharedLock:
    """The run folder's lock on its way to a worker: the kernel frees it when parent and workers are all gone."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __reduce__(self) -> tuple[Any, ...]:
        return _received, (DupFd(self.fd),)


def _received(sent: Any) -> int:
    return sent.detach()


class _ProgressProxy:
    """Stands in for the parent's `Progress`: every call goes through the connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **kwargs: self._connection.send((name, (args, kwargs)))


def _work(connection: Connection, method_files: tuple[str, ...], task_file: Path, lock: int) -> None:  # noqa: ARG001 - held
    """A worker's whole life: take a job, do it, say so; end at None or with the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process of a terminal; the parent decides
    end_with_parent()
    for path in method_files:  # what they hold can be unpickled only after that
        register_file(Path(path))
    task: Payload = pickle.loads(task_file.read_bytes())  # noqa: S301 - the parent's own bytes, in a file of its own
    worker = Worker(task.plan, task.run_dir, task.roots, cast("Progress", _ProgressProxy(connection)))
    try:
        while (job := connection.recv()) is not None:
            group = [task.plan.checkpoints[position] for position in job]
            with own_threads(group[0].model, task.workers):
                failures = run_group(worker, group, task.found, task.storage)
            connection.send(("done", failures))
    except Exception as error:
        if not is_disk_full(error):
            raise
        connection.send(("full", str(error)))
    finally:
        worker.close_engine()
