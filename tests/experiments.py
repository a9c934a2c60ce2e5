"""Simulated experiments of known truth: does the statistics of a board keep what it promises?

A question is right with a chance that depends on the question, on how much the method helps with that question, and on
the luck of the checkpoint (docs/method.md, last section). Chances stay within 0 and 1, so the truth is exact.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from infosteer_bench.leaderboard.numbers.statistics import Comparison, compare, detectable, generalized_p, holm

Array = NDArray[np.float64]
ITEM_BY_METHOD = 0.1  # a method helps or harms with a question by at most this
EFFECTS = (0.5, 1.0, 2.0, 3.0, 5.0, 10.0)  # percentage points, for the power curve


@dataclass(frozen=True)
class Found:
    """What `experiments` repetitions showed, as shares; see `simulate`."""

    coverage: float
    false_wins: float
    false_verdicts: float
    family_false_wins: float
    family_false_wins_by_p_value: float
    found_at_detectable: float
    wins_at_detectable_holm: float
    power: dict[float, float]


def differences(generator: np.random.Generator, *, seeds: int, items: int, seed_sd: float, tasks: int = 1) -> Array:
    """(tasks, seeds, items) of method minus sft, each -1, 0 or 1, of true mean 0. seed_sd: share, not points."""
    ability = 0.3 + 0.4 * generator.beta(0.5, 0.5, size=(tasks, 1, items))
    helps = generator.uniform(-ITEM_BY_METHOD, ITEM_BY_METHOD, size=(tasks, 1, items))
    luck = np.clip(generator.normal(0, seed_sd / np.sqrt(2), size=(2, tasks, seeds, 1)), -0.2, 0.2)
    draw = generator.random(size=(2, tasks, seeds, items))
    method, sft = draw[0] < ability + helps + luck[0], draw[1] < ability + luck[1]
    return method.astype(np.float64) - sft


def simulate(*, experiments: int, seeds: int, items: int, seed_sd: float, seed: int, family: int = 10) -> Found:
    """Repeat an experiment without effect. Effects are added to it as a constant, which changes nothing else.

    false_wins, false_verdicts: of one test, before Holm's correction; the latter are wins and losses.
    found_at_detectable: how often the effect that one experiment calls detectable is found by the next experiment.
    family_false_wins: how often at least one of `family` comparisons is called a win after Holm's correction;
    _by_p_value: if it were given the p-values that belong to the intervals.
    """
    generator = np.random.default_rng(seed)
    found = [compare([one]) for one in _draws(generator, experiments, seeds, items, seed_sd)]
    again = [*found[1:], found[0]]
    families = {"p_generalized": 0, "p_value": 0}
    for _ in range(experiments):
        members = [compare([one]) for one in _draws(generator, family, seeds, items, seed_sd)]
        for name in families:
            corrected = holm([getattr(one, name) for one in members])
            families[name] += any(p < 0.05 and one.mean > 0 for p, one in zip(corrected, members, strict=True))
    return Found(
        coverage=sum(one.low <= 0 <= one.high for one in found) / experiments,
        false_wins=sum(one.p_value < 0.05 and one.mean > 0 for one in found) / experiments,
        false_verdicts=sum(one.p_value < 0.05 for one in found) / experiments,
        family_false_wins=families["p_generalized"] / experiments,
        family_false_wins_by_p_value=families["p_value"] / experiments,
        wins_at_detectable_holm=sum(
            _wins_among(one, then, tests=family) for one, then in zip(found, again, strict=True)
        )
        / experiments,
        found_at_detectable=sum(then.low + detectable(one.parts) > 0 for one, then in zip(found, again, strict=True))
        / experiments,
        power={effect: sum(one.low + effect / 100 > 0 for one in found) / experiments for effect in EFFECTS},
    )


def _wins_among(one: Comparison, then: Comparison, *, tests: int) -> bool:
    """Whether the effect that `one` calls detectable among so many tests passes Holm's first step in `then`."""
    shifted = then.mean + detectable(one.parts, tests)
    return shifted > 0 and generalized_p(then.parts, shifted) < 0.05 / tests


def _draws(generator: np.random.Generator, experiments: int, seeds: int, items: int, seed_sd: float) -> Iterator[Array]:
    chunk = max(1, 2_000_000 // (seeds * items))
    for start in range(0, experiments, chunk):
        yield from differences(
            generator, seeds=seeds, items=items, seed_sd=seed_sd, tasks=min(chunk, experiments - start)
        )
