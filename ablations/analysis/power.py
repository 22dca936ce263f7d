"""What a number of seeds can decide, and how many a difference takes."""

from __future__ import annotations

import itertools
import math
from functools import cache
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import optimize, stats

from ablations.analysis.inference import ALPHA, MOST_EXACT

FEW = 50
"""Sign patterns that may be as extreme as the observed one: fewer, and the test's power is simulated."""

MOST_STUDIES = 20_000
"""Simulated for that; with 11 pairs and more fewer, so that it takes half a second at most. The error is 1 to 2 %."""


class Detectable(Protocol):
    """What says which difference a number of pairs would detect."""

    def __call__(self, sd: float, n: int, *, alpha: float, power: float = 0.8) -> float:
        """Return the difference in the unit of sd."""


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
    """Return the mean difference that the two-sided sign-flip test would detect with the given power.

    For normal differences. With few pairs this test is less powerful than a t test, for its p is a multiple of
    2 / 2^n: at 8 pairs and alpha 0.05 / 6 it takes all signs to be equal, and a difference 15 % larger. Where at least
    50 sign patterns may be as extreme the two agree within 1 %, and the t test's power is taken at the level that p can
    reach. A rejection with the wrong sign is not counted as a detection.

    Args:
        sd: standard deviation of the differences, any unit.
        n: number of pairs.
        alpha: level of one comparison, in (0, 1).
        power: in (alpha / 2, 1).

    Returns:
        The difference in the unit of sd, >= 0; infinite where so few pairs cannot reach alpha at all, NaN where n < 2.

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
    return sd * float(np.quantile(_sign_flip_effects(n, num_extreme), power))


def t_detectable_difference(sd: float, n: int, *, alpha: float, power: float = 0.8) -> float:
    """Return the mean difference that a two-sided paired t test would detect with the given power.

    A rejection with the wrong sign is not counted as a detection.

    Args:
        sd: standard deviation of the differences, any unit.
        n: number of pairs.
        alpha: level of one comparison, in (0, 1).
        power: in (alpha / 2, 1).

    Returns:
        The difference in the unit of sd, >= 0; NaN where n < 2.

    >>> round(t_detectable_difference(1.0, 8, alpha=0.05), 2)
    1.16
    """
    if n < 2 or math.isnan(sd):
        return math.nan
    critical = stats.t.ppf(1 - alpha / 2, n - 1)

    def shortfall(noncentrality: float) -> float:
        return power - float(stats.nct.sf(critical, n - 1, noncentrality))

    upper = next(2.0**i for i in itertools.count() if shortfall(2.0**i) <= 0)
    return float(optimize.brentq(shortfall, 0.0, upper)) * sd / math.sqrt(n)


def seeds_for(
    delta: float, sd: float, *, alpha: float, power: float = 0.8, detectable: Detectable = detectable_difference
) -> int:
    """Return the smallest number of pairs with which a difference is detected with the given power.

    Args:
        delta: the difference, above 0, in any unit.
        sd: standard deviation of the differences, in the same unit.
        alpha: level of one comparison, in (0, 1).
        power: in (alpha / 2, 1).
        detectable: what a number of pairs detects, by the test that will be made: `detectable_difference` for the
            sign-flip test, `t_detectable_difference` for t tests.

    Returns:
        At least 2.

    Raises:
        ValueError: delta is not above 0, or sd is no finite number.

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
        least, most = most, 2 * most
    while most - least > 1:
        middle = (least + most) // 2
        least, most = (least, middle) if suffices(middle) else (middle, most)
    return most


@cache
def _sign_flip_effects(n: int, num_extreme: int) -> npt.NDArray[np.float32]:
    """Return for each of many simulated studies the least mean difference, in sd, that its sign-flip test shows.

    To flip the signs of some pairs leaves a sum as large as before where their mean is not above 0. So a study is
    significant where fewer than `num_extreme` sets of its pairs have such a mean (no set at all is the first pattern),
    and its differences, shifted as a whole, are from the shift on that brings the `num_extreme`-th smallest mean to 0.

    Args:
        n: pairs, at most 16.
        num_extreme: patterns that may be as extreme as the observed one, which is the first of them.
    """
    patterns = (np.arange(1, 2**n)[:, None] >> np.arange(n) & 1).astype(np.float32)  # (sets, n)
    shares = (patterns / patterns.sum(axis=1, keepdims=True)).T  # (n, sets)
    num_studies = min(MOST_STUDIES, 2**25 >> n)
    noise = np.random.default_rng(0).standard_normal((num_studies, n), dtype=np.float32)
    chunks = np.array_split(noise, math.ceil(num_studies * 2**n / 2**22))  # of which the means are held at once
    return np.concatenate([-np.partition(own @ shares, num_extreme - 1)[:, num_extreme - 1] for own in chunks])


def power_table(
    compared: pd.DataFrame, paired: pd.DataFrame, delta_pct: float, *, power: float = 0.8, level: float = 0.95
) -> pd.DataFrame:
    """Say for each comparison how many seeds a margin takes, and what the present ones could have detected.

    It looks at the spread of the differences and at no difference.

    Args:
        compared: the comparisons, from `ablations.analysis.compare`.
        paired: their differences seed by seed, from `ablations.analysis.differences`.
        delta_pct: the margin, in points.
        power: share of studies that are to detect it.
        level: confidence of the spread's interval.

    Returns:
        One row per comparison: `condition`, `comparison`, `num_pairs`, `sd_pct` of the differences with `sd_low_pct`
        and `sd_high_pct` (chi-square), `detectable_pct`, and `seeds` with `seeds_low` and `seeds_high`, the number
        needed at that spread and at its bounds. Alpha is 0.05 divided by the number of comparisons with pairs. Where
        chance scores have entered or there are fewer than two pairs, there is no spread, and nothing is computed.
    """
    alpha = ALPHA / max(1, int((compared["num_pairs"] > 0).sum()))
    rows = []
    for row in compared.to_dict("records"):
        own = paired[(paired["condition"] == row["condition"]) & (paired["comparison"] == row["comparison"])]
        n = len(own)
        sd = float(own["difference_pct"].std()) if n > 1 and not own["has_chance"].any() else math.nan
        quantiles = stats.chi2.ppf([(1 + level) / 2, (1 - level) / 2], max(n - 1, 1))
        spreads = [sd, *(sd * np.sqrt(max(n - 1, 0) / quantiles))]
        seeds = [seeds_for(delta_pct, one, alpha=alpha, power=power) if one == one else math.nan for one in spreads]
        rows.append(
            {
                **{name: row[name] for name in ("condition", "comparison", "num_pairs", "detectable_pct")},
                **dict(zip(("sd_pct", "sd_low_pct", "sd_high_pct"), spreads, strict=True)),
                **dict(zip(("seeds", "seeds_low", "seeds_high"), seeds, strict=True)),
            }
        )
    spread, needed = ["sd_pct", "sd_low_pct", "sd_high_pct"], ["seeds", "seeds_low", "seeds_high"]
    columns = ["condition", "comparison", "num_pairs", *spread, "detectable_pct", *needed]
    table = pd.DataFrame(rows, columns=columns)
    return table.astype(dict.fromkeys(needed, "Int64"))
