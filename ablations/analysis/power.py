"""Power analysis: the difference that a number of seeds detects, and the seeds that a difference needs."""

from __future__ import annotations

import itertools
import math
from functools import cache, lru_cache
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import optimize, stats

from ablations.analysis.inference import ALPHA, MOST_EXACT, NUM_FLIPS

FEW = 50
"""Number of rejecting sign patterns below which the power of the sign-flip test is simulated."""

MOST_SEEDS = 1_000_000_000
"""Largest number of seeds that is told from a larger one; the next doublings leave the range of integers."""

MOST_STUDIES = 20_000
"""Simulated studies, fewer from 11 pairs on to stay within half a second. The error is 1 to 2 %."""


class Detectable(Protocol):
    """A function that returns the difference that a number of pairs detects."""

    def __call__(self, sd: float, n: int, *, alpha: float, power: float = 0.8) -> float:
        """Return the detectable difference in the unit of sd."""


def smallest_p(n: int) -> float:
    """Return the smallest two-sided p of an exact sign-flip test on n >= 1 pairs.

    >>> smallest_p(8)
    0.0078125
    """
    return 2 * 0.5**n


def smallest_one_sided_p(n: int) -> float:
    """Return the smallest one-sided p of a sign-flip test on n >= 1 pairs, exact or drawn.

    >>> smallest_one_sided_p(8)
    0.00390625
    """
    return max(0.5**n, 1 / (NUM_FLIPS + 1))


def can_decide(n: int, num_comparisons: int, alpha: float = ALPHA) -> bool:
    """Return whether n pairs can reach significance after adjustment for the number of comparisons.

    >>> can_decide(8, 6), can_decide(8, 7)
    (True, False)
    """
    return smallest_p(n) * num_comparisons <= alpha


def seeds_needed(num_comparisons: int, alpha: float = ALPHA) -> int:
    """Return the smallest number of seeds that can decide this many comparisons.

    Raises:
        ValueError: alpha is not above 0.

    >>> seeds_needed(6)
    8
    """
    if not alpha > 0:
        raise ValueError(f"alpha must be above 0, got {alpha}")
    return next(n for n in itertools.count(1) if can_decide(n, num_comparisons, alpha))


def detectable_difference(sd: float, n: int, *, alpha: float, power: float = 0.8) -> float:
    """Return the mean difference that the two-sided sign-flip test detects with the given power.

    Differences are normal. With few pairs this test is less powerful than a t test, because its p is a multiple of
    2 / 2^n: at 8 pairs and alpha 0.05 / 6 all signs must be equal, and the difference must be 15 % larger. With at
    least 50 rejecting sign patterns the two agree within 1 %, and the t test's power at the attainable level is used.
    A rejection with the wrong sign is not a detection.

    Args:
        sd: standard deviation of the differences, any unit.
        n: number of pairs.
        alpha: significance level of one comparison, in (0, 1).
        power: probability of detection, in (alpha / 2, 1).

    Returns:
        The difference in the unit of sd, >= 0; infinite if n pairs cannot reach alpha, NaN if n < 2.

    >>> round(detectable_difference(1.0, 8, alpha=0.05), 2), detectable_difference(1.0, 4, alpha=0.05)
    (1.18, inf)
    """
    if n > MOST_EXACT:
        return t_detectable_difference(sd, n, alpha=alpha, power=power)
    if n < 2 or math.isnan(sd):
        return math.nan
    num_patterns = 2 ** (n - 1)  # a pattern and its mirror count as one
    num_extreme = math.floor(alpha * num_patterns * (1 + 1e-12))
    if num_extreme < 1:
        return math.inf
    if num_extreme >= FEW:
        return t_detectable_difference(sd, n, alpha=num_extreme / num_patterns, power=power)
    return sd * _sign_flip_effect(n, num_extreme, power)


def t_detectable_difference(sd: float, n: int, *, alpha: float, power: float = 0.8) -> float:
    """Return the mean difference that a two-sided paired t test detects with the given power.

    A rejection with the wrong sign is not a detection.

    Args:
        sd: standard deviation of the differences, any unit.
        n: number of pairs.
        alpha: significance level of one comparison, in (0, 1).
        power: probability of detection, in (alpha / 2, 1).

    Returns:
        The difference in the unit of sd, >= 0; NaN if n < 2.

    >>> round(t_detectable_difference(1.0, 8, alpha=0.05), 2)
    1.16
    """
    if n < 2 or math.isnan(sd):
        return math.nan
    return _noncentrality(n, alpha, power) * sd / math.sqrt(n)


