"""Is a difference between two methods more than the luck of seeds and items? Intervals, p-values, detectable effects.

    found = compare([difference])                 # one task: (seeds, items) of method minus sft, each -1, 0 or 1
    found = compare([boolq, piqa], ["commonsense", "commonsense"])     # a macro mean
    adjusted = holm([found.p_value, ...])

Seeds and items are both drawn: another seed would have trained another checkpoint, another sample of questions would
have asked others, and every item of a seed shares that seed's luck. The two are crossed random effects (a two-way
layout with one observation a cell; Searle, Casella and McCulloch 1992, "Variance Components", ch. 4), and the variance
of the mean is theirs together (docs/method.md, last section). An interval over items alone, as evaluation harnesses
print it, covers 26 to 80 % of the truth where seeds spread by three points.

Interval and p-value take t with Satterthwaite's degrees of freedom, as docs/method.md has it: right at 5 percent, and
too light far out, where Holm's correction looks. Three seeds that lie close together by luck give a small variance and
many degrees of freedom at once: where seeds spread by three points, 6.9 to 7.8 % of simulated families of ten
comparisons without effect then held a win. So Holm's correction is given `p_generalized`, which keeps the luck of the
seeds' own variance (generalized p-value; Tsui and Weerahandi 1989): 1.5 to 1.8 %. `pytest --slow -s
tests/unit/test_statistics.py` simulates all of this.
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

    seed, item, residual: (value, degrees of freedom) of each group of tasks (seed) or task that has one; the residual
    is in both of the others, so it is taken off once. least_seed: for each of `seed` the residual within it. floor:
    least variance (one item of each task might have come out otherwise), which keeps tiny samples and equal records
    from claiming certainty.
    """

    seeds: int
    seed: tuple[tuple[float, int], ...]
    item: tuple[tuple[float, int], ...]
    residual: tuple[tuple[float, int], ...]
    least_seed: tuple[float, ...]
    floor: float

    @property
    def variance(self) -> float:
        """Of the mean: MS_seed/N + MS_item/N - MS_res/N, at least MS_res/N (docs/method.md, statistics)."""
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
        scale = self.seeds / seeds  # of what every seed adds by itself
        noise = [value * scale for value, _ in self.residual]
        return Components(
            seeds=seeds,
            seed=tuple(
                (max(value, least) * scale, seeds - 1)
                for (value, _), least in zip(self.seed, self.least_seed, strict=True)
            ),
            item=tuple(
                (max(0.0, value - rest) + own, df)
                for (value, df), (rest, _), own in zip(self.item, self.residual, noise, strict=True)
            ),
            residual=tuple((own, (seeds - 1) * df) for own, (_, df) in zip(noise, self.item, strict=True)),
            least_seed=tuple(value * scale for value in self.least_seed),
            floor=self.floor,
        )


@dataclass(frozen=True)
class Comparison:
    """A mean with what is known about it; in the units of the data (shares, so times 100 for points).

    low, high: 95 % interval. p_value, p_generalized: two-sided, of the mean being zero; the latter, never smaller, is
    the one to correct for the number of tests.
    """

    mean: float
    low: float
    high: float
    p_value: float
    p_generalized: float
    seeds: int
    degrees_of_freedom: float
    parts: Components = field(repr=False)

    @cached_property
    def detectable(self) -> float | None:
        """The smallest true mean that this test alone finds with 80 % power (see `detectable`); None where no
        difference of shares, which is at most 1, is large enough."""
        found = detectable(self.parts)
        return found if found <= 1 else None

    def detectable_among(self, tests: int) -> float | None:
        """The same for a win among so many tests, whatever the others give: at the level of Holm's first step."""
        found = detectable(self.parts, tests)
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
        p_value=(p_value := _p_value(mean / error, df)),
        p_generalized=max(p_value, generalized_p(parts, abs(mean))),
        seeds=parts.seeds,
        degrees_of_freedom=df,
        parts=parts,
    )


def components(differences: Sequence[Array], groups: Sequence[Hashable]) -> Components:
    """Mean squares of the two-way layouts, weighted for the macro mean over tasks."""
    weight, seeds = 1 / len(differences), len(differences[0])
    by_group: dict[Hashable, Array] = {}
    within: dict[Hashable, float] = {}
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
            within[group] = within.get(group, 0.0) + residual[-1][0]
    return Components(
        seeds=seeds,
        seed=tuple((float(total.var(ddof=1)) / seeds, seeds - 1) for total in by_group.values()) if seeds > 1 else (),
        item=tuple(item),
        residual=tuple(residual),
        least_seed=tuple(within.get(group, 0.0) for group in by_group) if seeds > 1 else (),
        floor=math.fsum((weight / one.shape[1]) ** 2 for one in differences),
    )


