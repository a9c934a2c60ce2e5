"""Distribution shift of key coefficients (paper 6.1, Figure 4): where |k| lies after fine-tuning, by the base model.

    shift = measure_shift(base, checkpoints, text, layers=[0, 1, 2])
    shift.rows                                      # label x layer x quantity, with spread over seeds

The base model's 25th and 75th percentile of |k|, of each layer and of all layers together, cut its coefficients into
three regions; every checkpoint's coefficients on the same tokens are counted in the same regions. Percentiles come
from streaming histograms (`memory.statistics`), so a text of any length takes one pass and the same memory.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import stdev
from typing import TYPE_CHECKING, Any

from infosteer_bench.analysis.checkpoints import Checkpoint, load, same_vocabulary
from infosteer_bench.analysis.reading import read_keys
from infosteer_bench.errors import UserError
from infosteer_bench.memory.statistics import MagnitudeHistogram, TokenStatistics
from infosteer_bench.memory.tap import TapError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from infosteer_bench.data.slices import TextSlice

PERCENTILES = (25.0, 75.0)
REGIONS = ("0-25", "25-75", "75-100")
SHARES = tuple(f"share_{region}" for region in REGIONS)
COUNTS = tuple(f"count_{region}" for region in REGIONS)
ALL = "all"
"""The layer that stands for all together."""
BASE, SFT = "base", "sft"

Values = dict[str, dict[str, float]]
"""Layer ("0", ..., or ALL) -> quantity -> value, of one checkpoint."""


@dataclass(frozen=True)
class Row:
    """One quantity of one label: mean over its n checkpoints (seeds), spread, and the difference to sft.

    share_*: percent of all key coefficients; count_*: how many; else `TokenStatistics.summary`. Intervals are 95 % t
    intervals over seeds, None below two; vs_sft is over the seeds that both have.
    """

    label: str
    layer: str
    quantity: str
    n: int
    mean: float
    std: float | None
    low: float | None
    high: float | None
    vs_sft: float | None
    vs_sft_low: float | None
    vs_sft_high: float | None


@dataclass(frozen=True)
class Shift:
    """What was found. cuts: layer -> the base model's percentiles of |k|; values: by label and seed."""

    cuts: dict[str, tuple[float, ...]]
    values: dict[str, dict[int, Values]]
    rows: list[Row]

    def row(self, label: str, quantity: str, layer: str = ALL) -> Row:
        """One of `rows`."""
        return next(row for row in self.rows if (row.label, row.layer, row.quantity) == (label, layer, quantity))


@dataclass(frozen=True)
class Reading:
    """One checkpoint's text: by layer, and ALL."""

    histograms: dict[str, MagnitudeHistogram]
    statistics: dict[str, dict[str, float]]


def measure_shift(
    base: Checkpoint,
    checkpoints: Sequence[Checkpoint],
    text: TextSlice,
    *,
    layers: Sequence[int],
    on_progress: Callable[[str], None] = lambda _: None,
) -> Shift:
    """Read all checkpoints on `text`, one in memory at a time.

    Raises UserError for a checkpoint of another vocabulary or of other layers than the base model's, and for one whose
    coefficients are not finite.
    """
    names = labels(checkpoints)
    for checkpoint in checkpoints:
        same_vocabulary(base, checkpoint)
        if checkpoint.resolved.n_layers != base.resolved.n_layers:
            raise UserError(
                f"{checkpoint.label} has {checkpoint.resolved.n_layers} layers, the base model "
                f"{base.resolved.n_layers}",
                allowed="checkpoints of one base model",
            )
    on_progress(f"reading {base.label} (the base model)")
    found = _read(base, text, layers)
    cuts = {name: tuple(map(histogram.cut, PERCENTILES)) for name, histogram in found.histograms.items()}
    edges = {name: tuple(map(found.histograms[name].value, cuts[name])) for name in cuts}
    sizes = {name: histogram.total for name, histogram in found.histograms.items()}
    values: dict[str, dict[int, Values]] = {BASE: {0: _values(found, cuts)}}
    for place, (label, checkpoint) in enumerate(zip(names, checkpoints, strict=True), 1):
        seeds = values.setdefault(label, {})
        seed = len(seeds) if checkpoint.seed is None else checkpoint.seed
        on_progress(f"reading {label} seed {seed} ({place} of {len(checkpoints)})")
        if seed in seeds:
            raise UserError(
                f"two checkpoints are {label!r} of seed {seed}", allowed="LABEL=CKPT, another label for one of them"
            )
        found = _read(checkpoint, text, layers)
        if {name: histogram.total for name, histogram in found.histograms.items()} != sizes:
            raise UserError(
                f"{checkpoint.label} has another FFN width than the base model", allowed="checkpoints of one base model"
            )
        seeds[seed] = _values(found, cuts)
    return Shift(edges, values, summarize(values, references_of(checkpoints)))


def labels(checkpoints: Sequence[Checkpoint]) -> list[str]:
    """What each is called: its label, with the mix where there are several."""
    several = _several_mixes(checkpoints)
    names = [_named(one.label, one, several=several) for one in checkpoints]
    if BASE in names:
        raise UserError(f"a checkpoint is called {BASE!r}, as the base model is", allowed="LABEL=CKPT, another label")
    return names


