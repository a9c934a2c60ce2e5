"""Is there a GPU that torch can use? Asked before anything else, so torch is imported only where one may be."""

from __future__ import annotations

import sys
from pathlib import Path

_LINUX_DEVICES = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg", "/dev/nvhost-ctrl")
"""Of NVIDIA's driver, AMD's, WSL and Jetson: without any, no CUDA or ROCm build of torch finds a GPU."""


def has_cuda() -> bool:
    """`torch.cuda.is_available()`, without the seconds that importing torch takes where the answer is plain."""
    if sys.platform == "linux" and not any(Path(device).exists() for device in _LINUX_DEVICES):
        return False
    import torch

    return torch.cuda.is_available()
