"""How well a foreseen quantity ranks a measured one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import stats

NUM_RESAMPLES = 2000

FEWEST = 5
"""Number of points below which there is no interval: too many resamples are in perfect order or without spread."""

Floats = npt.NDArray[np.float64]


class RankCorrelation(NamedTuple):
    """Spearman's rank correlation with its bootstrap interval; NaN if it is not defined.

    Args:
        rho: correlation, from -1 to 1.
        low: lower bound; NaN with fewer than `FEWEST` points.
        high: upper bound; likewise.
        n: number of points.
    """

    rho: float
    low: float
    high: float
    n: int


def rank_correlation(
    foreseen: npt.ArrayLike,
    measured: npt.ArrayLike,
    *,
    within: npt.ArrayLike | None = None,
    seed: int = 0,
    level: float = 0.95,
) -> RankCorrelation:
    """Return Spearman's correlation of paired values and its percentile bootstrap interval over the points.

    With groups, ranks are taken within each group, scaled to its size and centred, and the points are resampled within
    their groups: differences between groups count for nothing. A group with one point, or without spread in one of the
    two, adds nothing. A resample without spread is left out of the interval.

    Args:
        foreseen: (n,) values; infinite ones have a rank; pairs with a NaN are left out.
        measured: (n,) values, in the same order; likewise.
        within: (n,) group of each point; None for one group.
        seed: bootstrap seed; equal seeds give equal intervals.
        level: confidence level, in (0, 1).

    >>> found = rank_correlation([1.0, 2.0, 3.0, 4.0, 5.0], [10.0, 30.0, 20.0, 40.0, 50.0])
    >>> round(found.rho, 3), found.n
    (0.9, 5)
    >>> shifted = [1.0, 2.0, 101.0, 102.0], [2.0, 1.0, 12.0, 11.0]
    >>> round(rank_correlation(*shifted).rho, 3), round(rank_correlation(*shifted, within=["a", "a", "b", "b"]).rho, 3)
    (0.6, -1.0)
    """
    x, y = np.asarray(foreseen, dtype=np.float64), np.asarray(measured, dtype=np.float64)
    groups = np.zeros(len(x), dtype=np.int64)
    if within is not None:
        groups = np.unique(np.asarray(within), return_inverse=True)[1].astype(np.int64)
    known = ~(np.isnan(x) | np.isnan(y))
    x, y, groups = x[known], y[known], groups[known]
    places = [np.flatnonzero(groups == group) for group in np.unique(groups)]
    rho = float(_correlations([(x[None, own], y[None, own]) for own in places])[0]) if places else math.nan
    if math.isnan(rho) or len(x) < FEWEST:
        return RankCorrelation(rho, math.nan, math.nan, len(x))
    rng = np.random.default_rng(seed)
    drawn = [rng.choice(own, (NUM_RESAMPLES, len(own))) for own in places]
    rhos = _correlations([(x[rows], y[rows]) for rows in drawn])
    tail = (1 - level) / 2
    low, high = np.nanquantile(rhos, (tail, 1 - tail)) if np.isfinite(rhos).any() else (math.nan, math.nan)
    return RankCorrelation(rho, float(low), float(high), len(x))


def _correlations(pairs: Sequence[tuple[Floats, Floats]]) -> Floats:
    """Return the correlation of the centred ranks of all groups in each resample, (R,); NaN without spread.

    Args:
        pairs: the two values of each group's points, (R, n) each.
    """
    sums = np.zeros((3, len(pairs[0][0])))
    for x, y in pairs:
        has_spread = (x != x[:, :1]).any(axis=1) & (y != y[:, :1]).any(axis=1)
        a, b = (stats.rankdata(values, axis=1) / values.shape[1] for values in (x, y))
        a, b = (has_spread[:, None] * (ranks - ranks.mean(axis=1, keepdims=True)) for ranks in (a, b))
        sums += [(a * b).sum(axis=1), (a * a).sum(axis=1), (b * b).sum(axis=1)]
    lengths = np.sqrt(sums[1] * sums[2])
    return np.divide(sums[0], lengths, out=np.full(len(lengths), np.nan), where=lengths > 0)