def references_of(checkpoints: Sequence[Checkpoint]) -> dict[str, str]:
    """By label, what plain fine-tuning on the same mix is called, whether it is among them or not."""
    several = _several_mixes(checkpoints)
    pairs = zip(labels(checkpoints), checkpoints, strict=True)
    return {name: _named(SFT, one, several=several) for name, one in pairs}


def _several_mixes(checkpoints: Sequence[Checkpoint]) -> bool:
    """Whether mixes must be told apart; a checkpoint without a record tells of none."""
    return len({one.mix for one in checkpoints if one.mix}) > 1


def _named(label: str, checkpoint: Checkpoint, *, several: bool) -> str:
    """`label` for the mix of a checkpoint."""
    return f"{label} on {checkpoint.mix}" if several and checkpoint.mix else label


def _read(checkpoint: Checkpoint, text: TextSlice, layers: Sequence[int]) -> Reading:
    try:
        return read_text(load(checkpoint), text, layers)
    except TapError as error:
        raise UserError(f"{checkpoint.label} cannot be read: {error}") from error


def read_text(model: nn.Module, text: TextSlice, layers: Sequence[int]) -> Reading:
    """Histograms and statistics of every layer, and of all together."""
    histograms = {layer: MagnitudeHistogram() for layer in layers}
    statistics: dict[int, TokenStatistics] = {}

    def visit(layer: int, k: Tensor, mask: Tensor) -> None:
        histograms[layer].add(k, mask)
        statistics.setdefault(layer, TokenStatistics(k.shape[-1])).add(k, mask)

    read_keys(model, text.rows, visit=visit, layers=layers)
    together = MagnitudeHistogram()
    for histogram in histograms.values():
        together += histogram
    by_layer = {str(layer): statistics[layer].summary() for layer in layers}
    names = list(next(iter(by_layer.values())))
    overall = {name: math.fsum(one[name] for one in by_layer.values()) / len(by_layer) for name in names}
    return Reading({ALL: together, **{str(layer): histograms[layer] for layer in layers}}, {ALL: overall, **by_layer})


def _values(found: Reading, cuts: Mapping[str, tuple[int, ...]]) -> Values:
    values: Values = {}
    for layer, histogram in found.histograms.items():
        counts = histogram.regions(cuts[layer])
        values[layer] = {
            **dict(zip(COUNTS, map(float, counts), strict=True)),
            **{name: 100 * count / histogram.total for name, count in zip(SHARES, counts, strict=True)},
            **found.statistics[layer],
        }
    return values


def summarize(values: Mapping[str, Mapping[int, Values]], references: Mapping[str, str] | None = None) -> list[Row]:
    """Mean and spread over seeds of every quantity, and the difference to sft where it is among the labels.

    references: by label, the one it is compared with (`references_of`); SFT for a label that is not there.
    """
    rows: list[Row] = []
    for label, seeds in values.items():
        sft = (references or {}).get(label, SFT)
        reference = values.get(sft, {}) if label not in (BASE, sft) else {}
        first = next(iter(seeds.values()))
        for layer, quantities in first.items():
            for quantity in quantities:
                own = {seed: found[layer][quantity] for seed, found in seeds.items()}
                paired = [own[seed] - reference[seed][layer][quantity] for seed in own if seed in reference]
                rows.append(Row(label, layer, quantity, len(own), *_spread(list(own.values())), *_difference(paired)))
    return rows


def _spread(values: list[float]) -> tuple[float, float | None, float | None, float | None]:
    """Mean, standard deviation (n - 1) and the ends of the 95 % t interval of the mean."""
    mean = math.fsum(values) / len(values)
    if len(values) < 2:
        return mean, None, None, None
    from scipy.special import stdtrit

    std = stdev(values)
    width = float(stdtrit(len(values) - 1, 0.975)) * std / math.sqrt(len(values))
    return mean, std, mean - width, mean + width


def _difference(paired: list[float]) -> tuple[float | None, float | None, float | None]:
    if not paired:
        return None, None, None
    mean, _, low, high = _spread(paired)
    return mean, low, high


def to_csv(shift: Shift) -> str:
    """shift.csv: one line per label, layer and quantity; empty fields are not known."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(Row.__dataclass_fields__)
    for row in shift.rows:
        writer.writerow("" if value is None else _plain(value) for value in asdict(row).values())
    return out.getvalue()


def _plain(value: Any) -> str:
    return f"{value:.9g}" if isinstance(value, float) else str(value)


def to_json(shift: Shift, text: TextSlice, base: Checkpoint, checkpoints: Sequence[Checkpoint]) -> dict[str, Any]:
    """shift.json: the text, the base model's percentiles, and every checkpoint's own values."""
    named = zip(labels(checkpoints), checkpoints, strict=True)
    return {
        "text": text.facts(),
        "percentiles": list(PERCENTILES),
        "base": {"model": base.resolved.id, "revision": base.resolved.revision},
        "base_magnitudes": {layer: [float(f"{edge:.6g}") for edge in edges] for layer, edges in shift.cuts.items()},
        "checkpoints": [
            {"label": label, "mix": one.mix, "seed": one.seed, "revision": one.resolved.revision}
            for label, one in named
        ],
        "values": {label: {str(seed): found for seed, found in seeds.items()} for label, seeds in shift.values.items()},
    }
