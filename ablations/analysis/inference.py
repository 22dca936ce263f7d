"""Intervals and paired tests, from arrays."""

from __future__ import annotations

import functools
import math

import numpy as np
import numpy.typing as npt
from scipy import stats

ALPHA = 0.05
MOST_EXACT = 16  # largest number of pairs with all sign patterns enumerated; above it they are drawn
NUM_FLIPS = 100_000


def t_interval(values: npt.ArrayLike, level: float = 0.95) -> tuple[float, float]:
    """Return the t interval of a mean.

    Args:
        values: (n,), any unit.
        level: confidence level, in (0, 1).

    Returns:
        Lower and upper bound in the values' unit; NaN if n < 2 or all values are equal: rounded scores can be equal by
        accident, so an interval of width zero would be too narrow.

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
        successes: number of successes, 0 to n.
        n: number of attempts.
        level: confidence level, in (0, 1).

    Returns:
        Lower and upper bound in [0, 1]; NaN if n = 0.

    >>> low, high = wilson_interval(8, 8)
    >>> round(low, 3), high
    (0.676, 1.0)
    """
    if n == 0:
        return math.nan, math.nan
    interval = stats.binomtest(successes, n).proportion_ci(level, method="wilson")
    return float(interval.low), float(interval.high)


def binomial_p(successes: int, n: int, share: float, *, above: bool) -> float:
    """Return the p of a one-sided exact binomial test of a share.

    Args:
        successes: number of successes, 0 to n.
        n: number of attempts, at least 1.
        share: share to test against, in (0, 1).
        above: direction of the claim: True for a share above it, False for one below.

    Returns:
        p in (0, 1].

    >>> binomial_p(8, 8, 0.5, above=True), round(binomial_p(0, 14, 0.2, above=False), 4)
    (0.00390625, 0.044)
    """
    return float(stats.binomtest(successes, n, share, alternative="greater" if above else "less").pvalue)


def sign_flip_p(differences: npt.ArrayLike, seed: int = 0) -> float:
    """Return the two-sided sign-flip permutation p of a mean difference.

    It is exact over all 2^n patterns up to n = 16, and (b + 1) / (m + 1) from m = 100,000 random patterns above. Sums
    that are equal up to rounding are ties, so the observed pattern and its mirror always count.

    Args:
        differences: (n,), finite, any unit.
        seed: seed of the random patterns; no effect up to n = 16.

    Returns:
        p in (0, 1]; NaN if n = 0, and 1 if every difference is zero.

    Raises:
        ValueError: a difference is not finite.

    >>> sign_flip_p([1.0, 2.0, 3.0, 4.0])
    0.125
    """
    return _share_as_extreme(np.asarray(differences, dtype=np.float64), seed, two_sided=True)


