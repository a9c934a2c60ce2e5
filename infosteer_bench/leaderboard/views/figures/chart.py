"""What a figure says, apart from how it is drawn."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from infosteer_bench.records import digest

DRAWING = 1  # raise it when drawing.py changes what a reader sees, so that kept figures are drawn again


@dataclass(frozen=True)
class Point:
    """One number with its 95 % interval, in percent or percentage points, rounded as in the tables."""

    value: float
    low: float | None
    high: float | None
    verdict: str  # win, tie, loss, or "" where none was given
    marked: bool  # see MARKED


@dataclass(frozen=True)
class Panel:
    """One model: points[entrant][column], None where nothing was measured."""

    title: str
    points: tuple[tuple[Point | None, ...], ...]


@dataclass(frozen=True)
class Chart:
    """All that a figure says. columns: (task, label); entrants: (method, label), the same in every panel."""

    kind: str  # ood, deltas, forest
    title: str
    subtitle: str
    columns: tuple[tuple[str, str], ...]
    entrants: tuple[tuple[str, str], ...]
    panels: tuple[Panel, ...]
    limits: tuple[float, float]  # of the axis of numbers; an interval may go on beyond it
    notes: tuple[str, ...]

    @property
    def digest(self) -> str:
        """Of every number and label, and of the version of the drawing code."""
        return digest({"drawing": DRAWING, **asdict(self)})
