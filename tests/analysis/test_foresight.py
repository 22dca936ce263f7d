"""How well one quantity ranks another: against scipy, within groups, with its interval."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from ablations.analysis.foresight import NUM_RESAMPLES, rank_correlation


def test_without_groups_it_is_spearmans_also_with_ties():
    rng = np.random.default_rng(3)
    x = rng.normal(size=40)
    y = np.round(x + rng.normal(size=40))
    assert rank_correlation(x, y).rho == pytest.approx(stats.spearmanr(x, y).statistic)


def test_the_interval_is_that_of_scipys_bootstrap():
    rng = np.random.default_rng(5)
    x = rng.normal(size=60)
    y = x + rng.normal(size=60)
    expected = stats.bootstrap(
        (x, y),
        lambda a, b: stats.spearmanr(a, b).statistic,
        paired=True,
        vectorized=False,
        method="percentile",
        n_resamples=999,
        rng=np.random.default_rng(1),
    ).confidence_interval
    found = rank_correlation(x, y)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.03)
    assert found == rank_correlation(x, y)
    assert (found.low, found.high) != (rank_correlation(x, y, seed=1).low, rank_correlation(x, y, seed=1).high)


def test_the_unit_and_any_increasing_change_are_of_no_account():
    x, y = np.array([3.0, 1.0, 2.0, 7.0, 5.0]), np.array([1.0, 2.0, 4.0, 5.0, 3.0])
    assert rank_correlation(np.exp(x), 10 * y) == rank_correlation(x, y)


def test_within_groups_a_difference_between_them_does_not_count():
    groups = np.repeat(["shallow", "deep"], 6)
    x = np.array([1, 2, 3, 4, 5, 6, 1, 2, 3, 4, 5, 6], dtype=float)
    y = np.array([2, 1, 4, 3, 6, 5, 2, 1, 4, 3, 6, 5], dtype=float)
    far = np.where(groups == "deep", 100.0, 0.0)
    within = rank_correlation(x + far, y - far, within=groups)
    assert within == rank_correlation(x, y, within=groups)
    assert within.rho == pytest.approx(stats.spearmanr(x[:6], y[:6]).statistic)
    assert rank_correlation(x + far, y - far).rho < 0


def test_an_infinite_value_has_a_rank_and_a_missing_one_has_none():
    found = rank_correlation([1.0, 2.0, math.nan, 3.0, math.inf], [1.0, 2.0, 9.0, 3.0, 4.0])
    assert (found.rho, found.n) == (pytest.approx(1.0), 4)


@pytest.mark.parametrize(("x", "y"), [([], []), ([1.0], [1.0]), ([1.0, 2.0, 3.0], [4.0, 4.0, 4.0])])
def test_without_spread_there_is_no_correlation(x, y):
    assert np.isnan(rank_correlation(x, y)[:3]).all()


def test_groups_of_one_point_say_nothing():
    assert math.isnan(rank_correlation([1.0, 2.0], [1.0, 2.0], within=["a", "b"]).rho)


def test_so_few_points_have_no_interval():
    found = rank_correlation([1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0, 4.0])
    assert found.rho == pytest.approx(1.0)
    assert np.isnan([found.low, found.high]).all()


def test_all_resamples_are_ranked_within_their_groups():
    rng = np.random.default_rng(2)
    groups = np.repeat([0, 1, 2], [7, 4, 1])
    x, y = rng.integers(0, 4, size=(2, len(groups))).astype(float)
    draws, rhos = np.random.default_rng(0), []
    rows = [
        draws.choice(np.flatnonzero(groups == group), (NUM_RESAMPLES, size)) for group, size in enumerate((7, 4, 1))
    ]
    for resample in np.hstack(rows):
        parts = []
        for group in range(3):
            own = resample[groups[resample] == group]
            if len(set(x[own])) > 1 and len(set(y[own])) > 1:
                a, b = stats.rankdata(x[own]) / len(own), stats.rankdata(y[own]) / len(own)
                parts.append([a - a.mean(), b - b.mean()])
        a, b = np.hstack(parts) if parts else (np.zeros(1), np.zeros(1))
        rhos.append(a @ b / math.sqrt(a @ a * (b @ b)) if parts else math.nan)
    found = rank_correlation(x, y, within=groups)
    assert (found.low, found.high) == pytest.approx(tuple(np.nanquantile(rhos, (0.025, 0.975))))
