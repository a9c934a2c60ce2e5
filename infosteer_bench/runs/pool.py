"""Several workers side by side: processes that take one checkpoint after the other and tell the parent what they do.

Small models gain little from a second thread (their matrices are too small), and nearly everything from a second
process. They run on one thread however many workers there are, as sums over several threads end in other digits
(measured on mini-gemma2): the board is the same, byte for byte, for any number of workers.

A worker that dies (killed for memory, say) costs the checkpoint in its hand; another takes its place. When the parent
goes, however it goes, its workers end too, and the folder stays locked until the last of them has.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from infosteer_bench.device import has_cuda
from infosteer_bench.errors import UserError
from infosteer_bench.methods import register_file
from infosteer_bench.runs.group import run_group
from infosteer_bench.runs.worker import Worker

if TYPE_CHECKING:
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
        asked = min(cores(), MOST_WORKERS) if are_small(plan) and not one else 1
    return max(1, min(asked, jobs))


def are_small(plan: Plan) -> bool:
    """Whether all models are known to be too small for a second thread."""
    return all((model.parameters or SMALL_PARAMETERS) < SMALL_PARAMETERS for model in plan.inputs.models)


@contextmanager
def own_threads(plan: Plan, workers: int = 1) -> Iterator[None]:
    """torch's threads in one of `workers` processes: one for small models, else what is left of the cores."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1 if are_small(plan) else max(1, before // workers))
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
    keep_weights: bool
    workers: int


class Pool:
    """Runs checkpoints, by their place in the plan, on the task's number of processes.

    lock_fd: descriptor of the run folder's lock, which the workers share.
    """

    def __init__(self, task: Task, *, progress: Progress, lock_fd: int) -> None:
        self.task, self.progress, self.lock_fd = task, progress, lock_fd
        self._context = multiprocessing.get_context("spawn")
        self._hands: dict[Connection, tuple[BaseProcess, int]] = {}  # a worker's line -> itself, what it works on

    def run(self, places: list[int]) -> list[str]:
        """Do all of `places`; returns what failed, one line each, in the order of the plan."""
        waiting = deque(places)
        failed: dict[int, list[str]] = {}
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
        return [text for place in sorted(failed) for text in failed[place]]

    def _start(self, place: int) -> None:
        mine, theirs = self._context.Pipe()
        # methods from a user's file can be unpickled only after that file was registered
        payload = pickle.dumps(self.task)
        files = self.task.plan.grid.method_files
        arguments = (theirs, files, payload, _SharedLock(self.lock_fd))
        process = self._context.Process(target=_work, args=arguments, daemon=True)
        process.start()
        theirs.close()
        mine.send(place)
        self._hands[mine] = (process, place)

    def _listen(self, line: Connection, waiting: deque[int], failed: dict[int, list[str]]) -> None:
        """One message: something to show, a checkpoint done, or the end of the worker."""
        process, place = self._hands[line]
        try:
            kind, content = line.recv()
        except (EOFError, ConnectionError):
            process.join()
            del self._hands[line]
            failed[place] = [f"{self.task.plan.checkpoints[place].label}: its worker ended, {_cause(process.exitcode)}"]
            self.progress.line(f"FAILED {failed[place][0]}", always=True)
            if waiting:
                self._start(waiting.popleft())
            return
        if kind != "done":
            getattr(self.progress, kind)(*content[0], **content[1])
            return
        if content:
            failed[place] = content
        if waiting:
            self._hands[line] = (process, waiting.popleft())
            line.send(self._hands[line][1])
        else:
            line.send(None)
            del self._hands[line]
            process.join()


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


def _work(line: Connection, method_files: tuple[str, ...], payload: bytes, lock: int) -> None:  # noqa: ARG001 - held
    """A worker's whole life: take a place in the plan, do it, say so; end at None or with the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process of a terminal; the parent decides
    threading.Thread(target=_end_with_parent, daemon=True).start()
    for path in method_files:
        register_file(Path(path))
    task: Task = pickle.loads(payload)  # noqa: S301 - the parent's own bytes, through its own pipe
    worker = Worker(task.plan, task.run_dir, task.places, cast("Progress", _Told(line)))
    with own_threads(task.plan, task.workers):
        while (place := line.recv()) is not None:
            group = [task.plan.checkpoints[place]]
            line.send(("done", run_group(worker, group, task.found, keep_weights=task.keep_weights)))
    worker.close_engine()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
