"""How well a foreseen quantity ranks a measured one."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import stats

NUM_RESAMPLES = 2000

Floats = npt.NDArray[np.float64]
Groups = npt.NDArray[np.int64]


class RankCorrelation(NamedTuple):
    """Spearman's rank correlation with its bootstrap interval; NaN if it is not defined.

    Args:
        rho: correlation, from -1 to 1.
        low: lower bound.
        high: upper bound.
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
    rho = _correlation(x, y, groups)
    if math.isnan(rho):
        return RankCorrelation(math.nan, math.nan, math.nan, len(x))
    rng = np.random.default_rng(seed)
    places = [np.flatnonzero(groups == group) for group in np.unique(groups)]
    drawn = (np.concatenate([rng.choice(own, len(own)) for own in places]) for _ in range(NUM_RESAMPLES))
    rhos = np.array([_correlation(x[rows], y[rows], groups[rows]) for rows in drawn])
    tail = (1 - level) / 2
    low, high = np.nanquantile(rhos, (tail, 1 - tail)) if np.isfinite(rhos).any() else (math.nan, math.nan)
    return RankCorrelation(rho, float(low), float(high), len(x))


def _correlation(x: Floats, y: Floats, groups: Groups) -> float:
    """Return the correlation of the centred ranks of all groups."""
    parts = [_ranks(x[own], y[own]) for own in (groups == group for group in np.unique(groups))]
    a, b = (np.concatenate([part[side] for part in parts]) if parts else np.empty(0) for side in (0, 1))
    length = math.sqrt(float(a @ a) * float(b @ b))
    return float(a @ b) / length if length else math.nan


def _ranks(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Return the ranks of a group's points over its size, centred; zeros if either has no spread."""
    if np.all(x == x[0]) or np.all(y == y[0]):
        return np.zeros(len(x)), np.zeros(len(x))
    a, b = (stats.rankdata(values) / len(values) for values in (x, y))
    return a - a.mean(), b - b.mean()
