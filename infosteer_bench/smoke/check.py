"""One check: a name, what was found, and what is wrong. Prints as one line."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

_SHOWN = 3
"""Problems named in a line; a broken part often shows in many places at once."""


@dataclass(frozen=True)
class Check:
    """found: what holds, for the line of a check without problems."""

    name: str
    found: str
    problems: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems

    def line(self) -> str:
        """`ok    method sft: ...` or `FAIL  method sft: steps: expected 4, got 3`."""
        if self.ok:
            return f"ok    {self.name}: {self.found}"
        more = f"; and {len(self.problems) - _SHOWN} more" if len(self.problems) > _SHOWN else ""
        return f"FAIL  {self.name}: {'; '.join(self.problems[:_SHOWN])}{more}"


@dataclass
class Problems:
    """Collects what is wrong with one subject."""

    texts: list[str] = field(default_factory=list)

    def add(self, text: str) -> None:
        """Note what is wrong, on one line."""
        self.texts.append(" ".join(text.split()))

    def equal(self, what: str, *, expected: Any, got: Any) -> bool:
        """Note it if the two differ; returns whether they are equal."""
        if expected != got:
            self.add(f"{what}: expected {_short(expected)}, got {_short(got)}")
        return expected == got

    def close(self, what: str, *, expected: float, got: float, tolerance: float) -> bool:
        """Note it if the two differ by more than `tolerance` times the larger; NaN is close to nothing."""
        close = math.isclose(expected, got, rel_tol=tolerance, abs_tol=tolerance * 1e-3)
        if not close:
            self.add(f"{what}: expected {expected:.6g}, got {got:.6g}")
        return close

    def more_than(self, what: str, *, bound: float, got: float) -> bool:
        """Note it unless `got` is above `bound`; NaN is not."""
        above = got > bound
        if not above:
            self.add(f"{what}: expected more than {bound:g}, got {got:.3g}")
        return above


def check(name: str, examine: Callable[[Problems], str]) -> Check:
    """Run `examine`, which notes problems and returns what it found; what it raises is a problem as well."""
    problems = Problems()
    found = ""
    try:
        found = examine(problems)
    except Exception as error:  # whatever is broken, the other checks go on
        problems.add(f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')[:300]}")
    return Check(name, found, tuple(problems.texts))


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 120 else f"{text[:117]}..."
