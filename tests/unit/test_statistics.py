"""Intervals and tests of a board: against statsmodels and scipy, at the edges, and in simulated experiments."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from experiments import EFFECTS, differences, simulate
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm
from statsmodels.stats.multitest import multipletests

from infosteer_bench.leaderboard.numbers.statistics import (
    _bar_generalized,
    compare,
    components,
    detectable,
    generalized_p,
    holm,
    seeds_to_halve,
)

ANSWERS = arrays(
    np.float64, st.tuples(st.integers(2, 4), st.integers(2, 12)), elements=st.sampled_from([-1.0, 0.0, 1.0])
)
SEED_SD = (0.0, 0.5, 1.0, 3.0)
ITEMS = (250, 1000, 6000)


def draw(seeds: int = 3, items: int = 200, seed_sd: float = 0.01, tasks: int = 1, seed: int = 0) -> np.ndarray:
    return differences(np.random.default_rng(seed), seeds=seeds, items=items, seed_sd=seed_sd, tasks=tasks)


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_mean_squares_are_those_of_a_two_way_layout(seeds):
    one = draw(seeds=seeds, items=60)[0]
    table = pd.DataFrame([(s, i, one[s, i]) for s in range(seeds) for i in range(60)], columns=["s", "i", "y"])
    expected = anova_lm(ols("y ~ C(s) + C(i)", table).fit())
    mean_squares, df = expected["sum_sq"] / expected["df"], expected["df"]
    parts = components([one], ["mix"])
    for (value, own_df), source in zip((parts.seed[0], parts.item[0], parts.residual[0]), expected.index, strict=True):
        assert value * one.size == pytest.approx(mean_squares[source])
        assert own_df == df[source]
    seed, item, residual = mean_squares / one.size
    assert parts.variance == pytest.approx(max(seed + item - residual, residual))
    satterthwaite = parts.variance**2 / (seed**2 / df.iloc[0] + item**2 / df.iloc[1] + residual**2 / df.iloc[2])
    assert parts.degrees_of_freedom == pytest.approx(max(satterthwaite, seeds - 1))


def test_one_seed_is_a_t_test_over_items():
    one = draw(seeds=1, items=80)[0]
    found, expected = compare([one]), stats.ttest_1samp(one[0], 0.0)
    assert (found.low, found.high) == pytest.approx(tuple(expected.confidence_interval()))
    assert found.p_value == pytest.approx(expected.pvalue)
    assert found.seeds_to_halve is None


def test_without_luck_of_items_it_is_a_t_test_over_seeds():
    one = np.repeat(np.array([[0.2], [0.5], [-0.1]]), 50, axis=1)  # every item the same: seeds alone differ
    found, expected = compare([one]), stats.ttest_1samp(one.mean(axis=1), 0.0)
    assert (found.low, found.high) == pytest.approx(tuple(expected.confidence_interval()))
    assert found.p_value == pytest.approx(expected.pvalue)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_holm_is_statsmodels(p_values):
    assert holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1].tolist())


def test_equal_answers_are_a_tie():
    for tasks in (1, 4):
        found = compare([np.zeros((3, 100))] * tasks)
        assert (found.mean, found.p_value) == (0.0, 1.0)
        assert found.low < 0 < found.high
        assert found.low == pytest.approx(-found.high)
    assert holm([1.0, 1.0]) == [1.0, 1.0]


def test_one_answer_of_a_hundred_that_always_differs_is_no_win():
    one = np.zeros((3, 100))
    one[:, 7] = 1.0
    assert compare([one]).p_value > 0.05


@given(ANSWERS, st.integers(0, 2**32 - 1))
def test_order_of_seeds_and_items_does_not_matter(one, seed):
    generator = np.random.default_rng(seed)
    other = one[generator.permutation(len(one))][:, generator.permutation(one.shape[1])]
    found, again = compare([one]), compare([other])
    for name in ("mean", "low", "high", "p_value", "degrees_of_freedom"):
        assert getattr(found, name) == pytest.approx(getattr(again, name), abs=1e-9)


@given(ANSWERS)
def test_interval_and_p_value_agree_and_a_mirror_image_mirrors(one):
    found, mirrored = compare([one]), compare([-one])
    assert (found.low <= 0 <= found.high) == (found.p_value >= 0.05 - 1e-9)
    assert (mirrored.low, mirrored.high) == pytest.approx((-found.high, -found.low))
    assert mirrored.p_value == pytest.approx(found.p_value)
    assert found.low <= found.mean <= found.high
    assert found.degrees_of_freedom >= 1 - 1e-9
    assert math.isfinite(detectable(found.parts))
    assert detectable(found.parts) > 0
    assert (found.detectable is None) == (detectable(found.parts) > 1)


def test_a_macro_mean_of_equal_tasks_narrows_by_their_items_only():
    one = draw(items=400, seed_sd=0.0)
    same = compare([one[0]])
    other = compare(list(draw(items=400, seed_sd=0.0, tasks=9, seed=5)))
    assert other.high - other.low < (same.high - same.low) / 2


def test_the_luck_of_a_checkpoint_is_shared_by_its_tasks():
    """Nine tasks of one checkpoint with the same seed effect: independent checkpoints would know more."""
    generator = np.random.default_rng(1)
    luck = generator.normal(0, 0.2, size=(3, 1))
    tasks = [one + luck for one in draw(items=400, seed_sd=0.0, tasks=9)]
    shared, apart = compare(tasks, ["mix"] * 9), compare(tasks, list(range(9)))
    assert shared.parts.variance > 4 * apart.parts.variance
    assert shared.degrees_of_freedom < 3 < apart.degrees_of_freedom


def test_macro_means_cover_too():
    covered = 0
    for seed in range(200):
        generator = np.random.default_rng(seed)
        luck = generator.normal(0, 0.02, size=(3, 1))  # shared by the tasks of a checkpoint
        tasks = list(differences(generator, seeds=3, items=100, seed_sd=0.0, tasks=6))
        found = compare([one + luck for one in tasks])
        covered += found.low <= 0 <= found.high
    assert covered / 200 >= 0.90  # 95 % expected, standard error 1.5


def test_more_seeds_halve_what_seeds_blur_and_not_what_items_blur():
    by_seeds, by_items = draw(items=6000, seed_sd=0.03, seed=3)[0], draw(items=40, seed_sd=0.0, seed=2)[0]
    needed = seeds_to_halve(components([by_seeds], [0]))
    assert needed is not None
    parts = components([by_seeds], [0])
    assert detectable(parts.with_seeds(needed)) <= detectable(parts) / 2 < detectable(parts.with_seeds(needed - 1))
    always = np.repeat(by_items[:1], 3, axis=0)  # the same answers at every seed: only other items would tell more
    assert seeds_to_halve(components([always], [0])) is None


@pytest.mark.parametrize("groups", [["a"], ["a", "a", "b"], ["a", "b", "c"]])
def test_with_its_own_number_of_seeds_an_experiment_is_itself(groups):
    abilities = np.linspace(-0.4, 0.4, 500)  # so that items do differ by more than chance
    lucky = np.array([[-0.1], [0.0], [0.1]])
    tasks = [one + abilities + lucky for one in draw(items=500, seed_sd=0.0, tasks=len(groups))]
    parts = components(tasks, groups)
    assert parts.with_seeds(3).variance == pytest.approx(parts.variance)
    assert parts.with_seeds(3).degrees_of_freedom == pytest.approx(parts.degrees_of_freedom)
    assert detectable(parts.with_seeds(3)) == pytest.approx(detectable(parts))
    assert parts.with_seeds(30).variance < parts.variance


def test_a_win_among_many_takes_a_larger_difference():
    found = compare([draw(items=6000, seed_sd=0.0)[0]])
    alone, among = found.detectable, found.detectable_among(30)
    assert alone is not None
    assert among is not None
    assert among > alone
    assert found.detectable_among(1) >= 0.99 * alone, "the generalized test is the careful one"


def test_the_generalized_p_value_of_seeds_alone_is_that_of_a_t_test():
    """Where items add nothing the luck of the seeds' variance gives a t distribution, far out too."""
    one = np.repeat(np.array([[0.2], [0.21], [0.19]]), 5000, axis=1)
    found = compare([one])
    assert found.p_generalized == pytest.approx(stats.ttest_1samp(one.mean(axis=1), 0.0).pvalue, rel=0.02)
    assert found.p_generalized < 0.001


