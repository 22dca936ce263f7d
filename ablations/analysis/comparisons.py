"""Paired comparisons: differences per seed and their tests. One table is one family for Holm's correction."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from ablations.analysis.inference import ALPHA, equivalence_p, holm, sign_flip_p, t_interval
from ablations.analysis.pairs import BLOCK, CHANCE_KINDS, complete_seeds
from ablations.analysis.power import can_decide, detectable_difference

MARGIN_PCT = 0.5
"""Points within which two arms count as equivalent, unless another margin is given."""

COLUMNS = (
    *("condition", "comparison", "num_pairs", "num_pairs_left_out", "num_pairs_mixed", "num_pairs_chance"),
    *("difference_pct", "difference_low_pct", "difference_high_pct", "p", "p_holm", "supported", "won_share"),
    *("equivalence_p", "equivalent", "detectable_pct", "success_num_pairs", "success_difference_pct"),
    *("success_difference_low_pct", "success_difference_high_pct", "success_detectable_pct"),
)


@dataclass(frozen=True)
class Comparison:
    """A sum of arms minus a sum of equally many other arms, per seed.

    Args:
        plus: names of arms, one for a difference, two for an interaction.
        minus: names of equally many other arms.

    >>> Comparison(("l2",), ("xnorm",)).name
    'l2 - xnorm'
    >>> Comparison(("a", "d"), ("b", "c")).name
    '(a - b) - (c - d)'
    """

    plus: tuple[str, ...]
    minus: tuple[str, ...]

    @property
    def arms(self) -> tuple[str, ...]:
        """Every arm of the comparison."""
        return (*self.plus, *self.minus)

    @property
    def name(self) -> str:
        """Name of the comparison in tables and figures."""
        if len(self.plus) == 1:
            return f"{self.plus[0]} - {self.minus[0]}"
        (a, d), (b, c) = self.plus, self.minus
        return f"({a} - {b}) - ({c} - {d})"


def with_reference(cells: pd.DataFrame, reference: str | None) -> list[Comparison]:
    """Return the comparison of every arm with the reference, in registry order."""
    arms = cells.sort_values("arm_order", kind="stable")["arm"].unique()
    return [Comparison((arm,), (reference,)) for arm in arms if arm != reference] if reference else []


def differences(cells: pd.DataFrame, comparisons: Sequence[Comparison]) -> pd.DataFrame:
    """Return the differences per seed.

    Args:
        cells: one row per cell, as `summarise` takes them.
        comparisons: the comparisons to compute.

    Returns:
        One row per condition, comparison and seed at which all its arms have a score: `condition`, `comparison`,
        `seed`, `difference_pct` in points; `has_chance`: a score is chance; `is_mixed`: both stale and fresh cells;
        `all_ok`: every outcome is ok.

    Raises:
        ValueError: two cells have the same condition, arm and seed.

    >>> cells = pd.DataFrame({"condition": "", "arm": ["a", "b"] * 2, "seed": [0, 0, 1, 1]})
    >>> cells = cells.assign(score_pct=[61.0, 60.0, 62.0, 64.0], kind="", outcome="ok", stale=False)
    >>> differences(cells, [Comparison(("a",), ("b",))])["difference_pct"].tolist()
    [1.0, -2.0]
    """
    columns = ["condition", "comparison", "seed", "difference_pct", "has_chance", "is_mixed", "all_ok"]
    found = []
    for comparison in comparisons:
        own = complete_seeds(cells, comparison.arms)
        sign = np.where(own["arm"].isin(comparison.plus), 1.0, -1.0)
        blocks = own.assign(
            difference_pct=own["score_pct"].astype(np.float64) * sign,
            has_chance=own["kind"].isin(CHANCE_KINDS),
            all_ok=own["outcome"] == "ok",
        ).groupby(BLOCK, sort=False)
        total = blocks["difference_pct"].sum().round(9)  # a sum of equal scores is 0, not 1e-14
        chance, mixed, ok = blocks["has_chance"].any(), blocks["stale"].nunique() > 1, blocks["all_ok"].all()
        frame = total.to_frame().assign(has_chance=chance, is_mixed=mixed, all_ok=ok, comparison=comparison.name)
        found.append(frame.reset_index()[columns])
    found = [frame for frame in found if len(frame)]
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame(columns=columns)


def compare(
    cells: pd.DataFrame, comparisons: Sequence[Comparison], *, margin_pct: float = MARGIN_PCT, level: float = 0.95
) -> pd.DataFrame:
    """Return a table of comparisons per condition, with seeds as the only replicates.

    Args:
        cells: one row per cell, as `summarise` takes them.
        comparisons: comparisons in row order within each condition; a condition that lacks one of the arms has no row.
        margin_pct: margin of equivalence, in points, > 0.
        level: confidence level of every interval, in (0, 1).

    Returns:
        Conditions in the order of their cells; differences in points, NaN without a pair. `num_pairs_left_out` counts
        seeds with a cell of some arm but not a score of all, `num_pairs_mixed` pairs of stale and fresh cells,
        `num_pairs_chance` pairs with a chance score (the last two are included). With chance scores the t interval
        undercovers, so the interval, `equivalence_p` (TOST) and `detectable_pct` are NaN. `p` is two-sided from the
        sign-flip test, `p_holm` its adjustment over this table, `supported` whether `p_holm` is below 0.05. A tie
        counts half in `won_share`. `detectable_pct` is for 80 % power at 0.05 divided by the number of comparisons:
        infinite if too few pairs can reach that level, NaN if all differences are equal. `success_*` columns cover
        pairs in which every outcome is ok.

    Raises:
        ValueError: two cells have the same condition, arm and seed.
    """
    paired = differences(cells, comparisons)
    by_comparison = dict(list(paired.groupby(["condition", "comparison"], sort=False)))
    seeds = cells.groupby(["condition", "arm"], sort=False)["seed"].agg(set).to_dict()
    rows = []
    for condition, comparison in itertools.product(cells["condition"].unique(), comparisons):
        found = [seeds[condition, arm] for arm in comparison.arms if (condition, arm) in seeds]
        if len(found) < len(comparison.arms):
            continue
        own = by_comparison.get((condition, comparison.name), paired.iloc[:0])
        num_left_out = len(set().union(*found)) - len(own)
        row = {"condition": condition, "comparison": comparison.name, "num_pairs_left_out": num_left_out}
        rows.append(row | _columns(own, len(by_comparison), margin_pct, level))
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    table["p_holm"] = holm(table["p"].to_numpy(np.float64))
    table["supported"] = table["p_holm"] < ALPHA
    table["equivalent"] = table["equivalence_p"].astype(np.float64) < ALPHA
    return table


def paired(cells: pd.DataFrame, comparisons: Sequence[Comparison], *, level: float = 0.95) -> pd.DataFrame:
    """Return the differences per seed, each row with the test of its comparison.

    Args:
        cells: one row per cell, as `summarise` takes them, with `arm_order`.
        comparisons: the comparisons; Holm's correction covers all of them in all conditions.
        level: confidence level of the intervals, in (0, 1).

    Returns:
        One row per condition, comparison and seed: the columns of `differences`; `mean_pct`, `low_pct`, `high_pct`,
        `p`, `p_holm` and `supported` as `compare` has them; `arm_order`, the place of the comparison's first arm.

    Raises:
        ValueError: two cells have the same condition, arm and seed.
    """
    names = {"difference_pct": "mean_pct", "difference_low_pct": "low_pct", "difference_high_pct": "high_pct"}
    table = compare(cells, comparisons, level=level).rename(columns=names)
    tested = table[["condition", "comparison", "mean_pct", "low_pct", "high_pct", "p", "p_holm", "supported"]]
    order = dict(zip(cells["arm"], cells["arm_order"], strict=True))
    first = {comparison.name: order[comparison.plus[0]] for comparison in comparisons if comparison.plus[0] in order}
    rows = differences(cells, comparisons).merge(tested, on=["condition", "comparison"], validate="many_to_one")
    return rows.assign(arm_order=rows["comparison"].map(first))


def _columns(own: pd.DataFrame, num_comparisons: int, margin_pct: float, level: float) -> dict[str, object]:
    """Return the table's columns for one comparison in one condition."""
    values, n = own["difference_pct"].to_numpy(np.float64), len(own)
    has_chance = bool(own["has_chance"].any())
    low, high = (math.nan, math.nan) if has_chance else t_interval(values, level)
    successes = values[own["all_ok"].to_numpy(bool)]
    success_low, success_high = t_interval(successes, level)
    return {
        "num_pairs": n,
        "num_pairs_mixed": int(own["is_mixed"].sum()),
        "num_pairs_chance": int(own["has_chance"].sum()),
        "difference_pct": values.mean() if n else math.nan,
        "difference_low_pct": low,
        "difference_high_pct": high,
        "p": sign_flip_p(values),
        "won_share": float((np.sign(values.round(9)) / 2 + 0.5).mean()) if n else math.nan,
        "equivalence_p": math.nan if has_chance else equivalence_p(values, margin_pct),
        "detectable_pct": math.nan if has_chance else _detectable(values, num_comparisons),
        "success_num_pairs": len(successes),
        "success_difference_pct": successes.mean() if len(successes) else math.nan,
        "success_difference_low_pct": success_low,
        "success_difference_high_pct": success_high,
        "success_detectable_pct": _detectable(successes, num_comparisons),
    }


def _detectable(values: npt.NDArray[np.float64], num_comparisons: int) -> float:
    """Return the detectable difference at this spread, adjusted for the number of comparisons."""
    if not len(values):
        return math.nan
    if not can_decide(len(values), num_comparisons):
        return math.inf
    if np.ptp(values) == 0:  # without a spread it cannot be estimated
        return math.nan
    return detectable_difference(float(values.std(ddof=1)), len(values), alpha=ALPHA / num_comparisons)
