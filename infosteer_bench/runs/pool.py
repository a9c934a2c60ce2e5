"""Several workers side by side: processes that take one checkpoint after the other and tell the parent what they do.

Small models gain little from a second thread (their matrices are too small), and nearly everything from a second
process. They run on one thread however many workers there are, as sums over several threads end in other digits
(measured on mini-gemma2): the board is the same, byte for byte, for any number of workers. Larger models share the
cores among the workers, and their last digits may depend on how many there are.

A worker that dies (killed for memory, say) costs the checkpoint in its hand; another takes its place. When the parent
goes, however it goes, its workers end too, and the folder stays locked until the last of them has.
"""

from __future__ import annotations

import errno
import multiprocessing
import os
import pickle
import signal
import tempfile
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from unittest import mock

from infosteer_bench.device import has_cuda
from infosteer_bench.errors import UserError, is_disk_full
from infosteer_bench.methods import register_file
from infosteer_bench.runs.group import run_group
from infosteer_bench.runs.storage import Storage
from infosteer_bench.runs.worker import Worker

if TYPE_CHECKING:
    from infosteer_bench.models.load import ResolvedModel
    from infosteer_bench.runs.inputs import Places
    from infosteer_bench.runs.plan import Plan
    from infosteer_bench.runs.progress import Progress
    from infosteer_bench.runs.survey import Survey

SMALL_PARAMETERS = 10_000_000
"""Models below are trained as fast by one thread as by two, within a fifth (measured on 1.7 million: 15 s and 11 s)."""
MOST_WORKERS = 8
"""By default; each holds the libraries and a model, about 1 GB."""


def choose_workers(plan: Plan, jobs: int, asked: int | None) -> int:
    """How many processes work on `jobs` checkpoints: as asked, else one per core where all models are small.

    Raises UserError for more than one where they would share a GPU or start an engine each.
    """
    one = "engine vllm" if plan.inputs.engine != "hf" else "a GPU" if has_cuda() else None
    if asked is not None and asked > 1 and one:
        raise UserError(f"--workers {asked}: {one} serves one worker", allowed="1; more on a CPU with --backend hf")
    if asked is None:
        asked = min(cores(), MOST_WORKERS) if all(map(is_small, plan.inputs.models)) and not one else 1
    return max(1, min(asked, jobs))


def is_small(model: ResolvedModel) -> bool:
    """Whether a model is known to be too small for a second thread."""
    return (model.parameters or SMALL_PARAMETERS) < SMALL_PARAMETERS


