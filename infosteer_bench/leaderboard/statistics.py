"""Is a difference between two methods more than the luck of seeds and items? Intervals, p-values, detectable effects.

    found = compare([difference])                 # one task: (seeds, items) of method minus sft, each -1, 0 or 1
    found = compare([boolq, piqa], ["commonsense", "commonsense"])     # a macro mean
    adjusted = holm([found.p_value, ...])

Seeds and items are both drawn: another seed would have trained another checkpoint, another sample of questions would
have asked others, and every item of a seed shares that seed's luck. The two are crossed random effects (a two-way
layout with one observation a cell; Searle, Casella and McCulloch 1992, "Variance Components", ch. 4), and the variance
of the mean is theirs together (METHOD.md, last section). An interval over items alone, as evaluation harnesses print
it, covers 26 to 80 % of the truth where seeds spread by three points.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import cast

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

LEVEL = 0.95
POWER = 0.80
_MOST_SEEDS = 1000
_QUANTILES = 24


@dataclass(frozen=True)
class Components:
    """What the variance of a mean over `seeds` x items is made of: mean squares over N, with degrees of freedom.

    seed, item, residual: (value, degrees of freedom) of each task or group of tasks that has one; the residual is in
    both of the others, so it is taken off once. floor: least variance (one item of each task might have come out
    otherwise), which keeps tiny samples and equal records from claiming certainty.
    """

    seeds: int
    seed: tuple[tuple[float, int], ...]
    item: tuple[tuple[float, int], ...]
    residual: tuple[tuple[float, int], ...]
    floor: float

    @property
    def variance(self) -> float:
        """Of the mean: MS_seed/N + MS_item/N - MS_res/N, at least MS_res/N (METHOD.md, statistics)."""
        residual = _total(self.residual)
        return max(_total(self.seed) + _total(self.item) - residual, residual, self.floor)

    @property
    def degrees_of_freedom(self) -> float:
        """Satterthwaite's (1946), at least those of the seeds; those of the items where nothing varies."""
        spread = math.fsum(value**2 / df for value, df in (*self.seed, *self.item, *self.residual) if value)
        least = self.least_degrees_of_freedom
        return max(self.variance**2 / spread, least) if spread else least

    @property
    def least_degrees_of_freedom(self) -> float:
        """Those of the seeds; of the items where nothing varies, or where there is one seed."""
        varies = any(value for value, _ in (*self.seed, *self.item, *self.residual))
        kinds = (self.seed or self.item) if varies else self.item
        return float(min([df for _, df in kinds], default=1))

    def with_seeds(self, seeds: int) -> Components:
        """The same experiment with another number of seeds, by its estimated components of variance."""
        residual = _total(self.residual) * self.seeds  # what one seed would add
        luck = max(0.0, _total(self.seed) * self.seeds - residual)
        item_df = min((df for _, df in self.item), default=1)
        items = max(0.0, _total(self.item) - _total(self.residual))
        return Components(
            seeds=seeds,
            seed=(((luck + residual) / seeds, seeds - 1),),
            item=((items + residual / seeds, item_df),),
            residual=((residual / seeds, (seeds - 1) * item_df),),
            floor=self.floor,
        )


@dataclass(frozen=True)
class Comparison:
    """A mean with what is known about it; in the units of the data (shares, so times 100 for points).

    low, high: 95 % interval. p_value: two-sided, of the mean being zero.
    """

    mean: float
    low: float
    high: float
    p_value: float
    seeds: int
    degrees_of_freedom: float
    parts: Components = field(repr=False)

    @cached_property
    def detectable(self) -> float | None:
        """The smallest true mean that an experiment like this one finds with 80 % power (see `detectable`); None where
        no difference of shares, which is at most 1, is large enough."""
        found = detectable(self.parts)
        return found if found <= 1 else None

    @cached_property
    def seeds_to_halve(self) -> int | None:
        """Seeds with which half of `detectable` would be; None where no number of seeds does it, as items limit it."""
        return seeds_to_halve(self.parts)


def compare(differences: Sequence[Array], groups: Sequence[Hashable] | None = None) -> Comparison:
    """The mean over tasks of the mean of each (seeds, items) array, the same seeds in all.

    groups: which tasks the same checkpoints answered (their mix): a seed's luck is shared within a group, and
    independent between them. One seed: over items only, which is no statement about another seed.

    Raises ValueError for no array, an empty one, or other numbers of seeds.
    """
    if not differences or any(one.ndim != 2 or not one.size for one in differences):
        raise ValueError("every task needs an array of seeds x items")
    if len({len(one) for one in differences}) > 1:
        raise ValueError("the tasks have other numbers of seeds")
    parts = components(differences, groups or [0] * len(differences))
    mean = math.fsum(float(one.mean()) for one in differences) / len(differences)
    error, df = math.sqrt(parts.variance), parts.degrees_of_freedom
    width = _t_quantile(df) * error
    return Comparison(
        mean=mean,
        low=mean - width,
        high=mean + width,
        p_value=_p_value(mean / error, df),
        seeds=parts.seeds,
        degrees_of_freedom=df,
        parts=parts,
    )


