"""Paper to draw on: a figure laid out in inches from measured text, with heading, legend and notes.

No name is cut, whatever its length, and nothing depends on the fonts or settings of a user.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from matplotlib.colors import is_color_like
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.textpath import TextToPath

from infosteer_bench.errors import UserError
from infosteer_bench.methods import METHODS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from infosteer_bench.leaderboard.views.figures.chart import Chart

EDGE = 0.08  # inches around everything
TITLE, TEXT, SMALL = 10.0, 8.5, 7.5  # points
LINE = 1.3 / 72  # inches of height for each point of text size
OTHERS = ("#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#882255", "#999933")
SHAPES = "os^vDPX<>phd8*"
_measure = TextToPath().get_text_width_height_descent


class Page:
    """A figure with its words, laid out from the top: heading, `height` inches for the panels, legend, notes."""

    def __init__(self, chart: Chart, *, width: float, height: float, legend: bool = True) -> None:
        inner = width - 2 * EDGE
        title, subtitle = wrap(chart.title, inner, TITLE, bold=True), wrap(chart.subtitle, inner, TEXT)
        notes = "\n".join(wrap(note, inner, SMALL) for note in chart.notes)
        self.width = width
        head = EDGE + text_height(title, TITLE) + 0.03 + text_height(subtitle, TEXT) + 0.08
        keys, key_height = _flow([wrap(label, inner - 0.3, TEXT) for _, label in chart.entrants], inner)
        if not legend:
            keys, key_height = [], 0.0
        self.height = head + height + key_height + 0.08 + text_height(notes, SMALL) + EDGE
        self.figure = Figure(figsize=(self.width, self.height))
        self.top = head
        self._text(title, EDGE, EDGE, TITLE, weight="bold")
        self._text(subtitle, EDGE, EDGE + text_height(title, TITLE) + 0.03, TEXT, color="0.25")
        for (label, left, down), style in zip(keys, entrant_styles(chart), strict=False):
            up = 1 - (head + height + down + 0.5 * TEXT * LINE) / self.height
            line = ([(EDGE + left + edge) / self.width for edge in (0, 0.11, 0.22)], [up] * 3)
            face = "white" if style["hollow"] else style["color"]
            self.figure.add_artist(
                Line2D(*line, color=style["color"], marker=style["marker"], ms=5, mfc=face, lw=1.1, markevery=[1])
            )
            self._text(label, EDGE + left + 0.3, head + height + down, TEXT)
        self._text(notes, EDGE, self.height - EDGE - text_height(notes, SMALL), SMALL, color="0.3")

    def _text(self, text: str, left: float, down: float, size: float, **style: Any) -> None:
        """Line by line on baselines of our own: matplotlib's would go up and down with the letters."""
        for place, line in enumerate(text.split("\n")):
            baseline = down + (place + 0.75) * size * LINE
            self.figure.text(left / self.width, 1 - baseline / self.height, line, size=size, va="baseline", **style)

    def axes(self, *, left: float, down: float, width: float, height: float) -> Axes:
        """Axes with their upper left corner `left` and `down` inches from that of the panels' space."""
        bottom = self.height - self.top - down - height
        return self.figure.add_axes((left / self.width, bottom / self.height, width / self.width, height / self.height))


def text_width(text: str, size: float, *, bold: bool = False) -> float:
    """Inches that the widest line takes."""
    font = FontProperties(family="DejaVu Sans", size=size, weight="bold" if bold else "normal")
    return max(_measure(line, font, ismath=False)[0] for line in text.split("\n")) / 72 if text else 0.0


def wrap(text: str, width: float, size: float, *, bold: bool = False) -> str:
    """The text with line breaks, so that it fits into `width` inches: between words, else within a long name."""
    lines = [""]
    for word in re.findall(r"\S+ ?", " ".join(text.split())):
        if text_width((lines[-1] + word).strip(), size, bold=bold) <= width:
            lines[-1] += word
            continue
        lines.append("")
        for piece in _pieces(word, width, size, bold=bold):
            if lines[-1] and text_width((lines[-1] + piece).strip(), size, bold=bold) > width:
                lines.append("")
            lines[-1] += piece
    return "\n".join(line.strip() for line in lines if line)


def _pieces(word: str, width: float, size: float, *, bold: bool) -> list[str]:
    """The word itself, or where it does not fit its parts between - _ / , = and, of parts too long, their letters."""
    if text_width(word.strip(), size, bold=bold) <= width:
        return [word]
    parts = re.findall(r"[^-_/,=]*[-_/,=]|[^-_/,=]+", word)
    fits = [text_width(part.strip(), size, bold=bold) <= width for part in parts]
    return [piece for part, whole in zip(parts, fits, strict=True) for piece in ([part] if whole else part)]


def text_height(text: str, size: float) -> float:
    return (text.count("\n") + 1) * size * LINE if text else 0.0


def entrant_styles(chart: Chart) -> list[dict[str, Any]]:
    """Colour by method, shape by place, so that two arms of a method share a colour and not a shape; base is hollow."""
    left = itertools.cycle(OTHERS)
    colours = {
        method: _own_colour(method) or next(left) for method in dict.fromkeys(name for name, _ in chart.entrants)
    }
    return [
        {"color": colours[method], "marker": SHAPES[place % len(SHAPES)], "hollow": method == "base"}
        for place, (method, _) in enumerate(chart.entrants)
    ]


def _own_colour(method: str) -> str | None:
    """As its file says; None for a method that says nothing, or that this installation does not know or cannot load."""
    try:
        colour = METHODS.get(method).colour
    except UserError:
        return None
    return colour if is_color_like(colour) else None


def _flow(labels: Sequence[str], width: float) -> tuple[list[tuple[str, float, float]], float]:
    """(label, inches from the left, inches down) of a legend's entries, as many in a line as fit; and its height."""
    placed: list[tuple[str, float, float]] = []
    left = down = tallest = 0.0
    for label in labels:
        taken = text_width(label, TEXT) + 0.5
        if left and left + taken - 0.2 > width:
            left, down, tallest = 0.0, down + tallest, 0.0
        placed.append((label, left, down))
        left, tallest = left + taken, max(tallest, text_height(label, TEXT) + 0.02)
    return placed, down + tallest
