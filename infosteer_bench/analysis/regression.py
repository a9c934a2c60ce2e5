"""Least squares over tokens, with intervals that allow for the neighbourhood of tokens.

    fit = least_squares(y, design, group=prompt, place=position)
    fit.coefficients, fit.low, fit.high

Tokens of one text are not independent: what makes one token's entropy high makes its neighbours' high too. Standard
errors are those of Newey and West (1987) within each text, with Bartlett weights: residuals up to `LAGS` tokens apart
count as dependent, texts as independent. They never fall below those of independent tokens, which the sandwich can for
a class of few tokens. Intervals are normal, 95 %, and speak of more text of the same prompts' kind by the same model;
four prompts say little about prompts in general. A test simulates them: with noise whose neighbours correlate by 0.3,
somewhat more than the residuals of SmolLM2-135M's entropy do (0.24), an interval for the mean of 4 texts of 250 tokens
covers the truth in about 94 % of draws, where one for independent tokens covers 81 %.

Shapes: n tokens, p columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

LAGS = 20
"""Tokens apart, at most, for two residuals to count as dependent."""

QUANTILE = NormalDist().inv_cdf(0.975)


@dataclass(frozen=True)
class Fit:
    """coefficients, errors (standard errors), low, high: (p,). r_squared: share of variance, None if y is constant."""

    coefficients: Array
    errors: Array
    low: Array
    high: Array
    r_squared: float | None


def least_squares(y: ArrayLike, design: ArrayLike, *, group: ArrayLike, place: ArrayLike, lags: int = LAGS) -> Fit:
    """Ordinary least squares of y (n,) on the columns of design (n, p).

    group: (n,) the text that a token stands in. place: (n,) its position there.
    Raises ValueError where there are no more tokens than columns, or the columns depend on one another.
    """
    y, design = np.asarray(y, dtype=np.float64), np.asarray(design, dtype=np.float64)
    n, p = design.shape
    if n <= p or np.linalg.matrix_rank(design) < p:
        raise ValueError(f"{n} tokens cannot tell {p} effects apart")
    bread = np.linalg.inv(design.T @ design)
    coefficients = bread @ design.T @ y
    residuals = y - design @ coefficients
    independent = bread * (residuals @ residuals) / (n - p)
    meat = _meat(design * residuals[:, None], np.asarray(group), np.asarray(place), lags)
    dependent = bread @ meat @ bread * n / (n - p)
    errors = np.sqrt(np.maximum(np.diag(dependent), np.diag(independent)))
    total = float(((y - y.mean()) ** 2).sum())
    return Fit(
        coefficients,
        errors,
        coefficients - QUANTILE * errors,
        coefficients + QUANTILE * errors,
        1.0 - float(residuals @ residuals) / total if total > 0 else None,
    )


def _meat(scores: Array, group: NDArray, place: NDArray, lags: int) -> Array:
    """Sum over pairs of tokens of one text of (1 - distance / (lags + 1)) score score'; scores: (n, p)."""
    meat = np.zeros((scores.shape[1], scores.shape[1]))
    for one in np.unique(group):
        inside = group == one
        rows, at = scores[inside], place[inside].astype(np.float64)
        weights = np.clip(1.0 - np.abs(at[:, None] - at[None, :]) / (lags + 1), 0.0, None)
        meat += rows.T @ weights @ rows
    return meat


def correlation(
    x: ArrayLike, y: ArrayLike, *, group: ArrayLike, place: ArrayLike, ranks: bool = False
) -> tuple[float, float, float] | None:
    """Pearson's correlation, or Spearman's with ranks, and its interval: that of the slope between standardised values.

    None where either is constant or there are fewer than three tokens.
    """
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if ranks:
        x, y = mean_ranks(x), mean_ranks(y)
    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    x, y = (x - x.mean()) / x.std(), (y - y.mean()) / y.std()
    fit = least_squares(y, np.column_stack([np.ones_like(x), x]), group=group, place=place)
    return float(fit.coefficients[1]), max(float(fit.low[1]), -1.0), min(float(fit.high[1]), 1.0)


def mean_ranks(values: Array) -> Array:
    """Ranks from 1; equal values share the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2.0)[inverse]