def components(differences: Sequence[Array], groups: Sequence[Hashable]) -> Components:
    """Mean squares of the two-way layouts, weighted for the macro mean over tasks."""
    weight, seeds = 1 / len(differences), len(differences[0])
    by_group: dict[Hashable, Array] = {}
    item: list[tuple[float, int]] = []
    residual: list[tuple[float, int]] = []
    for one, group in zip(differences, groups, strict=True):
        items = one.shape[1]
        by_seed, by_item, mean = one.mean(axis=1), one.mean(axis=0), float(one.mean())
        by_group[group] = by_group.get(group, np.zeros(seeds)) + weight * by_seed
        n = seeds * items
        if items > 1:
            of_items = seeds * float(((by_item - mean) ** 2).sum()) / (items - 1)
            item.append((weight**2 * of_items / n, items - 1))
        if items > 1 and seeds > 1:
            rest = one - by_seed[:, None] - by_item[None, :] + mean
            df = (seeds - 1) * (items - 1)
            residual.append((weight**2 * float((rest**2).sum()) / df / n, df))
    return Components(
        seeds=seeds,
        seed=tuple((float(total.var(ddof=1)) / seeds, seeds - 1) for total in by_group.values()) if seeds > 1 else (),
        item=tuple(item),
        residual=tuple(residual),
        floor=math.fsum((weight / one.shape[1]) ** 2 for one in differences),
    )


def detectable(parts: Components) -> float:
    """The true mean at which this experiment, done again, gives p < 0.05 in the right direction four times in five.

    Seeds are few, so that their variance is hardly known: the estimate that is at hand and the one that the next
    experiment will make are both the true one times chi2(df)/df. The promise is kept on average over both (a pivot: it
    holds whatever the true variance is), and the true mean square of seeds is no less than the residual one, which is
    part of it. Items and residuals have degrees of freedom enough to be taken as they are.
    """
    from scipy.optimize import brentq
    from scipy.special import ndtr, stdtrit

    (seed, seed_df), (item, item_df), (residual, residual_df) = map(_merged, (parts.seed, parts.item, parts.residual))
    luck = _luck(round(seed_df, 6))
    truth = np.maximum(seed / luck, residual)[:, None] if parts.seed else np.zeros((1, 1))  # what one knows now
    again = truth * luck[None, :] if parts.seed else truth  # what the next experiment will say
    error = np.sqrt(np.maximum(np.maximum(truth + item - residual, residual), parts.floor))
    variance = np.maximum(np.maximum(again + item - residual, residual), parts.floor)
    spread = again**2 / seed_df + item**2 / item_df + residual**2 / residual_df
    least = parts.least_degrees_of_freedom
    df = np.maximum(variance**2 / np.where(spread > 0, spread, np.inf), least)
    bar = stdtrit(df, 1 - (1 - LEVEL) / 2) * np.sqrt(variance)

    def lacks(effect: float) -> float:
        return float(ndtr((effect - bar) / error).mean()) - POWER

    highest = float(bar.max() + 10 * error.max())
    return cast(float, brentq(lacks, 0, highest, xtol=1e-6 * highest))


def seeds_to_halve(parts: Components) -> int | None:
    """The least number of seeds with which half the effect would be detectable; None if more than a thousand."""
    if parts.seeds < 2:
        return None
    goal = detectable(parts) / 2
    low, high = parts.seeds, _MOST_SEEDS
    if detectable(parts.with_seeds(high)) > goal:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if detectable(parts.with_seeds(middle)) <= goal else (middle, high)
    return high


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for their number by Holm's step-down method (1979), in the order given."""
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    adjusted, worst = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(order):
        worst = max(worst, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = worst
    return adjusted


def ranks(values: Sequence[float]) -> list[float]:
    """Ranks from 1; equal values share the mean of theirs."""
    ordered = sorted(values)
    return [(ordered.index(value) + 1 + len(ordered) - ordered[::-1].index(value)) / 2 for value in values]


def _total(terms: tuple[tuple[float, int], ...]) -> float:
    return math.fsum(value for value, _ in terms)


def _t_quantile(df: float) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(df, 1 - (1 - LEVEL) / 2))


def _p_value(t: float, df: float) -> float:
    from scipy.special import stdtr

    return min(1.0, 2 * float(stdtr(df, -abs(t))))


def _merged(terms: tuple[tuple[float, int], ...]) -> tuple[float, float]:
    """One mean square for a sum of several, with Satterthwaite's degrees of freedom; (0, 1) for none."""
    total, spread = _total(terms), math.fsum(value**2 / df for value, df in terms)
    return (total, total**2 / spread) if spread else (0.0, float(min([df for _, df in terms], default=1)))


@cache
def _luck(df: float) -> Array:
    """Quantiles of chi2(df)/df, the ratio of an estimated to a true variance, evenly spread in probability."""
    from scipy.special import gammaincinv

    return gammaincinv(df / 2, (np.arange(_QUANTILES) + 0.5) / _QUANTILES) / (df / 2)
