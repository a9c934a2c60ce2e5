"""One way in and out of the key coefficients: a tap on the input of every chosen `down_proj`.

    with Tap(root=decoder, layers={0: down_proj_0, 3: down_proj_3}, read=entropy, edit=lift) as tap:
        model(**batch)
        tap.take()[3]            # what read(k, 3) returned in this forward
        tap.invocations          # how often any hook ran, for tests and records

Gradient checkpointing runs a decoder layer a second time inside backward. The second run must hold the same tensors for
backward, in the same order, but must not be counted again, so readings are kept only between the start of the root's
forward and `take()`. Reentrant checkpointing runs the first forward without a graph, which
would silently lose the gradient of every reading: the trainer never uses it.

A model compiled by torch.compile is traced with the hooks that it has; by default later changes of hooks go unnoticed,
so a tap makes the compiler watch them. A forward in which a tapped layer was not read is an error, never a zero.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

Read = Callable[[Tensor, int], Tensor]
Edit = Callable[[Tensor, int], Tensor]
Both = Callable[[Tensor, int, bool], tuple[Tensor, Tensor | None]]


class TapError(RuntimeError):
    """What went wrong at a tapped layer; the message names the layer."""


class Tap:
    """Context manager that puts hooks on `down_proj` modules and takes all of them out again.

    root: the module whose forward runs exactly once per model forward.
    layers: layer index -> the module whose first input is k (B, T, F).
    read: called with k and the layer's index before any edit; its result is kept per layer.
    edit: called with k and the layer's index; what it returns takes k's place.
    both: a reading and an edit by one operation, instead of the two: called with k, the layer's index, and whether the
        reading counts; where it does not, because checkpointing runs the layer again, it may be None.
    first: see k before taps that are already there, so that a monitor reads what the model computed.

    Raises ValueError for `both` beside another. What `read`, `edit` or `both` raises comes out of the forward (or of a
    recomputing backward) as TapError.
    """

    def __init__(
        self,
        *,
        root: nn.Module,
        layers: Mapping[int, nn.Module],
        read: Read | None = None,
        edit: Edit | None = None,
        both: Both | None = None,
        first: bool = False,
    ) -> None:
        if both is not None and (read is not None or edit is not None):
            raise ValueError("a tap takes `both`, or `read` and `edit`")
        self.root, self.layers, self.first = root, dict(layers), first
        self.read, self.edit, self.both = read, edit, both
        self.readings: dict[int, Tensor] = {}
        self.invocations = 0
        self._recording = False
        self._handles: list[Any] = []

    def take(self) -> dict[int, Tensor]:
        """The readings of the latest forward, in layer order; further calls of hooks (recomputation) add nothing.

        Raises TapError if a layer gave none: its hook did not run, or the readings were taken already.
        """
        self._recording = False
        readings, self.readings = self.readings, {}
        missing = sorted(self.layers.keys() - readings.keys())
        if missing:
            raise TapError(f"layer {missing[0]}: its key coefficients were not read in this forward")
        return {index: readings[index] for index in sorted(readings)}

    def __enter__(self) -> Tap:
        _watch_hooks_when_compiled()
        try:
            self._handles.append(self.root.register_forward_pre_hook(self._begin))
            for index, module in self.layers.items():
                self._handles.append(module.register_forward_pre_hook(self._hook(index), prepend=self.first))
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._remove()
        _watch_hooks_when_compiled()

    def _remove(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self.readings.clear()
        self._recording = False

    def _begin(self, module: nn.Module, args: tuple[Any, ...]) -> None:  # noqa: ARG002 - torch's hook signature
        self.readings.clear()
        self._recording = True

    def _hook(self, index: int) -> Callable[[nn.Module, tuple[Any, ...]], tuple[Any, ...] | None]:
        def hook(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:  # noqa: ARG001
            self.invocations += 1
            k = args[0]
            try:
                if self.both is not None:
                    k, reading = self.both(k, index, self._recording)
                    if self._recording and reading is not None:
                        self.readings[index] = reading
                    return (k, *args[1:])
                if self.read is not None:
                    reading = self.read(k, index)
                    if self._recording:
                        self.readings[index] = reading
                return None if self.edit is None else (self.edit(k, index), *args[1:])
            except Exception as error:
                raise TapError(f"layer {index}: {type(error).__name__}: {error}") from error

        return hook


def _watch_hooks_when_compiled() -> None:
    """Have torch.compile's guards look at hooks; what was compiled before without that is thrown away, once."""
    dynamo = sys.modules.get("torch._dynamo")
    if dynamo is not None and dynamo.config.skip_nnmodule_hook_guards:
        dynamo.config.skip_nnmodule_hook_guards = False
        torch.compiler.reset()


def token_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of values (B, T) over the tokens where mask (B, T) is true; NaN for no token."""
    return torch.where(mask, values, 0.0).sum() / mask.sum()