@contextmanager
def own_threads(model: ResolvedModel, workers: int = 1) -> Iterator[None]:
    """torch's threads for a model in one of `workers` processes: one if it is small, else what is left of the cores."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1 if is_small(model) else max(1, before // workers))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class Task:
    """Everything a worker needs to know, sent to it once."""

    plan: Plan
    run_dir: Path
    places: Places
    found: Survey
    storage: Storage
    workers: int


class Pool:
    """Runs checkpoints, by their place in the plan, on the task's number of processes.

    lock_fd: descriptor of the run folder's lock, which the workers share.
    Raises pickle.PicklingError, AttributeError or TypeError for a task that holds what cannot go to another process
    (a method class made inside a function, say).
    """

    def __init__(self, task: Task, *, progress: Progress, lock_fd: int) -> None:
        self.task, self.progress, self.lock_fd = task, progress, lock_fd
        self.payload = pickle.dumps(task)
        self._context = multiprocessing.get_context("spawn")
        self._hands: dict[Connection, tuple[BaseProcess, int]] = {}  # a worker's line -> itself, what it works on

    def run(self, places: list[int]) -> list[str]:
        """Do all of `places`; returns what failed, one line each, in the order of the plan."""
        waiting = deque(places)
        failed: dict[int, list[str]] = {}
        self._file = _written(self.payload)
        # Killed workers leave semaphores of libraries behind; the tracker frees them, and need not say so.
        with mock.patch.dict(os.environ, {"PYTHONWARNINGS": "ignore::UserWarning:multiprocessing.resource_tracker"}):
            resource_tracker.ensure_running()
        try:
            for _ in range(min(self.task.workers, len(waiting))):
                self._start(waiting.popleft())
            while self._hands:
                for line in wait(list(self._hands)):
                    assert isinstance(line, Connection)
                    self._listen(line, waiting, failed)
        finally:
            for process, _ in self._hands.values():
                process.kill()  # nothing to save: what is recorded is whole, what is not is done again
                process.join()
            self._file.unlink(missing_ok=True)
        return [text for place in sorted(failed) for text in failed[place]]

    def _start(self, place: int) -> None:
        mine, theirs = self._context.Pipe()
        files = self.task.plan.grid.method_files
        # few bytes: a worker that dies before it reads more than a pipe holds would keep us writing for ever
        arguments = (theirs, files, self._file, _SharedLock(self.lock_fd))
        process = self._context.Process(target=_work, args=arguments, daemon=True)
        process.start()
        theirs.close()
        self._hands[mine] = (process, place)
        _tell(mine, place)

    def _listen(self, line: Connection, waiting: deque[int], failed: dict[int, list[str]]) -> None:
        """One message: something to show, a checkpoint done, or the end of the worker."""
        process, place = self._hands[line]
        try:
            kind, content = line.recv()
        except (EOFError, OSError):  # the latter for half a message
            process.join()
            del self._hands[line]
            failed[place] = [f"{self.task.plan.checkpoints[place].label}: its worker ended, {_cause(process.exitcode)}"]
            self.progress.line(f"FAILED {failed[place][0]}", always=True)
            if waiting:
                self._start(waiting.popleft())
            return
        if kind == "full":
            raise OSError(errno.ENOSPC, content)
        if kind != "done":
            getattr(self.progress, kind)(*content[0], **content[1])
            return
        if content:
            failed[place] = content
        if waiting:
            self._hands[line] = (process, waiting.popleft())
            _tell(line, self._hands[line][1])
        else:
            _tell(line, None)
            del self._hands[line]
            process.join()


def _tell(line: Connection, place: int | None) -> None:
    """Give a worker its next checkpoint. If it is dead, its line ends, and that is where it is dealt with."""
    with suppress(OSError):
        line.send(place)


def _written(payload: bytes) -> Path:
    handle, name = tempfile.mkstemp(prefix="infosteer-task-")
    with os.fdopen(handle, "wb") as file:
        file.write(payload)
    return Path(name)


def _cause(code: int | None) -> str:
    if code == -signal.SIGKILL:
        return "killed (for memory?)"
    return f"by signal {-code}" if code is not None and code < 0 else f"exit code {code}"


class _SharedLock:
    """The run folder's lock on its way to a worker: the kernel frees it when parent and workers are all gone."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __reduce__(self) -> tuple[Any, ...]:
        return _received, (DupFd(self.fd),)


def _received(sent: Any) -> int:
    return sent.detach()


class _Told:
    """Stands in for the parent's `Progress`: every call goes through the line."""

    def __init__(self, line: Connection) -> None:
        self._line = line

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **kwargs: self._line.send((name, (args, kwargs)))


def _work(line: Connection, method_files: tuple[str, ...], task_file: Path, lock: int) -> None:  # noqa: ARG001 - held
    """A worker's whole life: take a place in the plan, do it, say so; end at None or with the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process of a terminal; the parent decides
    threading.Thread(target=_end_with_parent, daemon=True).start()
    for path in method_files:  # what they hold can be unpickled only after that
        register_file(Path(path))
    task: Task = pickle.loads(task_file.read_bytes())  # noqa: S301 - the parent's own bytes, in a file of its own
    worker = Worker(task.plan, task.run_dir, task.places, cast("Progress", _Told(line)))
    while (place := line.recv()) is not None:
        planned = task.plan.checkpoints[place]
        try:
            with own_threads(planned.model, task.workers):
                failures = run_group(worker, [planned], task.found, task.storage)
        except Exception as error:
            if not is_disk_full(error):
                raise
            line.send(("full", str(error)))
            break
        line.send(("done", failures))
    worker.close_engine()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
