"""Processes that we start: what they inherit, how they end with us, how we end them with all that they started."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import ModuleType
from typing import Any


@dataclass(frozen=True)
class Child:
    """A process of ours, and our end of the connection to it."""

    process: BaseProcess
    connection: Connection


def start_child(
    target: Callable[..., None], *arguments: Any, env: Mapping[str, str] | None = None, content: bytes = b""
) -> Child:
    """Start `target(connection, *arguments)` in a spawned process with `env` in its environment.

    Few bytes of arguments: a child that dies before it reads more than a pipe holds would keep us writing for ever.
    content: what the child will unpickle later; only if that names something of the script that we are does it import
    the script, which may lack a `__main__` guard.
    """
    context = multiprocessing.get_context("spawn")
    mine, theirs = context.Pipe()
    # not a daemon, which may have no children: an engine is one
    process = context.Process(target=target, args=(theirs, *arguments))
    names_script = b"\x8c\x08__main__" in content  # as pickle writes the name of a module, not as text may hold it
    with environment(env or {}), nullcontext() if names_script else without_script():
        process.start()
    theirs.close()
    return Child(process, mine)


def quiet_libraries() -> None:
    """Libraries print banners and bars of their own and tell the hub that they are used: not here, nor in processes of
    ours. INFOSTEER_DEBUG=1 lets them."""
    if os.environ.get("INFOSTEER_DEBUG") == "1":
        return
    for name, value in {
        "TRANSFORMERS_VERBOSITY": "error",
        "TRL_VERBOSITY": "error",
        "DATASETS_VERBOSITY": "error",
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "VLLM_LOGGING_LEVEL": "ERROR",
        "LMEVAL_LOG_LEVEL": "ERROR",
    }.items():
        os.environ.setdefault(name, value)


@contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """Environment variables for processes that are started inside; as they were, afterwards."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def without_script() -> Iterator[None]:
    """Processes spawned inside do not import the script that we are."""
    script = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = script


@contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Another value of an attribute of a library, for a while."""
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


def end_with_parent() -> None:
    """From now on this process ends when its parent does, however that goes. For children of multiprocessing."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="end-with-parent").start()


def end(process: BaseProcess) -> None:
    """Kill a process with all that it started."""
    import psutil

    with suppress(psutil.NoSuchProcess):
        family = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        for child in family:
            with suppress(psutil.NoSuchProcess):
                child.kill()
    process.join()


def cause(code: int | None) -> str:
    """An exit code in words."""
    if code == -signal.SIGKILL:
        return "killed (for memory?)"
    return f"by signal {-code}" if code is not None and code < 0 else f"exit code {code}"
