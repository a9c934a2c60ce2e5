"""The processes that a vLLM engine starts: what they inherit, what they said when they failed, and their end."""

from __future__ import annotations

import multiprocessing.util
import os
import re
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import IO, Any

import psutil

from infosteer_bench.evaluation.quiet import debug
from infosteer_bench.evaluation.vllm.worker import OWNER
from infosteer_bench.processes import environment, replaced, without_script

_STOP_TIMEOUT_S = 20
_POLL_S, _GRACE_S = 1.0, 5.0


@contextmanager
def engine_environment(said: IO[bytes]) -> Iterator[None]:
    """Processes started inside are spawned, offline and quiet; their stderr goes to `said` (INFOSTEER_DEBUG=1: here).

    Ours stays where it is: a file descriptor is all that a spawned process inherits, so ours is exchanged for the
    moment of each start only.
    """
    values = {"HF_HUB_OFFLINE": "1", "VLLM_WORKER_MULTIPROC_METHOD": "spawn", "VLLM_NO_USAGE_STATS": "1"}
    values[OWNER] = str(os.getpid())
    if debug():
        with environment(values), without_script():
            yield
        return
    values |= {"VLLM_LOGGING_LEVEL": "ERROR", "VLLM_LOGGING_STREAM": "ext://sys.stderr"}
    values |= {"TORCH_CPP_LOG_LEVEL": "ERROR", "PYTHONWARNINGS": "ignore"}
    spawn = multiprocessing.util.spawnv_passfds

    def spawn_quietly(*args: Any) -> int:
        ours = os.dup(2)
        os.dup2(said.fileno(), 2)
        try:
            return spawn(*args)
        finally:
            os.dup2(ours, 2)
            os.close(ours)

    with environment(values), without_script(), replaced(multiprocessing.util, "spawnv_passfds", spawn_quietly):
        yield


def last_error(said: IO[bytes]) -> str | None:
    """The first error that the processes reported; the exception that reaches us only points there."""
    said.seek(0)
    found = re.findall(r"\b([A-Z]\w*(?:Error|Exception): [^\n]{3,300})", said.read().decode(errors="replace"))
    return found[0].strip() if found else None


_OUT_OF_MEMORY = re.compile(
    r"out of memory|OutOfMemory|MemoryError|bad_alloc|cannot allocate memory|Free memory on device", re.IGNORECASE
)


def is_out_of_memory(text: str) -> bool:
    """Whether an error's text means that an engine would need less memory."""
    return bool(_OUT_OF_MEMORY.search(text))


def first_line(error: BaseException) -> str:
    """An exception's message in one line."""
    return (str(error).strip().splitlines() or [""])[0][:300]


def descendants() -> set[psutil.Process]:
    """All our child processes, but for multiprocessing's own helper, which outlives every engine."""
    found = set()
    for process in psutil.Process().children(recursive=True):
        try:
            if "resource_tracker" not in " ".join(process.cmdline()):
                found.add(process)
        except psutil.NoSuchProcess:
            continue
    return found


class Watch:
    """Ends our waiting for an engine whose processes have died; a thread of its own until `stop`.

    vLLM 0.32 tells of a dead engine in most cases, but one killed at the wrong moment (by the kernel for memory, say)
    leaves its client waiting for ever: then what is waited for is failed from here.
    """

    def __init__(self, core: Any, processes: Iterable[psutil.Process]) -> None:
        self._core = core
        self._processes = [process for process in processes if _is_engine(process)]  # helpers may come and go
        self._stopped = threading.Event()
        threading.Thread(target=self._look, daemon=True, name="engine-watch").start()

    def stop(self) -> None:
        """Look no longer."""
        self._stopped.set()

    def _look(self) -> None:
        while not self._stopped.wait(_POLL_S):
            if all(map(_runs, self._processes)):
                continue
            # vLLM's own monitor comes first; what is asked of a dead engine later is not to wait either
            while not self._stopped.wait(_GRACE_S):
                error = RuntimeError("a process of the engine was killed")
                self._core.outputs_queue.put_nowait(error)
                for future in list(self._core.utility_results.values()):
                    if not future.done():
                        future.set_exception(error)


def _is_engine(process: psutil.Process) -> bool:
    """Whether it bears the name that vLLM gives to its engine and its workers."""
    try:
        return "VLLM::" in " ".join([process.name(), *process.cmdline()])
    except psutil.NoSuchProcess:
        return False


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def end(processes: Iterable[psutil.Process]) -> None:
    """Wait for processes that were asked to end, then make them."""
    _, alive = psutil.wait_procs(list(processes), timeout=_STOP_TIMEOUT_S)
    for process in alive:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(alive, timeout=_STOP_TIMEOUT_S)