@given(ANSWERS)
def test_the_generalized_p_value_is_the_careful_one(one):
    found = compare([one])
    assert found.p_value <= found.p_generalized <= 1


@pytest.mark.parametrize("tests", [1, 10, 45])
def test_a_detectable_effect_is_where_wins_begin(tests):
    """The bar that `detectable` works with, at the estimate itself, is the mean whose p-value is the level."""
    parts = components([draw(items=1000, seed_sd=0.02)[0]], [0])
    bar = _bar_generalized(parts, np.array([[parts.seed[0][0]], [4 * parts.seed[0][0]]]), 0.05 / tests)
    assert generalized_p(parts, float(bar[0, 0])) == pytest.approx(0.05 / tests, rel=0.02)


@pytest.mark.parametrize("wrong", [[], [np.zeros((3, 0))], [np.zeros(3)], [np.zeros((3, 2)), np.zeros((2, 2))]])
def test_what_cannot_be_compared(wrong):
    with pytest.raises(ValueError, match="seeds"):
        compare(wrong)


def test_simulated_briefly():
    """200 experiments: wide bounds, but wide enough to see an interval over items only (26 to 80 % at 3 points)."""
    found = simulate(experiments=200, seeds=3, items=1000, seed_sd=0.03, seed=0, family=2)
    assert 0.90 <= found.coverage <= 1.0
    assert found.false_wins <= 0.06
    assert found.found_at_detectable >= 0.75


@pytest.mark.slow
@pytest.mark.parametrize("items", ITEMS)
@pytest.mark.parametrize("seed_sd", SEED_SD)
def test_simulated(items, seed_sd, capsys):
    found = simulate(experiments=1000, seeds=3, items=items, seed_sd=seed_sd / 100, seed=0)
    with capsys.disabled():
        share = {name: f"{100 * getattr(found, name):.1f} %" for name in found.__dataclass_fields__ if name != "power"}
        curve = ", ".join(f"{effect:g}: {100 * found.power[effect]:.1f}" for effect in EFFECTS)
        print(f"\n{items} items, seed sd {seed_sd:g} points: {share}; percent of wins at true points {curve}")
    assert 0.93 <= found.coverage <= 0.99
    assert found.false_wins <= 0.04, "2.5 % expected at most; 1,000 experiments tell no better"
    assert found.false_verdicts <= 0.07
    assert found.family_false_wins <= 0.05
    assert found.found_at_detectable >= 0.80
    assert found.wins_at_detectable_holm >= 0.80
