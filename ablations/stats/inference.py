"""Intervals and paired tests, from arrays."""

from __future__ import annotations

import itertools
import math

import numpy as np
import numpy.typing as npt
from scipy import optimize, stats

ALPHA = 0.05
MOST_EXACT = 16  # up to this many pairs every sign pattern is counted; above it they are drawn
NUM_FLIPS = 100_000


def t_interval(values: npt.ArrayLike, level: float = 0.95) -> tuple[float, float]:
    """Return the t interval of a mean.

    Args:
        values: (n,), any unit.
        level: confidence, in (0, 1).

    Returns:
        Lower and upper bound in the values' unit; NaN where n < 2.

    >>> low, high = t_interval([1.0, 2.0, 3.0])
    >>> round(low, 3), round(high, 3)
    (-0.484, 4.484)
    """
    x = np.asarray(values, dtype=np.float64)
    if len(x) < 2:
        return math.nan, math.nan
    half = float(stats.t.ppf((1 + level) / 2, len(x) - 1)) * float(x.std(ddof=1)) / math.sqrt(len(x))
    return float(x.mean()) - half, float(x.mean()) + half


def wilson_interval(successes: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Return Wilson's score interval of a share.

    Args:
        successes: 0 to n.
        n: number of trials.
        level: confidence, in (0, 1).

    Returns:
        Lower and upper bound in [0, 1]; NaN where n = 0.

    >>> low, high = wilson_interval(8, 8)
    >>> round(low, 3), high
    (0.676, 1.0)
    """
    if n == 0:
        return math.nan, math.nan
    interval = stats.binomtest(successes, n).proportion_ci(level, method="wilson")
    return float(interval.low), float(interval.high)


def sign_flip_p(differences: npt.ArrayLike, seed: int = 0) -> float:
    """Return the two-sided sign-flip permutation p of a mean difference.

    Exact over all 2^n patterns up to n = 16; above that (b + 1) / (m + 1) from m = 100,000 random patterns. Sums that
    are equal but for rounding count as ties, so that the observed pattern and its mirror always count.

    Args:
        differences: (n,), finite, any unit.
        seed: of the random patterns; without effect up to n = 16.

    Returns:
        p in (0, 1]; NaN where n = 0, 1 where every difference is zero.

    Raises:
        ValueError: a difference is not finite.

    >>> sign_flip_p([1.0, 2.0, 3.0, 4.0])
    0.125
    """
    d = np.asarray(differences, dtype=np.float64)
    n = len(d)
    if not np.isfinite(d).all():
        raise ValueError(f"differences must be finite, got {d}: leave incomplete pairs out")
    if n == 0:
        return math.nan
    if n <= MOST_EXACT:
        flips = np.arange(2**n)[:, None] >> np.arange(n) & 1  # (2^n, n)
    else:
        flips = np.random.default_rng(seed).integers(0, 2, (NUM_FLIPS, n), dtype=np.int8)
    sums = np.abs((1.0 - 2.0 * flips) @ d)
    count = int(np.sum(sums >= abs(d.sum()) - 1e-9 * np.abs(d).sum()))
    return count / 2**n if n <= MOST_EXACT else (count + 1) / (NUM_FLIPS + 1)


def holm(p_values: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Adjust p values for their number by Holm's step-down method.

    Args:
        p_values: (m,), in [0, 1]; a NaN stays NaN and is not a comparison.

    Returns:
        (m,), at most 1, in the same order.

    >>> holm([0.01, 0.04, 0.03]).tolist()
    [0.03, 0.06, 0.06]
    """
    p = np.asarray(p_values, dtype=np.float64)
    adjusted = np.full_like(p, np.nan)
    order = np.argsort(p)[: np.isfinite(p).sum()]  # NaN sorts last
    steps = p[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted


def smallest_p(n: int) -> float:
    """Return the smallest two-sided p that n >= 1 pairs can reach in an exact sign-flip test.

    >>> smallest_p(8)
    0.0078125
    """
    return 2 * 0.5**n


def can_decide(n: int, num_comparisons: int, alpha: float = ALPHA) -> bool:
    """Tell whether n pairs can reach significance at all, adjusted for the number of comparisons.

    >>> can_decide(8, 6), can_decide(8, 7)
    (True, False)
    """
    return smallest_p(n) * num_comparisons <= alpha


def seeds_needed(num_comparisons: int, alpha: float = ALPHA) -> int:
    """Return the smallest number of seeds with which so many comparisons can be decided.

    Raises:
        ValueError: alpha is not above 0.

    >>> seeds_needed(6)
    8
    """
    if not alpha > 0:
        raise ValueError(f"alpha must be above 0, got {alpha}")
    return next(n for n in itertools.count(1) if can_decide(n, num_comparisons, alpha))


def detectable_difference(sd: float, n: int, *, alpha: float, power: float = 0.8) -> float:
    """Return the mean difference that a two-sided paired t test would detect with the given power.

    A rejection with the wrong sign is not counted as a detection. The sign-flip test needs a little more where its
    smallest p is close to alpha.

    Args:
        sd: standard deviation of the differences, any unit.
        n: number of pairs.
        alpha: level of one comparison, in (0, 1).
        power: in (alpha / 2, 1).

    Returns:
        The difference in the unit of sd, >= 0; NaN where n < 2.

    >>> round(detectable_difference(1.0, 8, alpha=0.05), 2)
    1.16
    """
    if n < 2 or math.isnan(sd):
        return math.nan
    critical = stats.t.ppf(1 - alpha / 2, n - 1)

    def shortfall(noncentrality: float) -> float:
        return power - float(stats.nct.sf(critical, n - 1, noncentrality))

    upper = next(2.0**i for i in itertools.count() if shortfall(2.0**i) <= 0)
    return float(optimize.brentq(shortfall, 0.0, upper)) * sd / math.sqrt(n)
