"""Charts (figures.py) as SVG and PNG, by matplotlib's Agg and SVG backends; no window, no clock, no user's settings.

One model's figures are four to five inches wide, with text of 7 points or more, for one of two columns; several models'
for a page's width (canvas.py lays them out). In the SVG letters are outlines: the same picture in every viewer,
whatever fonts it has.

Colours are Okabe and Ito's (2008), which colour-blind readers can tell apart; methods also differ in the shape of their
marks, verdicts in filling or by a sign, never by colour alone.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import matplotlib
from matplotlib.collections import PatchCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from infosteer_bench.benchmark import GROUPS
from infosteer_bench.leaderboard.views.figures.canvas import (
    EDGE,
    SMALL,
    TEXT,
    Page,
    entrant_styles,
    text_height,
    text_width,
    wrap,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from infosteer_bench.leaderboard.views.figures.chart import Chart, Point

SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "path",
    "svg.hashsalt": "infosteer_bench",
    "text.parse_math": False,  # a name may hold a $
    "font.family": ["DejaVu Sans"],
    "axes.linewidth": 0.6,
    "axes.edgecolor": "0.5",
    "xtick.color": "0.2",
    "ytick.color": "0.2",
}
DOTS_PER_INCH = 150
BAND = "0.955"
ONE_BAND = 12  # columns of a heat map that stand side by side


@contextmanager
def drawing_settings() -> Iterator[None]:
    """matplotlib's own defaults and ours, whatever the user's are; theirs come back afterwards."""
    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # a name in a script the font lacks: boxes
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(SETTINGS)
        yield


def make_figure(chart: Chart) -> Figure:
    """The chart laid out, to be drawn under `drawing_settings`."""
    return {"ood": _ood, "deltas": _heat_map, "forest": _forest}[chart.kind](chart)


def draw(chart: Chart, *, description: str) -> tuple[bytes, bytes]:
    """(SVG, PNG), each with `description` among its metadata. Equal charts give equal bytes on one installation."""
    with drawing_settings():
        figure = make_figure(chart)
        svg, png = io.BytesIO(), io.BytesIO()
        about = {"Description": description, "Title": chart.title}
        figure.savefig(svg, format="svg", metadata={**about, "Date": None, "Creator": None})
        figure.savefig(png, format="png", dpi=DOTS_PER_INCH, metadata={**about, "Software": None})
    return svg.getvalue(), png.getvalue()


def _marks(axes: Axes, found: Sequence[tuple[float, float, bool]], style: dict[str, Any]) -> None:
    """Marks at (across, up, filled) of one method."""
    for filled in (True, False):
        some = [(across, up) for across, up, full in found if full == filled]
        if some:
            face = style["color"] if filled else "white"
            marker, colour = style["marker"], style["color"]
            axes.plot(
                *zip(*some, strict=True),
                ls="none", marker=marker, ms=4.2, color=colour, mfc=face, mew=0.9, zorder=3, clip_on=False,
            )  # fmt: skip


def _ood(chart: Chart) -> Figure:
    """One panel per model, data sets along it, methods side by side."""
    labels = [label for _, label in chart.columns]
    step, slant = 0.092, math.radians(35)
    group = max(step * len(chart.entrants) + 0.1, 0.42)
    width = group * len(labels)
    widest = max(text_width(label, SMALL) for label in labels)
    left = max(0.45, text_width(labels[0], SMALL) * math.cos(slant) - 0.5 * group + EDGE)
    below = widest * math.sin(slant) + 0.2
    panel = 1.5 if len(chart.panels) <= 3 else 1.15
    titles = [wrap(one.title, width, TEXT, bold=True) for one in chart.panels]
    heads = [text_height(title, TEXT) + 0.05 for title in titles]
    height = sum(heads) + len(titles) * (panel + 0.08) + below
    page = Page(chart, width=max(left + width + EDGE, 4.1), height=height)
    styles = entrant_styles(chart)
    low, high = chart.limits
    pad = max(1.0, 0.05 * (high - low))
    down = 0.0
    for place, one in enumerate(chart.panels):
        down += heads[place]
        axes = page.axes(left=left, down=down, width=width, height=panel)
        axes.set_title(titles[place], loc="left", fontsize=TEXT, fontweight="bold", pad=3)
        axes.set(xlim=(0, width), ylim=(low - pad, high + 1.8 * pad))
        for at in range(0, len(labels), 2):
            axes.axvspan(at * group, (at + 1) * group, color=BAND, lw=0, zorder=0)
        means = [at for at, (task, _) in enumerate(chart.columns) if task.startswith("mean:")]
        if means:
            axes.axvline(means[0] * group, color="0.3", lw=0.8)
        for entrant, style in enumerate(styles):
            at = [(column + 0.5) * group + (entrant - (len(styles) - 1) / 2) * step for column in range(len(labels))]
            pairs = [(across, point) for across, point in zip(at, one.points[entrant], strict=True) if point]
            bars = [(across, point.low, point.high) for across, point in pairs if point.low is not None]
            if bars:
                axes.vlines(*zip(*bars, strict=True), color=style["color"], lw=1.1, zorder=2)
            _marks(axes, [(across, point.value, not style["hollow"]) for across, point in pairs], style)
            for across, point in pairs:
                if point.marked:
                    top = point.value if point.high is None else point.high
                    axes.text(across, top, "*", ha="center", va="bottom", size=SMALL)
        axes.grid(axis="y", color="0.85", lw=0.5)
        axes.set_axisbelow(True)
        named = labels if place == len(chart.panels) - 1 else []
        axes.set_xticks([(column + 0.62) * group for column in range(len(named))], named)
        for tick in axes.get_xticklabels():
            tick.set(rotation=35, ha="right", rotation_mode="anchor")
        axes.tick_params(labelsize=SMALL, length=2, width=0.5)
        axes.tick_params(axis="x", length=0)
        down += panel + 0.08
    return page.figure


def _forest(chart: Chart) -> Figure:
    """One panel per model, tasks down, means below a line, methods one under the other within a task."""
    labels = [label for _, label in chart.columns]
    first_mean = sum(not task.startswith("mean:") for task, _ in chart.columns)
    across = min(3, len(chart.panels))
    step = 0.1
    row = step * len(chart.entrants) + 0.07
    left = max(text_width(label, SMALL, bold=True) for label in labels) + 0.12 + EDGE
    width, gap = {1: 2.7, 2: 1.9, 3: 1.6}[across], 0.12
    panel, below = row * len(labels), 0.3
    titles = [wrap(one.title, width, TEXT, bold=True) for one in chart.panels]
    head = max(text_height(title, TEXT) for title in titles) + 0.06
    page = Page(
        chart,
        width=max(left + across * width + (across - 1) * gap + 0.15, 4.1),
        height=math.ceil(len(titles) / across) * (head + panel + below),
    )
    frame = chart.limits
    for place, one in enumerate(chart.panels):
        axes = page.axes(
            left=left + place % across * (width + gap),
            down=place // across * (head + panel + below) + head,
            width=width,
            height=panel,
        )
        axes.set_title(titles[place], loc="left", fontsize=TEXT, fontweight="bold", pad=3)
        axes.set(xlim=frame, ylim=(panel, 0))
        for column in range(0, len(labels), 2):
            axes.axhspan(column * row, (column + 1) * row, color=BAND, lw=0, zorder=0)
        axes.axvline(0, color="0.25", lw=0.8, zorder=1)
        if first_mean < len(labels):
            axes.axhline(first_mean * row, color="0.3", lw=0.8)
        for entrant, style in enumerate(entrant_styles(chart)):
            at = [
                (column + 0.5) * row + (entrant - (len(chart.entrants) - 1) / 2) * step for column in range(len(labels))
            ]
            _forest_series(axes, list(zip(at, one.points[entrant], strict=True)), style, frame=frame)
        axes.grid(axis="x", color="0.85", lw=0.5)
        axes.set_axisbelow(True)
        axes.set_xticks([tick for tick in MaxNLocator(5).tick_values(*frame) if frame[0] <= tick <= frame[1]])
        named = labels if place % across == 0 else []
        axes.set_yticks([(column + 0.5) * row for column in range(len(named))], named)
        for tick in axes.get_yticklabels()[first_mean:]:
            tick.set_fontweight("bold")
        axes.tick_params(labelsize=SMALL, length=2, width=0.5)
        axes.tick_params(axis="y", length=0)
    return page.figure


def _forest_series(
    axes: Axes, places: Sequence[tuple[float, Point | None]], style: dict[str, Any], *, frame: tuple[float, float]
) -> None:
    """One method in one panel; intervals that leave the frame end in an arrow at its edge."""
    pairs = [(up, point) for up, point in places if point is not None]
    bars = [(up, max(point.low, frame[0]), min(point.high, frame[1])) for up, point in pairs
            if point.low is not None and point.high is not None]  # fmt: skip
    if bars:
        axes.hlines(*zip(*bars, strict=True), color=style["color"], lw=1.1, zorder=2)
    for edge, marker, inside in ((frame[0], "<", 1), (frame[1], ">", 2)):
        cut = [bar[0] for bar in bars if bar[inside] == edge]
        axes.plot([edge] * len(cut), cut, ls="none", marker=marker, ms=4, color=style["color"], mew=0, clip_on=False)
    _marks(axes, [(point.value, up, point.verdict in ("win", "loss")) for up, point in pairs], style)
    for up, point in pairs:
        if point.marked:
            end = min(point.value if point.high is None else point.high, frame[1])
            axes.annotate("*", (end, up), (2, -2), textcoords="offset points", va="center", size=SMALL)


def _blocks(chart: Chart) -> list[list[int]]:
    """Columns of the heat map's two bands: the language tasks; mathematics, other tasks and means."""
    language = set(GROUPS["all"]) - set(GROUPS["math"])
    first = [place for place, (task, _) in enumerate(chart.columns) if task in language]
    rest = [place for place in range(len(chart.columns)) if place not in first]
    if len(chart.columns) <= ONE_BAND:
        return [[*first, *rest]]
    wide = max(10, len(first))
    return [block for block in (first, *(rest[at : at + wide] for at in range(0, len(rest), wide))) if block]


