"""The machine below us: has it a GPU that torch can use (asked without importing torch), how much memory was taken."""

from __future__ import annotations

import contextlib
import os
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


def visible_gpus() -> tuple[str, ...]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES would name each."""
    if not has_cuda():
        return ()
    import torch

    given = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    count = torch.cuda.device_count()
    return tuple(given[:count] or map(str, range(count)))


def gpu_bytes() -> int:
    """Memory of the first GPU, free or not; 0 without one."""
    if not has_cuda():
        return 0
    import torch

    return torch.cuda.get_device_properties(0).total_memory


def reset_peak_memory() -> None:
    """Start `peak_memory_bytes` anew."""
    if has_cuda():
        import torch

        torch.cuda.reset_peak_memory_stats()
    else:
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # Linux: restart VmHWM from here


def peak_memory_bytes() -> int | None:
    """Most memory in use since `reset_peak_memory`: of the GPU's tensors, else of this process (Linux only)."""
    if has_cuda():
        import torch

        return int(torch.cuda.max_memory_allocated())
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return None
