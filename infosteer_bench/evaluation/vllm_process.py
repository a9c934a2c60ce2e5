"""The processes that a vLLM engine starts: what they inherit, what they said when they failed, and their end."""

from __future__ import annotations

import multiprocessing.util
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import IO, Any
from unittest import mock

import psutil

from infosteer_bench.evaluation.quiet import debug
from infosteer_bench.evaluation.vllm_worker import OWNER

_STOP_TIMEOUT_S = 20


@contextmanager
def engine_environment(said: IO[bytes]) -> Iterator[None]:
    """Processes started inside are spawned, offline and quiet; their stderr goes to `said` (INFOSTEER_DEBUG=1: here).

    Ours stays where it is: a file descriptor is all that a spawned process inherits, so ours is exchanged for the
    moment of each start only.
    """
    values = {"HF_HUB_OFFLINE": "1", "VLLM_WORKER_MULTIPROC_METHOD": "spawn", "VLLM_NO_USAGE_STATS": "1"}
    values[OWNER] = str(os.getpid())
    if debug():
        with mock.patch.dict(os.environ, values):
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

    with mock.patch.dict(os.environ, values), mock.patch.object(multiprocessing.util, "spawnv_passfds", spawn_quietly):
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


def end(processes: Iterable[psutil.Process]) -> None:
    """Wait for processes that were asked to end, then make them."""
    _, alive = psutil.wait_procs(list(processes), timeout=_STOP_TIMEOUT_S)
    for process in alive:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(alive, timeout=_STOP_TIMEOUT_S)