def _heat_map(chart: Chart) -> Figure:
    """Rows model x method, columns tasks; a number in every cell, its verdict as a sign under it."""
    cell, high, gap, slant = 0.38, 0.29, 0.1, 45
    names = [wrap(label, 1.45, SMALL) for _, label in chart.entrants]
    left = max(text_width(name, SMALL) for name in names) + 0.1 + EDGE
    rows = [max(high, text_height(name, SMALL) + 0.06) for name in names]
    blocks = _blocks(chart)
    labels = [label for _, label in chart.columns]
    slanted = max(text_width(label, SMALL) for label in labels) * math.sin(math.radians(slant)) + 0.16
    widest = max(len(block) for block in blocks) * cell + gap
    over = max(text_width(labels[block[-1]], SMALL) - (widest - gap - len(block) * cell) for block in blocks)
    right = max(0.1, over * math.cos(math.radians(slant)) - 0.05)
    titles = [wrap(one.title, left + widest - 2 * EDGE, SMALL, bold=True) for one in chart.panels]
    tall = sum(text_height(title, SMALL) + 0.02 + sum(rows) + 0.07 for title in titles)
    scale = 0.42
    page = Page(
        chart,
        width=max(left + widest + right, 4.2),
        height=len(blocks) * (slanted + tall + 0.12) + scale,
        legend=False,
    )
    most = float(math.ceil(chart.limits[1]))
    colours = matplotlib.colormaps["RdBu"]
    down = 0.0
    for block in blocks:
        down += slanted
        axes = page.axes(left=0, down=down, width=page.width, height=tall)
        axes.set(xlim=(0, page.width), ylim=(tall, 0))
        axes.axis("off")
        means = sum(not chart.columns[place][0].startswith("mean:") for place in block)
        edges = [left + at * cell + (gap if means and at >= means else 0.0) for at in range(len(block))]
        for edge, place in zip(edges, block, strict=True):
            axes.text(edge + cell / 2 - 0.05, -0.05, labels[place], size=SMALL, rotation=slant, rotation_mode="anchor")
        patches: list[Rectangle] = []
        faces: list[Any] = []
        up = 0.0
        for title, one in zip(titles, chart.panels, strict=True):
            axes.text(EDGE, up, title, size=SMALL, weight="bold", va="top")
            up += text_height(title, SMALL) + 0.02
            for name, row, series in zip(names, rows, one.points, strict=True):
                axes.text(left - 0.08, up + row / 2, name, size=SMALL, ha="right", va="center", linespacing=1.05)
                for edge, place in zip(edges, block, strict=True):
                    point = series[place]
                    patches.append(Rectangle((edge, up), cell, row))
                    faces.append("white" if point is None else colours(0.5 + 0.42 * point.value / most))
                    if point is not None:
                        _cell_text(axes, point, edge + cell / 2, up + row / 2, strong=abs(point.value) > 0.75 * most)
                up += row
            up += 0.07
        axes.add_collection(PatchCollection(patches, facecolor=faces, edgecolor="0.8", linewidth=0.5))
        down += tall + 0.12
    _scale(page, colours, most=most, left=left, down=down)
    return page.figure


