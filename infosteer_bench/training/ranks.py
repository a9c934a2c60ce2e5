"""One checkpoint trained by several processes: on GPUs, weights and optimizer lie in pieces over them.

    result = train_on_ranks(2, offload=False, model_path=..., method=..., ...)    # as train_checkpoint otherwise

Each process (rank) has a GPU of its own and runs `train_checkpoint` under Accelerate's FSDP 2 (fully_shard; Zhao et al.
2023, "PyTorch FSDP"): a rank holds 1/N of the float32 weights, gradients and optimizer states and gathers one decoder
layer at a time. The optimizer's batch stays that of one rank (`accumulation_per_rank`), so what is trained is the same
up to the order of sums. Ranks on the CPU share nothing but gradients (plain data parallelism).
"""

from __future__ import annotations

import errno
import os
import pickle
import signal
import socket
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from infosteer_bench.errors import CellFailure, is_disk_full
from infosteer_bench.methods import register_file
from infosteer_bench.processes import cause, end, end_with_parent, start_child
from infosteer_bench.training.checkpoint import TrainResult, train_checkpoint

FSDP = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT",
    "FSDP_RESHARD_AFTER_FORWARD": "true",
}
"""What `accelerate launch --use_fsdp --fsdp_version 2` would set."""


_DYING_S = 0.2


class RankError(Exception):
    """What a rank said when it failed, its traceback included."""


def train_on_ranks(
    ranks: int,
    *,
    offload: bool = False,
    method_files: tuple[str, ...] = (),
    on_step: Callable[[int, int], None] | None = None,
    on_problem: Callable[[str], None] | None = None,
    **arguments: Any,
) -> TrainResult:
    """`train_checkpoint(**arguments)` by `ranks` processes; returns what the first one measured.

    offload: weights and optimizer stay in main memory, and a GPU holds what it works on. method_files: where methods
    of the user's own come from. Raises CellFailure as soon as one rank fails or dies (the others are ended), OSError
    where a disk is full.
    """
    told = {"step": on_step, "problem": on_problem}
    port, content = _free_port(), pickle.dumps(arguments)
    started: dict[Connection, tuple[int, BaseProcess]] = {}
    try:
        for rank in range(ranks):
            child = start_child(_rank, method_files, offload, env=_place(rank, ranks, port), content=content)
            started[child.connection] = rank, child.process
            child.connection.send_bytes(content)
        return _followed(started, told)
    finally:
        for _, process in started.values():
            end(process)


def _followed(started: dict[Connection, tuple[int, BaseProcess]], told: dict[str, Any]) -> TrainResult:
    """Pass on what the ranks tell, until all are done."""
    result: TrainResult | None = None
    running = dict(started)
    while running:
        for connection in wait(list(running)):
            assert isinstance(connection, Connection)
            rank, process = running[connection]
            where = f"rank {rank} of {len(started)}"
            try:
                kind, content = connection.recv()
            except (EOFError, OSError):
                process.join()
                raise CellFailure(f"{where} ended while training, {cause(process.exitcode)}") from None
            if kind == "done":
                result = content or result
                del running[connection]
            elif kind == "failed":
                _blame_the_dead(started)
                raise CellFailure(f"{where}: {content[0]}") from RankError(content[1])
            elif kind == "full":
                raise OSError(errno.ENOSPC, content)
            elif told[kind] is not None:
                told[kind](*content)
    assert result is not None
    for _, process in started.values():
        process.join()
    return result


def _blame_the_dead(started: dict[Connection, tuple[int, BaseProcess]]) -> None:
    """Raise CellFailure for a rank that was killed: what the others say then is that they miss it."""
    for rank, process in started.values():
        process.join(_DYING_S)
        if process.exitcode is not None and process.exitcode < 0:
            raise CellFailure(f"rank {rank} of {len(started)} ended while training, {cause(process.exitcode)}")


def _place(rank: int, ranks: int, port: int) -> dict[str, str]:
    """A rank's environment, as torchrun would set it."""
    return {
        **{name: str(rank) for name in ("RANK", "LOCAL_RANK")},
        **{name: str(ranks) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE")},
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _rank(connection: Connection, method_files: tuple[str, ...], offload: bool) -> None:
    """A rank's whole life."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who started us decides
    end_with_parent()
    for path in method_files:  # what they hold can be unpickled only after that
        register_file(Path(path))
    arguments = connection.recv()
    first = os.environ["RANK"] == "0"
    os.environ.update({**FSDP, "FSDP_OFFLOAD_PARAMS": str(offload).lower()})
    try:
        result = train_checkpoint(
            on_step=(lambda step, steps: connection.send(("step", (step, steps)))) if first else None,
            on_problem=(lambda text: connection.send(("problem", (text,)))) if first else None,
            **arguments,
        )
        connection.send(("done", result if first else None))
    except Exception as error:
        if is_disk_full(error):
            connection.send(("full", str(error)))
            return
        text = str(error) if isinstance(error, CellFailure) else f"{type(error).__name__}: {error}"
        connection.send(("failed", (text, "".join(traceback.format_exception(error)))))
    finally:
        _leave()


def _leave() -> None:
    import torch

    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
