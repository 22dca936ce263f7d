"""What a number of seeds can decide, and how many a difference takes."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pandas as pd
from scipy import optimize, stats

from ablations.stats.inference import ALPHA


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


def seeds_for(delta: float, sd: float, *, alpha: float, power: float = 0.8) -> int:
    """Return the smallest number of pairs with which a difference is detected with the given power.

    The paired t test has the power and the exact sign-flip test can reach alpha at all.

    Args:
        delta: the difference, above 0, in any unit.
        sd: standard deviation of the differences, in the same unit.
        alpha: level of one comparison, in (0, 1).
        power: in (alpha / 2, 1).

    Returns:
        At least 2.

    Raises:
        ValueError: delta is not above 0, or sd is no finite number.

    >>> seeds_for(0.5, 0.5, alpha=0.05)
    10
    """
    if not delta > 0:
        raise ValueError(f"delta must be above 0, got {delta}")
    if not math.isfinite(sd):
        raise ValueError(f"sd must be a finite number, got {sd}")

    def suffices(n: int) -> bool:
        return smallest_p(n) <= alpha and detectable_difference(sd, n, alpha=alpha, power=power) <= delta

    least, most = 1, 2  # the first does not suffice, the second will
    while not suffices(most):
        least, most = most, 2 * most
    while most - least > 1:
        middle = (least + most) // 2
        least, most = (least, middle) if suffices(middle) else (middle, most)
    return most


def power_table(
    compared: pd.DataFrame, paired: pd.DataFrame, delta_pct: float, *, power: float = 0.8, level: float = 0.95
) -> pd.DataFrame:
    """Say for each comparison how many seeds a margin takes, and what the present ones could have detected.

    It looks at the spread of the differences and at no difference.

    Args:
        compared: the comparisons, from `ablations.stats.compare`.
        paired: their differences seed by seed, from `ablations.stats.differences`.
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