def detectable(parts: Components, tests: int | None = None) -> float:
    """The true mean at which this experiment, done again, is found to be above zero four times in five.

    tests: by `p_generalized` below 0.05 / tests, Holm's first step; None: by `p_value` below 0.05.

    Seeds are few, so that their variance is hardly known: the estimate that is at hand and the one that the next
    experiment will make are both the true one times chi2(df)/df. The promise is kept on average over both (a pivot: it
    holds whatever the true variance is), and the true mean square of seeds is no less than the residual one, which is
    part of it. Items and residuals have degrees of freedom enough to be taken as they are.
    """
    from scipy.optimize import brentq
    from scipy.special import ndtr

    (seed, seed_df), (item, _), (residual, _) = map(_merged, (parts.seed, parts.item, parts.residual))
    luck = _luck(round(seed_df, 6))
    truth = np.maximum(seed / luck, residual)[:, None] if parts.seed else np.zeros((1, 1))  # what one knows now
    again = truth * luck[None, :] if parts.seed else truth  # what the next experiment will say
    error = np.sqrt(np.maximum(np.maximum(truth + item - residual, residual), parts.floor))
    bar = _bar(parts, again) if tests is None else _bar_generalized(parts, again, (1 - LEVEL) / tests)

    def lacks(effect: float) -> float:
        return float(ndtr((effect - bar) / error).mean()) - POWER

    return cast(float, brentq(lacks, 0, float(bar.max() + 10 * error.max()), xtol=1e-12))


def _bar(parts: Components, seed: Array) -> Array:
    """The mean from which on p_value is below 0.05, were `seed` the seeds' mean square."""
    from scipy.special import stdtrit

    (_, seed_df), (item, item_df), (residual, residual_df) = map(_merged, (parts.seed, parts.item, parts.residual))
    variance = np.maximum(np.maximum(seed + item - residual, residual), parts.floor)
    spread = seed**2 / seed_df + item**2 / item_df + residual**2 / residual_df
    df = np.maximum(variance**2 / np.where(spread > 0, spread, np.inf), parts.least_degrees_of_freedom)
    return stdtrit(df, 1 - (1 - LEVEL) / 2) * np.sqrt(variance)


def _bar_generalized(parts: Components, seed: Array, level: float) -> Array:
    """The mean from which on p_generalized is below `level`: by bisection on some values of `seed`, and between them
    by a line through the logarithms."""
    grid = np.geomspace(max(float(seed.min()), 1e-12), max(float(seed.max()), 2e-12), 32)
    variance, weights = _plausible(parts, grid)
    low, high = np.sqrt(variance.min(axis=1)) * 1e-3, np.sqrt(variance.max(axis=1)) * 10
    for _ in range(60):
        middle = np.sqrt(low * high)
        above = _two_sided(middle, variance, weights) > level
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    return np.exp(np.interp(np.log(np.maximum(seed, grid[0])), np.log(grid), np.log(high)))


def generalized_p(parts: Components, mean: float) -> float:
    """2 P(T > |mean|), T normal with the variance that the seeds' mean square may stand for."""
    seed = np.array([_total(parts.seed)])
    return min(1.0, float(_two_sided(np.array([mean]), *_plausible(parts, seed))[0]))


def _plausible(parts: Components, seed: Array) -> tuple[Array, Array]:
    """Variances of the mean behind each value of the seeds' mean square (n,): (n, quantiles), and their weights.

    The true mean square is the estimate over chi2(df)/df, and no less than the residual. Groups of tasks are taken for
    one, with the degrees of freedom of one: the careful side.
    """
    item, residual = _total(parts.item), _total(parts.residual)
    if not parts.seed:
        return np.full((len(seed), 1), max(item, residual, parts.floor)), np.ones(1)
    luck, weights = _luck_with_tail(parts.seeds - 1)
    true = np.maximum(seed[:, None] / luck[None, :], residual)
    return np.maximum(true + max(item - residual, 0.0), parts.floor), weights


def _two_sided(mean: Array, variance: Array, weights: Array) -> Array:
    from scipy.special import ndtr

    return 2 * ndtr(-mean[:, None] / np.sqrt(variance)) @ weights


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
def _luck_with_tail(df: float) -> tuple[Array, Array]:
    """The same ratio down to a chance of 1e-9 of being smaller, with the weight of each."""
    from scipy.special import gammaincinv

    edges = np.concatenate([[0.0], np.geomspace(1e-9, 1.0, 160)])
    return gammaincinv(df / 2, (edges[1:] + edges[:-1]) / 2) / (df / 2), np.diff(edges)


@cache
def _luck(df: float) -> Array:
    """Quantiles of chi2(df)/df, the ratio of an estimated to a true variance, evenly spread in probability."""
    from scipy.special import gammaincinv

    return gammaincinv(df / 2, (np.arange(_QUANTILES) + 0.5) / _QUANTILES) / (df / 2)
