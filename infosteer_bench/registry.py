"""One lazy registry for everything that has a name: methods, families, engines.

A value is registered as itself, as "module:attribute" or as a `Deferred`, found at the first `get`, so that listing
names costs no heavy import.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from infosteer_bench.errors import unknown_name

T = TypeVar("T")


@dataclass(frozen=True)
class Deferred(Generic[T]):
    """How to get a value when it is first asked for."""

    load: Callable[[], T]


class Registry(Generic[T]):
    """Names to objects. Raises UserError on an unknown name (with suggestions), ValueError on a duplicate."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, T | str | Deferred[T]] = {}

    def register(self, name: str, value: T | str | Deferred[T]) -> None:
        """Register `value`, or what it can be had from, under `name`."""
        if name in self._entries:
            raise ValueError(f"{self.kind} {name!r} is registered twice")
        self._entries[name] = value

    def get(self, name: str) -> T:
        """The object registered under `name`; imports it if it was registered lazily."""
        if name not in self._entries:
            raise unknown_name(self.kind, name, self._entries)
        value = self._entries[name]
        if isinstance(value, str):
            module, _, attribute = value.partition(":")
            value = self._entries[name] = getattr(importlib.import_module(module), attribute)
        elif isinstance(value, Deferred):
            value = self._entries[name] = value.load()
        return value  # type: ignore[return-value]

    def unregister(self, name: str) -> None:
        """Forget `name`; used by tests that register something for a while."""
        self._entries.pop(name, None)

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)
