"""Histograms of the memories' specificity, one panel per layer, all on the same axes.

draw(layers, Path("surrogate"))            # specificity.svg
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from infosteer_bench.analysis.drawing import drawing_settings
from infosteer_bench.analysis.surrogate import LayerSurrogates

COLUMNS = 6
BINS = 40
LEAST = 1e-5
"""Specificity at which the logarithmic axis begins, at least."""
FILL, MARK = "#1f6f8b", "#d1495b"


def draw(layers: Sequence[LayerSurrogates], folder: Path) -> Path:
    """Write the figure and return its path. The same numbers give the same file."""
    path = folder / "specificity.svg"
    with drawing_settings(8):
        figure = _figure(layers)
        folder.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, metadata={"Date": None})
    return path


def _figure(layers: Sequence[LayerSurrogates]) -> Any:
    from matplotlib.figure import Figure

    columns = min(COLUMNS, len(layers))
    rows = math.ceil(len(layers) / columns)
    figure = Figure(figsize=(1.75 * columns + 0.6, 1.25 * rows + 1.0), layout="constrained")
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    values = [layer.found.specificity.double().numpy() for layer in layers]
    low = max(min(map(np.min, values)), LEAST)
    high = max(1.01 * low, *map(np.max, values))
    edges = np.geomspace(low, high, BINS + 1)
    for axes in panels.flat[len(layers) :]:
        axes.set_visible(False)
    for axes, layer, found in zip(panels.flat, layers, values, strict=False):
        axes.hist(np.clip(found, low, high), bins=edges, color=FILL, log=True, histtype="stepfilled")
        axes.set_xscale("log")
        axes.set_xlim(low / 1.1, high * 1.1)
        axes.minorticks_off()
        axes.axvline(float(np.median(found)), color=MARK, linewidth=1.0)
        axes.set_title(f"layer {layer.layer}", fontsize=8, pad=2)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=7, length=2)
    figure.suptitle("Specificity of memory vectors, 1 - H / log V, by layer", fontsize=10)
    figure.supxlabel("specificity (line: median)", fontsize=8)
    figure.supylabel("memories", fontsize=8)
    return figure
