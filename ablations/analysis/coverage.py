"""Simulated coverage of the 95 % t interval of paired differences."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

NUM_STUDIES = 20_000
STEP = 1 / 360
"""Resolution of a rounded score: one of 360 test images, as in digits."""

SD = STEP
"""Standard deviation of a score before rounding: as small as in a real study, where rounding matters most."""

NOMINAL_PCT = (93.5, 96.5)
"""Range of coverage that counts as nominal, in percent."""

Drawn = npt.NDArray[np.float64]


def _rounded(rng: np.random.Generator, shape: tuple[int, int]) -> Drawn:
    """Draw differences of two scores in whole numbers of images; their mean is 0 by symmetry."""
    ours, theirs = (np.round(rng.normal(0, SD, shape) / STEP) * STEP for _ in range(2))
    return np.asarray(ours - theirs)


DISTRIBUTIONS: dict[str, Callable[[np.random.Generator, tuple[int, int]], Drawn]] = {
    "normal": lambda rng, shape: rng.normal(0, 1, shape),
    "skewed (exponential)": lambda rng, shape: rng.exponential(1, shape) - 1,
    "rounded to 1/360": _rounded,
}
"""Name to a function that draws differences of true mean 0, (studies, seeds)."""


def coverage(seeds: list[int], *, seed: int = 0, num_studies: int = NUM_STUDIES) -> pd.DataFrame:
    """Simulate the coverage of the 95 % t interval of paired differences.

    Args:
        seeds: numbers of pairs, each at least 2.
        seed: simulation seed.
        num_studies: number of simulated studies; a coverage near 95 % has a standard error of 22 / sqrt(num_studies)
            points.

    Returns:
        One row per distribution and number of pairs: `distribution`, `n`, `coverage_pct`, and `is_kept`, whether the
        coverage lies in 93.5 to 96.5 %.

    >>> coverage([8])["is_kept"].tolist()
    [True, False, True]
    """
    rows = []
    for distribution, draw in DISTRIBUTIONS.items():
        for n in seeds:
            d = draw(np.random.default_rng(seed), (num_studies, n))
            half = stats.t.ppf(0.975, n - 1) * d.std(axis=1, ddof=1) / np.sqrt(n)
            d, half = d[half > 0], half[half > 0]  # equal differences have no interval
            covered = 100 * float((np.abs(d.mean(axis=1)) <= half).mean())
            rows.append({"distribution": distribution, "n": n, "coverage_pct": covered})
    table = pd.DataFrame(rows, columns=["distribution", "n", "coverage_pct"])
    return table.assign(is_kept=table["coverage_pct"].between(*NOMINAL_PCT))
