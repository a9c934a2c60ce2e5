"""Statistics of key coefficients over many tokens: how evenly memories are engaged, and how large |k| is.

    found = TokenStatistics(width=F)                  # one layer
    found.add(k, mask)                                # k (B, T, F), mask (B, T): as often as there are batches
    found.summary()                                   # {"entropy_nats": ..., "knowledge_entropy_nats": ..., ...}

    histogram = MagnitudeHistogram()
    histogram.add(k, mask)
    histogram.percentile(25.0)                        # of |k|, within 0.1 % of the exact one

Entropies are those of `entropy.key_entropy` with p = |k| / sum |k| (docs/method.md, variant 2), in nats and as a share
of their greatest value log F. Everything is kept as running sums: memory does not grow with the text.
"""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor

from infosteer_bench.memory.entropy import key_entropy, pooled_magnitudes
from infosteer_bench.memory.rows import blocks

LOW = 0.1
"""A key coefficient is low where |k| is below this part of its token's mean |k|: a measure without a base model."""

STATISTICS = (
    "entropy_nats",
    "entropy_share",
    "effective_memories",
    "low_share",
    "knowledge_entropy_nats",
    "knowledge_entropy_share",
)
"""What `TokenStatistics.summary` holds."""


class TokenStatistics:
    """Running statistics of one layer's key coefficients.

    entropy_nats: mean over tokens of H(p), p = |k| / sum |k|; entropy_share: the same over log F.
    effective_memories: mean over tokens of exp(H), between 1 and F (Hill's number of order 1; Hill 1973).
    low_share: share of keys with |k| < LOW times their token's mean |k|.
    knowledge_entropy_nats, _share: entropy of the mean |k| over tokens (knowledge entropy; Kim et al., arXiv
    2410.01380, section 3, who sum it over layers). It is never below the mean of the tokens' own entropies where all
    tokens weigh alike, as it counts memories that different tokens use.
    """

    def __init__(self, width: int) -> None:
        self.width, self.tokens = width, 0
        self._entropy = self._effective = self._low = 0.0
        self._pooled = torch.zeros(width, dtype=torch.float64)

    def add(self, k: Tensor, mask: Tensor) -> None:
        """Count the tokens of mask (B, T) bool in k (B, T, F)."""
        rows = k.detach()[mask]
        entropy = key_entropy(rows).double()
        self.tokens += len(rows)
        self._entropy += float(entropy.sum())
        self._effective += float(entropy.exp().sum())
        self._low += sum(float(_low_shares(part)) for (part,) in blocks(rows))
        everywhere = torch.ones(rows.shape[0], dtype=torch.bool, device=rows.device)
        self._pooled += pooled_magnitudes(rows, everywhere).double().cpu()

    def summary(self) -> dict[str, float]:
        """`STATISTICS` by name. Raises ValueError before any token was counted."""
        if not self.tokens:
            raise ValueError("no token was counted")
        most = math.log(self.width) if self.width > 1 else 1.0
        entropy = self._entropy / self.tokens
        knowledge = knowledge_entropy(self._pooled)
        values = (entropy, entropy / most, self._effective / self.tokens, self._low / self.tokens, knowledge)
        return dict(zip(STATISTICS, (*values, knowledge / most), strict=True))


def knowledge_entropy(magnitudes: Tensor) -> float:
    """Knowledge entropy in nats of the sum, or mean, over tokens of |k|, (F,): the average comes before the entropy."""
    return float(key_entropy(magnitudes))


def _low_shares(k: Tensor) -> Tensor:
    """Sum over tokens of each token's share of low keys: k (n, F) -> scalar. A token of zeros has none."""
    a = k.float().abs()
    return (a < LOW * a.mean(-1, keepdim=True)).float().mean(-1).double().sum()


class MagnitudeHistogram:
    """Counts of |k| in bins of like relative width: 1024 an octave over all of float32's range.

    A bin is the first 18 bits behind the sign of a float32, so finding it costs a shift, and its edges lie at most
    2^-10 (0.1 %) apart; below 1.2e-38 relative accuracy is lost. counts: (BINS,) int64.
    """

    SHIFT = 13
    BINS = 1 << (31 - SHIFT)

    def __init__(self, counts: Tensor | None = None) -> None:
        self.counts = torch.zeros(self.BINS, dtype=torch.int64) if counts is None else counts

    def add(self, k: Tensor, mask: Tensor) -> None:
        """Count |k| of every key of the tokens of mask (B, T) bool; k: (B, T, F).

        Raises ValueError where a coefficient is not finite.
        """
        for (rows,) in blocks(k.detach()[mask]):
            bins = rows.float().abs().view(torch.int32) >> self.SHIFT
            self.counts += torch.bincount(bins.flatten(), minlength=self.BINS).cpu()
        if self.counts[_INFINITE:].any():
            raise ValueError("a key coefficient is not finite")

    def __add__(self, other: MagnitudeHistogram) -> MagnitudeHistogram:
        return MagnitudeHistogram(self.counts + other.counts)

    @property
    def total(self) -> int:
        """How many coefficients were counted."""
        return int(self.counts.sum())

    def cut(self, percent: float) -> int:
        """The bin edge at which the share below is nearest to `percent` of the coefficients.

        The edge, `value(cut)`, is one of the two around the exact percentile, so within 0.1 % of it.
        Raises ValueError where nothing was counted, and for a percentage outside 0..100.
        """
        if not self.total:
            raise ValueError("no coefficient was counted")
        if not 0 <= percent <= 100:
            raise ValueError(f"{percent} is no percentage")
        below = self.counts.cumsum(0)
        wanted = round(percent / 100 * self.total, 6)  # 99.9 % of 1000 is 999, not a little more
        place = int(torch.searchsorted(below, max(1, math.ceil(wanted))))  # the bin of the percentile
        before = int(below[place]) - int(self.counts[place])
        return place if wanted - before < int(below[place]) - wanted else place + 1

    def value(self, edge: int) -> float:
        """|k| at a bin's lower edge."""
        return float(torch.tensor(edge << self.SHIFT, dtype=torch.int32).view(torch.float32))

    def percentile(self, percent: float) -> float:
        """|k| below which `percent` of the coefficients lie, within 0.1 %."""
        return self.value(self.cut(percent))

    def regions(self, cuts: tuple[int, ...]) -> tuple[int, ...]:
        """Counts of |k| below the first cut, between each two, and from the last on; cuts: rising, of any `cut`."""
        edges = (0, *cuts, self.BINS)
        return tuple(int(self.counts[low:high].sum()) for low, high in itertools.pairwise(edges))


_INFINITE = 0x7F800000 >> MagnitudeHistogram.SHIFT