def _cell_text(axes: Axes, point: Point, across: float, up: float, *, strong: bool) -> None:
    sign = {"win": "\n▲", "loss": "\n▼"}.get(point.verdict, "")
    text = f"{point.value:+.1f}".replace("-", "\N{MINUS SIGN}")
    text = (text if text.strip("+\N{MINUS SIGN}") != "0.0" else "0.0") + ("*" if point.marked else "") + sign
    axes.text(
        *(across, up, text),
        size=SMALL - 0.5,
        ha="center",
        va="center",
        color="white" if strong else "black",
        weight="bold" if sign else "normal",
        linespacing=0.95,
        zorder=3,
    )


def _scale(page: Page, colours: Any, *, most: float, left: float, down: float) -> None:
    """The bar that says which colour is how many points."""
    steps = 40
    axes = page.axes(left=left, down=down, width=2.0, height=0.12)
    patches = [Rectangle((-most + place * 2 * most / steps, 0), 2 * most / steps, 1) for place in range(steps)]
    faces = [colours(0.5 + 0.42 * ((place + 0.5) * 2 / steps - 1)) for place in range(steps)]
    axes.add_collection(PatchCollection(patches, facecolor=faces, edgecolor=faces, linewidth=0.3))
    axes.set(xlim=(-most, most), ylim=(0, 1), yticks=[])
    ticks: Sequence[float] = (-most, 0.0, most)
    axes.set_xticks(ticks, [f"{tick:+g}".replace("-", "\N{MINUS SIGN}") if tick else "0" for tick in ticks])
    axes.tick_params(labelsize=SMALL, length=2, width=0.5)