def seeds_for(
    delta: float, sd: float, *, alpha: float, power: float = 0.8, detectable: Detectable = detectable_difference
) -> int:
    """Return the smallest number of pairs that detects a difference with the given power.

    Args:
        delta: difference to detect, > 0, any unit.
        sd: standard deviation of the differences, in the same unit.
        alpha: significance level of one comparison, in (0, 1).
        power: probability of detection, in (alpha / 2, 1).
        detectable: detectable difference of the planned test: `detectable_difference` for the sign-flip test,
            `t_detectable_difference` for t tests.

    Returns:
        Number of pairs, from 2 to `MOST_SEEDS`, which stands for as many or more.

    Raises:
        ValueError: delta is not above 0, or sd is not finite.

    >>> seeds_for(0.52, 0.5, alpha=0.05)
    10
    """
    if not delta > 0:
        raise ValueError(f"delta must be above 0, got {delta}")
    if not math.isfinite(sd):
        raise ValueError(f"sd must be a finite number, got {sd}")

    def suffices(n: int) -> bool:
        return detectable(sd, n, alpha=alpha, power=power) <= delta

    least, most = 1, 2  # the first does not suffice, the second will
    while not suffices(most):
        if most == MOST_SEEDS:
            return MOST_SEEDS
        least, most = most, min(2 * most, MOST_SEEDS)
    while most - least > 1:
        middle = (least + most) // 2
        least, most = (least, middle) if suffices(middle) else (middle, most)
    return most


@lru_cache(maxsize=10_000)
def _noncentrality(n: int, alpha: float, power: float) -> float:
    """Return the mean difference that a two-sided paired t test on n pairs detects, in standard errors."""
    critical = stats.t.ppf(1 - alpha / 2, n - 1)

    def shortfall(noncentrality: float) -> float:
        return power - float(stats.nct.sf(critical, n - 1, noncentrality))

    upper = next(2.0**i for i in itertools.count() if shortfall(2.0**i) <= 0)
    return float(optimize.brentq(shortfall, 0.0, upper))


@lru_cache(maxsize=10_000)
def _sign_flip_effect(n: int, num_extreme: int, power: float) -> float:
    """Return the mean difference, in sd, that the sign-flip test detects in this share of the simulated studies."""
    return float(np.quantile(_sign_flip_effects(n, num_extreme), power))


@cache
def _sign_flip_effects(n: int, num_extreme: int) -> npt.NDArray[np.float32]:
    """Return the smallest mean difference, in sd, that each simulated study's sign-flip test detects.

    Flipping the signs of a set of pairs keeps the sum at least as large if their mean is at most 0. So a study is
    significant if fewer than `num_extreme` sets of its pairs have such a mean (the empty set is the first pattern).
    Its differences, shifted together, become significant at the shift that brings the `num_extreme`-th smallest mean
    to 0.

    Args:
        n: number of pairs, at most 16.
        num_extreme: number of patterns, the observed one included, that may be as extreme as it.
    """
    patterns = (np.arange(1, 2**n)[:, None] >> np.arange(n) & 1).astype(np.float32)  # (sets, n)
    shares = (patterns / patterns.sum(axis=1, keepdims=True)).T  # (n, sets)
    num_studies = min(MOST_STUDIES, 2**25 >> n)
    noise = np.random.default_rng(0).standard_normal((num_studies, n), dtype=np.float32)
    chunks = np.array_split(noise, math.ceil(num_studies * 2**n / 2**22))  # the means of a chunk are in memory at once
    return np.concatenate([-np.partition(own @ shares, num_extreme - 1)[:, num_extreme - 1] for own in chunks])


def power_table(
    compared: pd.DataFrame, paired: pd.DataFrame, delta_pct: float, *, power: float = 0.8, level: float = 0.95
) -> pd.DataFrame:
    """Compute the seeds that a margin needs and the difference that the present seeds detect, per comparison.

    It uses the spread of the differences, never the differences themselves.

    Args:
        compared: the comparisons, from `ablations.analysis.compare`.
        paired: their differences per seed, from `ablations.analysis.differences`.
        delta_pct: margin, in points, > 0.
        power: probability of detection, in (0, 1).
        level: confidence level of the spread's interval, in (0, 1).

    Returns:
        One row per comparison: `condition`, `comparison`, `num_pairs`, `sd_pct` of the differences with `sd_low_pct`
        and `sd_high_pct` (chi-square), `detectable_pct`, and `seeds` with `seeds_low` and `seeds_high`, the seeds
        needed at that spread and at its bounds. Alpha is 0.05 divided by the number of comparisons with pairs. With
        chance scores or fewer than two pairs there is no spread: `sd` and `seeds` with their bounds are missing, and
        `detectable_pct` is as in `compared`.
    """
    alpha = ALPHA / max(1, int((compared["num_pairs"] > 0).sum()))
    by_comparison, rows = dict(list(paired.groupby(["condition", "comparison"], sort=False))), []
    for row in compared.to_dict("records"):
        own = by_comparison.get((row["condition"], row["comparison"]), paired.iloc[:0])
        n = len(own)
        sd = float(own["difference_pct"].std()) if n > 1 and not own["has_chance"].any() else math.nan
        quantiles = stats.chi2.ppf([(1 + level) / 2, (1 - level) / 2], max(n - 1, 1))
        spreads = [sd, *(sd * np.sqrt(max(n - 1, 0) / quantiles))]
        seeds = [seeds_for(delta_pct, one, alpha=alpha, power=power) if one == one else math.nan for one in spreads]
        rows.append([row["condition"], row["comparison"], row["num_pairs"], *spreads, row["detectable_pct"], *seeds])
    spread, needed = ["sd_pct", "sd_low_pct", "sd_high_pct"], ["seeds", "seeds_low", "seeds_high"]
    columns = ["condition", "comparison", "num_pairs", *spread, "detectable_pct", *needed]
    return pd.DataFrame(rows, columns=columns).astype(dict.fromkeys(needed, "Int64"))
