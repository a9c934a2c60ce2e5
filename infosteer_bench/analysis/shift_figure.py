"""The paper's Figure 4 for any checkpoints: key coefficients in the base model's percentile regions.

draw(shift, Path("shift"))                 # figure4.svg and figure4.png
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from infosteer_bench.analysis.drawing import drawing_settings
from infosteer_bench.analysis.shift import ALL, BASE, COUNTS, REGIONS, SHARES, Shift

TITLES = ("weakest quarter of the base model", "middle half", "strongest quarter")
PALETTE = ("#8a8f98", "#1f6f8b", "#d1495b", "#edae49", "#5c8001", "#7768ae", "#a0522d", "#111111")
"""base is grey; told apart by people who see no red or green by their lightness too."""
MARKERS = "osD^vPX*"


def draw(shift: Shift, folder: Path) -> list[Path]:
    """Write the figure as SVG and PNG; returns their paths. The same numbers give the same SVG."""
    import matplotlib

    with drawing_settings(9):
        matplotlib.rcParams.update({"axes.titlesize": 9, "text.parse_math": False})  # a label may hold a $
        figure = _figure(shift)
        paths = [folder / f"figure4.{kind}" for kind in ("svg", "png")]
        folder.mkdir(parents=True, exist_ok=True)
        figure.savefig(paths[0], metadata={"Date": None})
        figure.savefig(paths[1], dpi=150)
    return paths


def _figure(shift: Shift) -> Any:
    from matplotlib.figure import Figure

    names = list(shift.values)
    layers = [layer for layer in shift.cuts if layer != ALL]
    figure = Figure(figsize=(10, 6.4), layout="constrained")
    above, below = figure.subplots(2, 3)
    total = round(sum(shift.row(BASE, name).mean for name in COUNTS))
    figure.suptitle(
        f"Key coefficients |k| in the base model's percentile regions: {total / 1e6:.3g} million each, {len(layers)} "
        "layers, the same text.\nWhiskers and bands: standard deviation over seeds.",
        fontsize=10,
    )
    for place, (region, title) in enumerate(zip(REGIONS, TITLES, strict=True)):
        _points(above[place], shift, names, SHARES[place])
        above[place].set_title(f"{region} %: {title}")
        _lines(below[place], shift, names, layers, SHARES[place])
    above[0].set_ylabel("percent of all coefficients")
    below[0].set_ylabel("percent of the layer's")
    handles, shown = below[0].get_legend_handles_labels()
    figure.legend(handles, shown, loc="outside lower center", ncols=min(len(shown), 3), frameon=False)
    return figure


def _points(axes: Any, shift: Shift, names: list[str], quantity: str) -> None:
    """One point a label; whiskers are standard deviations over seeds. Points, as the axis does not begin at zero."""
    rows = [shift.row(name, quantity) for name in names]
    reach = [(row.mean - (row.std or 0), row.mean + (row.std or 0)) for row in rows]
    low, high = min(a for a, _ in reach), max(b for _, b in reach)
    room = max(high - low, 0.2)
    axes.set_ylim(low - 0.15 * room, high + 0.3 * room)
    axes.set_xlim(-0.6, len(rows) - 0.4)
    for place, row in enumerate(rows):
        axes.errorbar(
            place,
            row.mean,
            yerr=row.std,
            color=_colour(place),
            marker=MARKERS[place % len(MARKERS)],
            markersize=7,
            capsize=4,
        )
        axes.annotate(
            f"{row.mean:.2f}",
            (place, row.mean + (row.std or 0)),
            xytext=(0, 7),
            textcoords="offset points",
            ha="center",
            fontsize=8,
        )
    axes.axhline(rows[0].mean, color=PALETTE[0], linewidth=0.8, linestyle="--", zorder=0)
    axes.set_xticks([])
    _plain(axes)


def _lines(axes: Any, shift: Shift, names: list[str], layers: list[str], quantity: str) -> None:
    """One line a label over the layers, with its standard deviation over seeds as a band."""
    places = [int(layer) for layer in layers]
    for place, name in enumerate(names):
        rows = [shift.row(name, quantity, layer) for layer in layers]
        means = [row.mean for row in rows]
        count = f", {rows[0].n} seeds" if rows[0].n > 1 else ""
        axes.plot(
            places,
            means,
            color=_colour(place),
            marker=MARKERS[place % len(MARKERS)],
            markersize=3.5,
            linewidth=1.2,
            label=f"{name}{count}",
        )
        spread = [row.std or 0.0 for row in rows]
        axes.fill_between(
            places,
            [mean - std for mean, std in zip(means, spread, strict=True)],
            [mean + std for mean, std in zip(means, spread, strict=True)],
            color=_colour(place),
            alpha=0.15,
            linewidth=0,
        )
    axes.set_xlabel("layer")
    axes.xaxis.get_major_locator().set_params(integer=True)
    _plain(axes)


def _colour(place: int) -> str:
    return PALETTE[place % len(PALETTE)]


def _plain(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
