"""The real command line in subprocesses: started, waited for, interrupted, killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


def environment(**changes: str) -> dict[str, str]:
    """This process's environment (offline, scratch caches: conftest) plus `changes`."""
    paths = [str(REPOSITORY), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), **changes}


def start(arguments: list[str], folder: Path, **changes: str) -> subprocess.Popen[str]:
    """Start `python -m infosteer_bench ARGUMENTS` in `folder`, in a process group of its own.

    A job started in the background of a script ignores Ctrl-C, and so would all its children: undone here.
    """
    return subprocess.Popen(
        [sys.executable, "-m", "infosteer_bench", *arguments],
        cwd=folder,
        env=environment(**changes),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def run(arguments: list[str], folder: Path, *, expect: int = 0, **changes: str) -> tuple[str, str]:
    """Run to the end; returns (stdout, stderr) and insists on the exit code."""
    process = start(arguments, folder, **changes)
    out, err = process.communicate(timeout=1400)
    assert process.returncode == expect, f"exit {process.returncode}, wanted {expect}\n{out}\n{err}"
    return out, err


def stop_when(
    ready: Callable[[], bool], arguments: list[str], folder: Path, *, by: signal.Signals, timeout_s: float = 900
) -> tuple[int, str]:
    """Start, wait until the command runs and `ready`, send the signal to it; returns (exit code, stderr)."""
    process = start(arguments, folder)
    deadline = time.monotonic() + timeout_s
    while not (ready() and _handles_sigterm(process.pid)):
        assert process.poll() is None, f"ended by itself: {process.communicate()}"
        assert time.monotonic() < deadline, "never got so far"
        time.sleep(0.02)
    process.send_signal(by)
    _, err = process.communicate(timeout=300)
    return process.returncode, err


def _handles_sigterm(pid: int) -> bool:
    """Whether the command has begun: it sets this handler first; before, a signal meets Python's start-up."""
    if not Path("/proc").is_dir():
        return True
    status = Path(f"/proc/{pid}/status").read_text()
    (caught,) = [int(line.split()[1], 16) for line in status.splitlines() if line.startswith("SigCgt")]
    return bool(caught >> (signal.SIGTERM - 1) & 1)
