"""Margins, one-sided tests, correlation, coverage, power: against hand computation, scipy, statsmodels, enumeration."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower
from statsmodels.stats.proportion import proportion_confint
from statsmodels.stats.weightstats import CompareMeans, DescrStatsW, ttost_paired

from ablations import analysis
from ablations.analysis.coverage import NOMINAL_PCT, coverage
from ablations.analysis.inference import MOST_EXACT

D = np.array([-0.8, 0.3, -1.4, -0.2, -0.9, 0.1, -1.1, -0.6])


@pytest.mark.parametrize("p", [[0.01, 0.04, 0.03, 0.2], [0.5, 0.6], [0.001] * 3, [0.02]])
def test_holm_is_statsmodels(p):
    assert analysis.holm(p) == pytest.approx(multipletests(p, method="holm")[1])


@pytest.mark.parametrize(("x", "n"), [(0, 8), (3, 10), (10, 10)])
def test_wilson_is_statsmodels(x, n):
    assert analysis.wilson_interval(x, n) == pytest.approx(proportion_confint(x, n, method="wilson"))


@pytest.mark.parametrize("below", [True, False])
@pytest.mark.parametrize("bound", [-1.0, 0.0, 0.4])
def test_one_sided_p_is_scipys(bound, below):
    theirs = scipy_stats.ttest_1samp(D, bound, alternative="less" if below else "greater").pvalue
    assert analysis.one_sided_p(D, bound, below=below) == pytest.approx(theirs)


def test_one_sided_p_by_hand():
    # Mean -3, sd 1, n 3: t = (-3 + 1) / (1 / sqrt 3) = -sqrt 12, and with 2 degrees of freedom the distribution
    # function is 1/2 + t / (2 sqrt(2 + t^2)).
    expected = 0.5 - math.sqrt(12) / (2 * math.sqrt(14))
    assert analysis.one_sided_p([-2.0, -3.0, -4.0], -1.0, below=True) == pytest.approx(expected)


def test_one_sided_p_of_equal_values_is_what_their_number_can_show():
    assert [analysis.one_sided_p([0.1 * 3, 0.3], bound, below=True) for bound in (0.2, 0.3, 0.4)] == [1.0, 1.0, 0.25]
    assert analysis.one_sided_p([0.3] * 8, 0.4, below=True) == 1 / 2**8
    assert analysis.equivalence_p([0.0] * 2, 0.5) == 0.25
    assert analysis.equivalence_p([0.0] * 8, 0.5) == 1 / 2**8


@pytest.mark.parametrize("margin", [0.2, 0.9, 1.5])
def test_equivalence_is_statsmodels(margin):
    theirs, *_ = ttost_paired(D, np.zeros_like(D), -margin, margin)
    assert analysis.equivalence_p(D, margin) == pytest.approx(theirs)


@given(st.lists(st.floats(-3, 3), min_size=3, max_size=8).filter(lambda d: np.std(d) > 1e-3))
def test_equivalence_is_a_ninety_per_cent_interval_within_the_margin(d):
    low, high = analysis.t_interval(d, level=0.9)
    p = analysis.equivalence_p(d, 0.5)
    assert abs(p - 0.05) < 1e-9 or (p < 0.05) == (low > -0.5 and high < 0.5)


@pytest.mark.parametrize("margin", [0, -1, math.nan])
def test_a_margin_is_above_zero(margin):
    with pytest.raises(ValueError, match="margin"):
        analysis.equivalence_p(D, margin)


def test_one_sided_sign_flip_by_hand():
    # d - (-1) = 2, -1, 3: the sums of +-2 +-1 +-3 that are <= 4 downwards: all 8 but 6: 7 of 8; >= 4 upwards: 6, 4.
    assert analysis.sign_flip_one_sided_p([1.0, -2.0, 2.0], -1.0, below=True) == 7 / 8
    assert analysis.sign_flip_one_sided_p([1.0, -2.0, 2.0], -1.0, below=False) == 2 / 8


@pytest.mark.parametrize("n", [5, 8])
def test_one_sided_sign_flip_keeps_its_level(n):
    d = np.abs(np.random.default_rng(n).normal(size=n))
    signs = itertools.product((-1, 1), repeat=n)
    p = np.array([analysis.sign_flip_one_sided_p(d * sign, 0.0, below=True) for sign in signs])
    assert 0 < np.mean(p <= 0.05) <= 0.05


def test_one_sided_sign_flip_draws_above_sixteen():
    d = np.random.default_rng(1).normal(-0.5, 1, MOST_EXACT + 2)
    exact = scipy_stats.permutation_test(
        (d,), np.mean, permutation_type="samples", n_resamples=2 ** (MOST_EXACT + 2), alternative="less"
    ).pvalue
    drawn = analysis.sign_flip_one_sided_p(d, 0.0, below=True)
    assert drawn == pytest.approx(exact, abs=5 * math.sqrt(exact / 100_000))
    assert drawn == analysis.sign_flip_one_sided_p(d, 0.0, below=True)
    assert drawn != analysis.sign_flip_one_sided_p(d, 0.0, below=True, seed=1)


def test_welch_is_statsmodels():
    x, y = D, np.array([0.2, 0.5, -0.1, 0.9])
    theirs = CompareMeans(DescrStatsW(x), DescrStatsW(y)).tconfint_diff(usevar="unequal")
    assert analysis.welch_interval(x, y) == pytest.approx(theirs)


def test_correlation_by_hand():
    """Fisher (1921): tanh(atanh r +- 1.96 / sqrt(n - 3))."""
    x, y = D, D + np.array([0.3, -0.2, 0.1, 0.5, -0.4, 0.0, 0.2, -0.3])
    r = np.corrcoef(x, y)[0, 1]
    half = 1.959964 / math.sqrt(len(x) - 3)
    expected = (r, math.tanh(math.atanh(r) - half), math.tanh(math.atanh(r) + half))
    assert analysis.correlation_interval(x, y) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("x", "y"), [([1, 2, 3], [1, 2, 3]), ([1, 1, 1, 1], [1, 2, 3, 4])])
def test_a_correlation_needs_four_pairs_and_a_spread(x, y):
    assert np.isnan(analysis.correlation_interval(x, y)).all()


def test_coverage_is_what_the_report_says():
    """Intervals keep 95 % for normal and rounded differences, and not for skewed ones."""
    table = coverage([6, 8, 10])
    kept = table.groupby("distribution")["is_kept"].agg(["all", "any"])
    assert kept.loc["normal", "all"]
    assert kept.loc["rounded to 1/360", "all"]
    assert not kept.loc["skewed (exponential)", "any"]
    normal = table[table["distribution"] == "normal"]["coverage_pct"]
    assert normal.between(94.4, 95.6).all()  # four standard errors around 95 %
    assert table["coverage_pct"].min() > 85
    assert coverage([6]).equals(coverage([6]))
    assert NOMINAL_PCT == (93.5, 96.5)


def test_detectable_difference_and_seeds_are_statsmodels():
    for n in (6, 8, 20):
        effect = TTestPower().solve_power(nobs=n, alpha=0.01, power=0.8)
        assert analysis.t_detectable_difference(2.0, n, alpha=0.01) == pytest.approx(2 * effect, rel=1e-4)
    assert analysis.detectable_difference(2.0, 20, alpha=0.01) == analysis.t_detectable_difference(2.0, 20, alpha=0.01)
    theirs = math.ceil(TTestPower().solve_power(effect_size=0.5 / 0.7, alpha=0.05 / 4, power=0.8))
    assert analysis.seeds_for(0.5, 0.7, alpha=0.05 / 4) == theirs > 16
    few = math.ceil(TTestPower().solve_power(effect_size=0.5 / 0.3, alpha=0.05 / 6, power=0.8))
    assert analysis.seeds_for(0.5, 0.3, alpha=0.05 / 6, detectable=analysis.t_detectable_difference) == few
    assert analysis.seeds_for(0.5, 0.3, alpha=0.05 / 6) > few  # the sign-flip test takes more


def test_seeds_are_the_fewest_that_suffice():
    for sd, alpha in ((0.2, 0.05), (0.4, 0.05 / 9), (0.6, 0.05)):
        n = analysis.seeds_for(0.5, sd, alpha=alpha)
        assert analysis.detectable_difference(sd, n, alpha=alpha) <= 0.5
        assert analysis.detectable_difference(sd, n - 1, alpha=alpha) > 0.5


def test_seeds_are_enough_for_the_sign_flip_test_too():
    assert analysis.seeds_for(100.0, 0.1, alpha=0.05 / 9) == 9  # 2 / 2^9 <= 0.05 / 9 < 2 / 2^8


@pytest.mark.parametrize(("delta", "sd"), [(0, 1), (-1, 1), (1, math.nan), (1, math.inf)])
def test_seeds_for_refuses_what_has_no_answer(delta, sd):
    with pytest.raises(ValueError, match=r"must be"):
        analysis.seeds_for(delta, sd, alpha=0.05)


@pytest.mark.parametrize("detectable", [analysis.detectable_difference, analysis.t_detectable_difference])
def test_seeds_beyond_the_largest_number_are_that_number(detectable):
    for delta, sd in ((1e-9, 1.0), (1e-3, 50.0), (1e-300, 1e300)):
        assert analysis.seeds_for(delta, sd, alpha=0.05 / 9, detectable=detectable) == analysis.MOST_SEEDS
    nearly = analysis.seeds_for(1e-4, 1.0, alpha=0.05, detectable=detectable)
    assert detectable(1.0, nearly, alpha=0.05) <= 1e-4 < detectable(1.0, nearly - 1, alpha=0.05)


def cells(**scores: list[float]) -> pd.DataFrame:
    rows = [
        {"condition": "", "arm": arm, "arm_label": arm, "arm_order": i, "seed": seed, "score_pct": score}
        for i, (arm, own) in enumerate(scores.items())
        for seed, score in enumerate(own)
    ]
    return pd.DataFrame(rows).assign(outcome="ok", kind="", stale=False)


def test_power_looks_at_the_spread_and_at_no_difference():
    rng = np.random.default_rng(0)
    a, noise = rng.normal(90, 1, 8), rng.normal(0, 0.6, 8)
    tables = []
    for shift in (0.0, 20.0):
        frame = cells(a=list(a), b=list(a + noise + shift))
        comparison = [analysis.Comparison(("b",), ("a",))]
        compared, paired = analysis.compare(frame, comparison), analysis.differences(frame, comparison)
        tables.append(analysis.power_table(compared, paired, 0.5))
    pd.testing.assert_frame_equal(*tables)
    (row,) = tables[0].to_dict("records")
    assert row["seeds"] == analysis.seeds_for(0.5, noise.std(ddof=1), alpha=0.05)
    assert row["seeds_low"] < row["seeds"] < row["seeds_high"]
    low, high = (noise.std(ddof=1) * math.sqrt(7 / q) for q in scipy_stats.chi2.ppf([0.975, 0.025], 7))
    assert (row["sd_low_pct"], row["sd_high_pct"]) == pytest.approx((low, high))


def test_power_of_an_arm_without_pairs_is_unknown():
    frame = cells(a=[90.0, 91.0], b=[90.0])
    comparison = [analysis.Comparison(("b",), ("a",))]
    table = analysis.power_table(analysis.compare(frame, comparison), analysis.differences(frame, comparison), 0.5)
    assert table[["sd_pct", "seeds"]].isna().all(axis=None)


def test_what_pairing_buys_by_hand():
    a, b = [90.0, 91.0, 92.0, 93.0, 94.0], [90.5, 91.2, 92.6, 93.1, 94.4]
    (row,) = analysis.pairing_gain(cells(a=a, b=b), "a").to_dict("records")
    d = np.subtract(b, a)
    assert row["variance_ratio"] == pytest.approx((np.var(a, ddof=1) + np.var(b, ddof=1)) / np.var(d, ddof=1))
    assert row["paired_width_pct"] == pytest.approx(np.ptp(analysis.t_interval(d)))
    assert row["unpaired_width_pct"] == pytest.approx(np.ptp(analysis.welch_interval(b, a)))
    assert row["correlation"] == pytest.approx(np.corrcoef(a, b)[0, 1])
    assert row["paired_width_pct"] < row["unpaired_width_pct"]


def test_scores_by_chance_tell_nothing_of_the_pairing():
    frame = cells(a=[90.0, 91.0, 92.0, 93.0, 94.0], b=[90.5, 91.2, 92.6, 93.1, 10.0])
    frame.loc[9, ["outcome", "kind"]] = ["diverged", "nan"]
    (row,) = analysis.pairing_gain(frame, "a").to_dict("records")
    assert row["num_pairs"] == 4
    assert row["correlation"] > 0.9


@pytest.mark.parametrize("n", [1, 2, 7, 8, 9, 16, 17, 33])
def test_a_sign_flip_p_counts_every_pattern_one_by_one(n):
    rng = np.random.default_rng(n)
    for values in (rng.normal(0.3, 1, n), np.round(rng.normal(0.3, 1, n) * 3) / 3.6):
        flips = np.arange(2**n)[:, None] >> np.arange(n) & 1 if n <= 16 else None
        if flips is None:
            flips = np.random.default_rng(0).integers(0, 2, (100_000, n), dtype=np.int8)
        sums = (1.0 - 2.0 * flips) @ values
        count = int((np.abs(sums) >= abs(values.sum()) - 1e-9 * np.abs(values).sum()).sum())
        assert analysis.sign_flip_p(values) == (count / 2**n if n <= 16 else (count + 1) / 100_001)
