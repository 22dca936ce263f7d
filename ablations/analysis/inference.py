"""Intervals and paired tests, from arrays."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy import stats

ALPHA = 0.05
MOST_EXACT = 16  # up to this many pairs every sign pattern is counted; above it they are drawn
NUM_FLIPS = 100_000


def t_interval(values: npt.ArrayLike, level: float = 0.95) -> tuple[float, float]:
    """Return the t interval of a mean.

    Args:
        values: (n,), any unit.
        level: confidence, in (0, 1).

    Returns:
        Lower and upper bound in the values' unit; NaN where n < 2, or where all values are equal: rounded scores may
        be, and an interval without a width would claim what it cannot know.

    >>> low, high = t_interval([1.0, 2.0, 3.0])
    >>> round(low, 3), round(high, 3)
    (-0.484, 4.484)
    """
    x = np.asarray(values, dtype=np.float64)
    if len(x) < 2 or _is_constant(x):
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
    return _share_as_extreme(np.asarray(differences, dtype=np.float64), seed, two_sided=True)


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


def one_sided_p(differences: npt.ArrayLike, bound: float, *, below: bool) -> float:
    """Return the p of a one-sided t test that the mean lies beyond a bound.

    It is below alpha exactly where the one-sided t interval of level 1 - alpha lies beyond the bound.

    Args:
        differences: (n,), any unit.
        bound: in the same unit.
        below: whether the mean is claimed to lie below the bound, or above it.

    Returns:
        p in [0, 1]; NaN where n < 2. Where all differences are equal, as rounded scores may be, there is no spread to
        test by, and it is the sign-flip test's.

    >>> round(one_sided_p([-2.0, -3.0, -4.0], -1.0, below=True), 4)
    0.0371
    """
    x = np.asarray(differences, dtype=np.float64)
    if len(x) < 2:
        return math.nan
    distance = float(x.mean()) - bound if below else bound - float(x.mean())
    error = float(x.std(ddof=1)) / math.sqrt(len(x))
    if _is_constant(x):
        return sign_flip_one_sided_p(x, bound, below=below)
    return float(stats.t.cdf(distance / error, len(x) - 1))


def sign_flip_one_sided_p(differences: npt.ArrayLike, bound: float, *, below: bool, seed: int = 0) -> float:
    """Return the p of a one-sided sign-flip permutation test that the mean lies beyond a bound.

    For differences that no t interval may be made of, since chance scores have entered. Exact up to n = 16, drawn above
    that, as `sign_flip_p`.

    Args:
        differences: (n,), finite, any unit.
        bound: in the same unit.
        below: whether the mean is claimed to lie below the bound, or above it.
        seed: of the random patterns; without effect up to n = 16.

    Returns:
        p in (0, 1]; NaN where n = 0.

    Raises:
        ValueError: a difference is not finite.

    >>> sign_flip_one_sided_p([-2.0, -3.0, -4.0], -1.0, below=True)
    0.125
    """
    x = np.asarray(differences, dtype=np.float64) - bound
    return _share_as_extreme(-x if below else x, seed, two_sided=False)


def equivalence_p(differences: npt.ArrayLike, margin: float) -> float:
    """Return the p of two one-sided t tests (TOST) that the mean lies within a margin of zero on both sides.

    Schuirmann, J. Pharmacokinet. Biopharm. 15, 657 (1987). It is below 0.05 exactly where the 90 % t interval lies
    within the margin.

    Args:
        differences: (n,), any unit.
        margin: above 0, in the same unit.

    Returns:
        p in [0, 1]; NaN where n < 2.

    Raises:
        ValueError: the margin is not above 0.

    >>> round(equivalence_p([0.1, -0.1, 0.2, 0.0], 0.5), 4)
    0.003
    """
    if not margin > 0:
        raise ValueError(f"a margin of equivalence must be above 0, got {margin}")
    return max(one_sided_p(differences, -margin, below=False), one_sided_p(differences, margin, below=True))


def welch_interval(ours: npt.ArrayLike, theirs: npt.ArrayLike, level: float = 0.95) -> tuple[float, float]:
    """Return the t interval of a difference of two means that are taken for unpaired, by Welch's approximation.

    Welch, Biometrika 34, 28 (1947). As scipy's, without its warning where one side has no spread.

    Args:
        ours: (n,), any unit.
        theirs: (m,), in the same unit.
        level: confidence, in (0, 1).

    Returns:
        Lower and upper bound of mean(ours) - mean(theirs); NaN where either has fewer than two values, or neither a
        spread.

    >>> low, high = welch_interval([2.0, 3.0, 4.0], [1.0, 2.0, 3.0])
    >>> round(low, 3), round(high, 3)
    (-1.267, 3.267)
    """
    x, y = np.asarray(ours, dtype=np.float64), np.asarray(theirs, dtype=np.float64)
    if min(len(x), len(y)) < 2 or (_is_constant(x) and _is_constant(y)):
        return math.nan, math.nan
    errors = np.array([x.var(ddof=1) / len(x), y.var(ddof=1) / len(y)])  # squared, of the two means
    freedom = errors.sum() ** 2 / (errors**2 / (np.array([len(x), len(y)]) - 1)).sum()
    half = float(stats.t.ppf((1 + level) / 2, freedom)) * math.sqrt(errors.sum())
    return float(x.mean() - y.mean()) - half, float(x.mean() - y.mean()) + half


def correlation_interval(ours: npt.ArrayLike, theirs: npt.ArrayLike, level: float = 0.95) -> tuple[float, float, float]:
    """Return Pearson's correlation of paired values and its interval, by Fisher's transformation.

    Args:
        ours: (n,).
        theirs: (n,), in the same order.
        level: confidence, in (0, 1).

    Returns:
        The correlation, its lower and its upper bound; NaN where n < 4, or one side has no spread.

    >>> r, low, high = correlation_interval([1.0, 2.0, 3.0, 4.0], [1.0, 3.0, 2.0, 4.0])
    >>> round(r, 2), round(low, 2), round(high, 2)
    (0.8, -0.7, 1.0)
    """
    x, y = np.asarray(ours, dtype=np.float64), np.asarray(theirs, dtype=np.float64)
    if len(x) < 4 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return math.nan, math.nan, math.nan
    result = stats.pearsonr(x, y)
    interval = result.confidence_interval(level)
    return float(result.statistic), float(interval.low), float(interval.high)


def _is_constant(values: npt.NDArray[np.float64]) -> bool:
    """Tell whether values are equal but for rounding."""
    return float(np.ptp(values)) <= 1e-12 * float(np.abs(values).max())


def _share_as_extreme(values: npt.NDArray[np.float64], seed: int, *, two_sided: bool) -> float:
    """Return the share of sign patterns whose sum is as large as the one observed, which is among them."""
    n = len(values)
    if not np.isfinite(values).all():
        raise ValueError(f"differences must be finite, got {values}: leave incomplete pairs out")
    if n == 0:
        return math.nan
    if n <= MOST_EXACT:
        flips = np.arange(2**n)[:, None] >> np.arange(n) & 1  # (2^n, n)
    else:
        flips = np.random.default_rng(seed).integers(0, 2, (NUM_FLIPS, n), dtype=np.int8)
    sums, observed = (1.0 - 2.0 * flips) @ values, float(values.sum())
    if two_sided:
        sums, observed = np.abs(sums), abs(observed)
    count = int(np.sum(sums >= observed - 1e-9 * np.abs(values).sum()))
    return count / 2**n if n <= MOST_EXACT else (count + 1) / (NUM_FLIPS + 1)
