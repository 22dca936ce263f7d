"""How often a 95 % t interval of paired differences covers the truth, by simulation."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

NUM_STUDIES = 20_000
STEP = 1 / 360
"""Of a rounded score: a test set of 360 images, as digits has."""

SD = STEP
"""Of each score before it is rounded, as small as scores of a real study are: rounding shows the more, the smaller."""

NOMINAL_PCT = (93.5, 96.5)
"""Coverage that counts as kept."""

Drawn = npt.NDArray[np.float64]


def _normal(rng: np.random.Generator, shape: tuple[int, int]) -> Drawn:
    return rng.normal(0, 1, shape)


def _skewed(rng: np.random.Generator, shape: tuple[int, int]) -> Drawn:
    return rng.exponential(1, shape) - 1


def _rounded(rng: np.random.Generator, shape: tuple[int, int]) -> Drawn:
    """Return differences of two scores that are whole numbers of images; their mean is 0 by symmetry."""
    ours, theirs = (np.round(rng.normal(0, SD, shape) / STEP) * STEP for _ in range(2))
    return np.asarray(ours - theirs)


DISTRIBUTIONS: dict[str, Callable[[np.random.Generator, tuple[int, int]], Drawn]] = {
    "normal": _normal,
    "skewed (exponential)": _skewed,
    "rounded to 1/360": _rounded,
}
"""Name to what draws differences whose true mean is 0, (studies, seeds)."""


def coverage(seeds: list[int], *, seed: int = 0, num_studies: int = NUM_STUDIES) -> pd.DataFrame:
    """Simulate how often the 95 % t interval of paired differences covers their true mean.

    Args:
        seeds: numbers of pairs, each at least 2.
        seed: of the simulation.
        num_studies: simulated studies; the standard error of a coverage near 95 % is 22 / sqrt(studies) points.

    Returns:
        One row per distribution and number of pairs: `distribution`, `n`, `coverage_pct`, and `is_kept`, whether it
        lies in 93.5 to 96.5 %.

    >>> coverage([8])["is_kept"].tolist()
    [True, False, True]
    """
    rows = []
    for distribution, draw in DISTRIBUTIONS.items():
        for n in seeds:
            d = draw(np.random.default_rng(seed), (num_studies, n))
            half = stats.t.ppf(0.975, n - 1) * d.std(axis=1, ddof=1) / np.sqrt(n)
            d, half = d[half > 0], half[half > 0]  # where all are equal there is no interval
            covered = 100 * float((np.abs(d.mean(axis=1)) <= half).mean())
            rows.append({"distribution": distribution, "n": n, "coverage_pct": covered})
    table = pd.DataFrame(rows, columns=["distribution", "n", "coverage_pct"])
    return table.assign(is_kept=table["coverage_pct"].between(*NOMINAL_PCT))