def holm(p_values: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Adjust p values for multiple comparisons by Holm's step-down method.

    Args:
        p_values: (m,), in [0, 1]; a NaN stays NaN and does not count as a comparison.

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

    It is below alpha if and only if the one-sided t interval of level 1 - alpha lies beyond the bound.

    Args:
        differences: (n,), any unit.
        bound: bound in the same unit.
        below: direction of the claim: True for a mean below the bound, False for one above.

    Returns:
        p in [0, 1]; NaN if n < 2. If all differences are equal, as rounded scores can be, there is no spread, and p is
        that of the sign-flip test.

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

    It serves differences with chance scores, for which no t interval holds. It is exact up to n = 16 and drawn above,
    as in `sign_flip_p`.

    Args:
        differences: (n,), finite, any unit.
        bound: bound in the same unit.
        below: direction of the claim: True for a mean below the bound, False for one above.
        seed: seed of the random patterns; no effect up to n = 16.

    Returns:
        p in (0, 1]; NaN if n = 0.

    Raises:
        ValueError: a difference is not finite.

    >>> sign_flip_one_sided_p([-2.0, -3.0, -4.0], -1.0, below=True)
    0.125
    """
    x = np.asarray(differences, dtype=np.float64) - bound
    return _share_as_extreme(-x if below else x, seed, two_sided=False)


def equivalence_p(differences: npt.ArrayLike, margin: float) -> float:
    """Return the p of two one-sided t tests (TOST) that the mean lies within a margin around zero.

    Schuirmann, J. Pharmacokinet. Biopharm. 15, 657 (1987). It is below 0.05 if and only if the 90 % t interval lies
    within the margin.

    Args:
        differences: (n,), any unit.
        margin: margin in the same unit, > 0.

    Returns:
        p in [0, 1]; NaN if n < 2.

    Raises:
        ValueError: the margin is not above 0.

    >>> round(equivalence_p([0.1, -0.1, 0.2, 0.0], 0.5), 4)
    0.003
    """
    if not margin > 0:
        raise ValueError(f"the equivalence margin must be above 0, got {margin}")
    return max(one_sided_p(differences, -margin, below=False), one_sided_p(differences, margin, below=True))


def welch_interval(ours: npt.ArrayLike, theirs: npt.ArrayLike, level: float = 0.95) -> tuple[float, float]:
    """Return Welch's approximate t interval of the difference of two unpaired means.

    Welch, Biometrika 34, 28 (1947). It equals scipy's, without the warning if one sample has no spread.

    Args:
        ours: (n,), any unit.
        theirs: (m,), in the same unit.
        level: confidence level, in (0, 1).

    Returns:
        Lower and upper bound of mean(ours) - mean(theirs); NaN if either sample has fewer than two values, or neither
        has a spread.

    >>> low, high = welch_interval([2.0, 3.0, 4.0], [1.0, 2.0, 3.0])
    >>> round(low, 3), round(high, 3)
    (-1.267, 3.267)
    """
    x, y = np.asarray(ours, dtype=np.float64), np.asarray(theirs, dtype=np.float64)
    if min(len(x), len(y)) < 2 or (_is_constant(x) and _is_constant(y)):
        return math.nan, math.nan
    errors = np.array([x.var(ddof=1) / len(x), y.var(ddof=1) / len(y)])  # squared standard errors of the means
    freedom = errors.sum() ** 2 / (errors**2 / (np.array([len(x), len(y)]) - 1)).sum()
    half = float(stats.t.ppf((1 + level) / 2, freedom)) * math.sqrt(errors.sum())
    return float(x.mean() - y.mean()) - half, float(x.mean() - y.mean()) + half


def correlation_interval(ours: npt.ArrayLike, theirs: npt.ArrayLike, level: float = 0.95) -> tuple[float, float, float]:
    """Return Pearson's correlation of paired values and its interval, by Fisher's transformation.

    Args:
        ours: (n,), any unit.
        theirs: (n,), in the same order.
        level: confidence level, in (0, 1).

    Returns:
        Correlation, lower bound and upper bound; NaN if n < 4 or one sample has no spread.

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
    """Return whether values are equal up to rounding."""
    return float(np.ptp(values)) <= 1e-12 * float(np.abs(values).max())


def _share_as_extreme(values: npt.NDArray[np.float64], seed: int, *, two_sided: bool) -> float:
    """Return the share of sign patterns, the observed one included, whose sum is at least the observed sum."""
    if not np.isfinite(values).all():
        raise ValueError(f"differences must be finite, got {values}: leave incomplete pairs out")
    return _share(values.tobytes(), seed, two_sided) if len(values) else math.nan


@functools.lru_cache(maxsize=4_096)
def _share(content: bytes, seed: int, two_sided: bool) -> float:
    """Return the share for the content of an array; a report asks for the same differences several times."""
    values = np.frombuffer(content)
    n = len(values)
    sums, observed = _sums(values, seed), float(values.sum())
    if two_sided:
        sums, observed = np.abs(sums), abs(observed)
    count = int(np.sum(sums >= observed - 1e-9 * np.abs(values).sum()))
    return count / 2**n if n <= MOST_EXACT else (count + 1) / (NUM_FLIPS + 1)


def _sums(values: npt.NDArray[np.float64], seed: int) -> npt.NDArray[np.float64]:
    """Return the sum of the values under each sign pattern, eight values at a time from a table of their 256 sums."""
    patterns = _patterns(len(values), seed)
    padded = np.zeros(8 * patterns.shape[1])
    padded[: len(values)] = values
    tables = _SIGNS @ padded.reshape(-1, 8).T  # (256, bytes)
    sums = np.zeros(len(patterns))
    for place in range(patterns.shape[1]):
        sums += tables[patterns[:, place], place]
    return sums


_SIGNS = 1.0 - 2.0 * np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1)
"""Signs of eight values for each byte, (256, 8)."""


@functools.lru_cache(maxsize=4)
def _patterns(n: int, seed: int) -> npt.NDArray[np.uint8]:
    """Return the sign patterns of n values, all or at random, in bytes, (patterns, bytes)."""
    if n <= MOST_EXACT:
        flips = (np.arange(2**n)[:, None] >> np.arange(n) & 1).astype(np.uint8)  # (2^n, n)
    else:
        flips = np.random.default_rng(seed).integers(0, 2, (NUM_FLIPS, n), dtype=np.int8).astype(np.uint8)
    return np.packbits(flips, axis=1)
