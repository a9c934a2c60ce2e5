"""Processes that we start: how they end with us, how we end them with all that they started, why they ended."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from contextlib import suppress
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess


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
