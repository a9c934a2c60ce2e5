"""The runner of one machine: worker processes that take one job after the other and tell the parent what they do.

A worker keeps its imports and its engine from one job to the next. When the parent goes, however it goes, its workers
end too, and the run's folder stays locked until the last of them has.
"""

from __future__ import annotations

import pickle
import signal
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from infosteer_bench.errors import is_disk_full
from infosteer_bench.methods import register_file
from infosteer_bench.processes import cause, end, end_with_parent, environment, start_child
from infosteer_bench.runs.group import run_group
from infosteer_bench.runs.placement import own_threads
from infosteer_bench.runs.runner import DiskFull, Done, Event, Job, Lost, Payload, Said, Slots, Ticket
from infosteer_bench.runs.worker import Worker

if TYPE_CHECKING:
    from infosteer_bench.runs.plan import Plan
    from infosteer_bench.runs.progress import Progress

_LEAVE_S = 60.0
"""How long an idle worker may take to end, its engine included."""


class NotTold(Exception):
    """A payload holds what cannot go to another process: a method class made inside a function, say."""


@dataclass
class _Process:
    """A worker. ticket: of the job that it does, None while it waits for one."""

    process: BaseProcess
    gpus: tuple[str, ...]
    ticket: Ticket | None = None
    model: str | None = None


class Pool:
    """Worker processes, at most `slots.number`, which share out `slots.gpus`.

    lock_fd: descriptor of the run folder's lock, which the workers share.
    """

    name = "pool"

    def __init__(self, slots: Slots, *, lock_fd: int) -> None:
        self._slots, self._lock_fd = slots, lock_fd
        self._free = list(slots.gpus)
        self._workers: dict[Connection, _Process] = {}
        self._submitted = 0
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def slots(self) -> Slots:
        """As given."""
        return self._slots

    def check(self, plan: Plan) -> None:
        """It does whatever a plan holds."""

    def prepare(self, payload: Payload) -> None:
        """Write the payload for the workers. Raises NotTold."""
        try:
            content = pickle.dumps(payload)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise NotTold(str(error)) from None
        self._plan = payload.plan
        self._folder = tempfile.TemporaryDirectory(prefix="infosteer-workers-")
        self._payload = Path(self._folder.name) / "payload"
        self._payload.write_bytes(content)
        # Killed workers leave semaphores of libraries behind; the tracker frees them, and need not say so.
        with environment({"PYTHONWARNINGS": "ignore::UserWarning:multiprocessing.resource_tracker"}):
            resource_tracker.ensure_running()

    def submit(self, job: Job) -> Ticket | None:
        """Give the job to an idle worker that has just the GPUs it needs, best one that has held its model, or to a
        new one, for which idle ones make room."""
        connection = self._idle(job) or self._started(job)
        if connection is None:
            return None
        self._submitted += 1
        worker = self._workers[connection]
        worker.ticket, worker.model = self._submitted, self._model(job)
        assert self._folder is not None
        # a file: a worker that dies before it reads more than a pipe holds would keep us writing for ever
        file = Path(self._folder.name) / f"job-{self._submitted}"
        file.write_bytes(pickle.dumps(job))
        _tell(connection, file)
        return self._submitted

    def _model(self, job: Job) -> str:
        return job.group(self._plan)[0].model.id

    def _idle(self, job: Job) -> Connection | None:
        idle = [c for c, w in self._workers.items() if w.ticket is None and len(w.gpus) == job.gpus]
        model = self._model(job)
        return min(idle, key=lambda c: self._workers[c].model != model, default=None)

    def _started(self, job: Job) -> Connection | None:
        idle = [c for c, worker in self._workers.items() if worker.ticket is None]
        room = self._slots.number - len(self._workers) + len(idle)
        gpus = len(self._free) + sum(len(self._workers[c].gpus) for c in idle)
        if room < 1 or gpus < job.gpus:
            return None
        while idle and (len(self._workers) >= self._slots.number or len(self._free) < job.gpus):
            self._leave(idle.pop(0))
        taken, self._free = tuple(self._free[: job.gpus]), self._free[job.gpus :]
        child = start_child(
            *(_work, self._plan.grid.method_files, self._payload, _SharedLock(self._lock_fd)),
            env={"CUDA_VISIBLE_DEVICES": ",".join(taken)} if taken else {},
            content=self._payload.read_bytes(),
        )
        self._workers[child.connection] = _Process(child.process, taken)
        return child.connection

    def events(self, timeout_s: float) -> list[Event]:
        """A message of each worker that has one."""
        found: list[Event] = []
        for connection in wait(list(self._workers), timeout=timeout_s):
            assert isinstance(connection, Connection)
            worker = self._workers[connection]
            ticket = worker.ticket
            try:
                kind, content = connection.recv()
            except (EOFError, OSError):  # the latter for half a message
                worker.process.join()
                self._forget(connection)
                if ticket is not None:
                    found.append(Lost(ticket, f"its worker ended, {cause(worker.process.exitcode)}"))
                continue
            assert ticket is not None, f"an idle worker said {kind}"
            if kind == "done":
                worker.ticket = None
                found.append(Done(ticket, content))
            elif kind == "full":
                found.append(DiskFull(ticket, content))
            else:
                found.append(Said(ticket, kind, *content))
        return found

    def end(self, ticket: Ticket) -> None:
        """Kill the worker of that job."""
        for connection, worker in list(self._workers.items()):
            if worker.ticket == ticket:
                self._forget(connection)

    def close(self, *, now: bool = False) -> None:
        """Nothing to save: what is recorded is whole, what is not is done again."""
        for connection, worker in list(self._workers.items()):
            if worker.ticket is None and not now:
                _tell(connection, None)
            else:
                self._forget(connection)
        for connection in list(self._workers):
            self._leave(connection)
        if self._folder is not None:
            self._folder.cleanup()

    def _leave(self, connection: Connection) -> None:
        """An idle worker ends; if it does not come to its end, it has nothing left to do."""
        _tell(connection, None)
        self._workers[connection].process.join(_LEAVE_S)
        self._forget(connection)

    def _forget(self, connection: Connection) -> None:
        worker = self._workers.pop(connection)
        end(worker.process)
        connection.close()
        self._free = sorted([*self._free, *worker.gpus], key=self._slots.gpus.index)


def _tell(connection: Connection, job: Path | None) -> None:
    """Give a worker its next job. If it is dead, its connection ends, and that is where it is dealt with."""
    with suppress(OSError):
        connection.send(job)


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


def _work(connection: Connection, method_files: tuple[str, ...], payload_file: Path, lock: int) -> None:  # noqa: ARG001 - held
    """A worker's whole life: take a job, do it, say so; end at None or with the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process of a terminal; the parent decides
    end_with_parent()
    for path in method_files:  # what they hold can be unpickled only after that
        register_file(Path(path))
    payload: Payload = _unpickled(payload_file)
    worker = Worker(payload.plan, payload.run_dir, payload.roots, cast("Progress", _ProgressProxy(connection)))
    try:
        while (file := connection.recv()) is not None:
            job: Job = _unpickled(file)
            group = job.group(payload.plan)
            with own_threads(group[0].model, payload.workers):
                failures = run_group(worker, group, job.status, payload.storage)
            connection.send(("done", failures))
    except Exception as error:
        if not is_disk_full(error):
            raise
        connection.send(("full", str(error)))
    finally:
        worker.close_engine()


def _unpickled(file: Path) -> Any:
    return pickle.loads(file.read_bytes())  # noqa: S301 - the parent's own bytes, in a folder of its own
