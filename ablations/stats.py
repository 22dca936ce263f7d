"""Numbers from DataFrames: intervals, paired tests, and the table that a study ends with.

A frame `cells` has one row per finished cell: `condition`, `arm`, `arm_label`, `arm_order`, `seed`, `outcome`, `kind`,
`score_pct`, `stale`, `init_hash`, `split_hash`. Only seeds are replicates: nothing is pooled over conditions.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import optimize, stats

ALPHA = 0.05
MOST_EXACT = 16  # up to this many pairs every sign pattern is counted; above it they are drawn
NUM_FLIPS = 100_000
CHANCE_KINDS = ("nan", "exploded")  # the kinds of divergence that are scored as chance

ARM = ["condition", "arm"]
TABLE = (
    *("condition", "arm", "arm_label", "arm_order", "is_reference", "n", "num_diverged", "num_failed", "num_stale"),
    *("mean_pct", "median_pct", "sd_pct", "low_pct", "high_pct"),
    *("diverged_share", "diverged_low_share", "diverged_high_share"),
    *("num_pairs", "num_pairs_left_out", "num_pairs_mixed"),
    *("difference_pct", "difference_low_pct", "difference_high_pct", "p", "p_holm", "won_share"),
    *("detectable_pct", "supported"),
    *("success_n", "success_mean_pct", "success_num_pairs", "success_difference_pct"),
)


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


def paired_differences(cells: pd.DataFrame, reference: str | None) -> pd.DataFrame:
    """Return every complete pair's difference in score, arm minus reference, at equal condition and seed.

    Args:
        cells: one row per cell.
        reference: the arm that the others are compared with; None where there is no other.

    Returns:
        `arm`, `condition`, `seed`, `difference_pct` (points) and `pair_stale_mixed`, true where one of the two cells
        is stale and the other is not. A pair in which a score is missing is left out.

    Raises:
        ValueError: two cells have the same condition, arm and seed.

    >>> columns = {"condition": "", "seed": [0, 0, 1, 1], "outcome": "ok", "kind": "", "stale": False}
    >>> cells = pd.DataFrame({"arm": ["xnorm", "l2"] * 2, "score_pct": [61.0, 60.5, 62.0, 60.0], **columns})
    >>> paired_differences(cells, "xnorm")["difference_pct"].tolist()
    [-0.5, -2.0]
    """
    return _pairs(cells, reference)[["arm", "condition", "seed", "difference_pct", "pair_stale_mixed"]]


def summarise(cells: pd.DataFrame, reference: str | None, level: float = 0.95) -> pd.DataFrame:
    """Return the main table: one row per condition and arm, each arm beside its paired comparison.

    Args:
        cells: one row per cell.
        reference: the arm that the others are compared with; None where there is no other.
        level: confidence of every interval, in (0, 1).

    Returns:
        In order of condition and place in the registry; scores and differences in points, NaN where there is none.
        `n` counts cells with a score, `num_pairs_left_out` seeds of either arm that make no complete pair,
        `num_pairs_mixed` pairs of a stale and a fresh cell (they are counted in). `diverged_share` is of the cells
        that did not fail, with Wilson bounds. A mean into which chance scores have entered carries no t interval,
        for that undercovers; nor does a difference, whose `detectable_pct` is then NaN too. `p_holm` is adjusted over
        all comparisons in the table, `supported` where it is below 0.05. A tie counts half in `won_share`.
        `detectable_pct` is for 80 % power at 0.05 divided by the number of comparisons; infinite where the pairs are
        too few for any p to reach that. `success_*` are over cells with outcome ok, and over pairs of two such.

    Raises:
        ValueError: two cells have the same condition, arm and seed.

    >>> columns = {"condition": "", "seed": [0, 0, 1, 1], "outcome": "ok", "kind": "", "stale": False}
    >>> cells = pd.DataFrame({"arm": ["xnorm", "l2"] * 2, "score_pct": [61.0, 60.5, 62.0, 60.0], **columns})
    >>> cells = cells.assign(arm_label=cells["arm"], arm_order=[0, 1] * 2)
    >>> summarise(cells, "xnorm")[["arm", "n", "mean_pct", "difference_pct", "p"]].values.tolist()
    [['xnorm', 2, 61.5, nan, nan], ['l2', 2, 60.25, -1.25, 0.5]]
    """
    pairs = _pairs(cells, reference)
    num_comparisons = pairs.groupby(ARM).ngroups
    rows = []
    for (condition, _, arm), own in cells.groupby(["condition", "arm_order", "arm"]):
        paired = pairs[(pairs["condition"] == condition) & (pairs["arm"] == arm)]
        others = cells[(cells["condition"] == condition) & (cells["arm"] == reference)]
        comparable = reference is not None and arm != reference
        rows.append(
            _arm_columns(own, level)
            | _difference_columns(paired, num_comparisons, level)
            | {
                "is_reference": arm == reference,
                "num_pairs_left_out": len({*own["seed"], *others["seed"]}) - len(paired) if comparable else 0,
            }
        )
    table = pd.DataFrame(rows, columns=list(TABLE))
    table["p_holm"] = holm(table["p"].to_numpy(np.float64))
    table["supported"] = table["p_holm"] < ALPHA
    return table


def pairing_held(cells: pd.DataFrame, reference: str | None) -> pd.DataFrame:
    """Count the complete pairs of each arm whose two cells started from the same weights and split.

    Args:
        cells: one row per cell; a column `batches_hash` is compared where it is there.
        reference: the arm that the others are compared with.

    Returns:
        `condition`, `arm`, `num_pairs`, `num_same_init`, `num_same_split` and maybe `num_same_batches`, a row for
        each arm but the reference. An empty hash is equal to none.

    Raises:
        ValueError: two cells have the same condition, arm and seed.
    """
    pairs = _pairs(cells, reference)
    same = pairs[ARM].assign(num_pairs=1)
    for part in ("init", "split", "batches"):
        if f"{part}_hash" in cells:
            ours = pairs[f"{part}_hash"].fillna("")
            same[f"num_same_{part}"] = ((ours == pairs[f"{part}_hash_reference"]) & (ours != "")).astype(int)
    arms = cells[cells["arm"] != reference].sort_values(["condition", "arm_order"])[ARM].drop_duplicates()
    return same.groupby(ARM).sum().reindex(pd.MultiIndex.from_frame(arms), fill_value=0).reset_index()


def _pairs(cells: pd.DataFrame, reference: str | None) -> pd.DataFrame:
    """Return the complete pairs: an arm's columns, the reference's with suffix `_reference`, and how they differ."""
    repeated = cells.duplicated(["condition", "arm", "seed"])
    if repeated.any():
        first = cells[repeated].iloc[0]
        raise ValueError(f"two cells of arm {first['arm']}, condition '{first['condition']}', seed {first['seed']}")
    is_reference = cells["arm"] == reference
    pairs = cells[~is_reference].merge(cells[is_reference], on=["condition", "seed"], suffixes=("", "_reference"))
    pairs = pairs.dropna(subset=["score_pct", "score_pct_reference"]).reset_index(drop=True)
    pairs["difference_pct"] = pairs["score_pct"] - pairs["score_pct_reference"]
    pairs["pair_stale_mixed"] = pairs["stale"] != pairs["stale_reference"]
    pairs["has_chance"] = pairs["kind"].isin(CHANCE_KINDS) | pairs["kind_reference"].isin(CHANCE_KINDS)
    pairs["both_ok"] = (pairs["outcome"] == "ok") & (pairs["outcome_reference"] == "ok")
    return pairs


def _arm_columns(own: pd.DataFrame, level: float) -> dict[str, object]:
    """Return what the table says of one arm in one condition by itself."""
    scores = own["score_pct"].dropna()
    successes = own.loc[own["outcome"] == "ok", "score_pct"].dropna()
    num_diverged, num_failed = (int((own["outcome"] == outcome).sum()) for outcome in ("diverged", "failed"))
    diverged_low, diverged_high = wilson_interval(num_diverged, len(own) - num_failed, level)
    has_chance = own["kind"].isin(CHANCE_KINDS).any()
    low, high = (math.nan, math.nan) if has_chance else t_interval(scores, level)
    return {
        **{name: own[name].iloc[0] for name in ("condition", "arm", "arm_label", "arm_order")},
        "n": len(scores),
        "num_diverged": num_diverged,
        "num_failed": num_failed,
        "num_stale": int(own["stale"].sum()),
        "mean_pct": scores.mean(),
        "median_pct": scores.median(),
        "sd_pct": scores.std(),
        "low_pct": low,
        "high_pct": high,
        "diverged_share": num_diverged / (len(own) - num_failed) if len(own) > num_failed else math.nan,
        "diverged_low_share": diverged_low,
        "diverged_high_share": diverged_high,
        "success_n": len(successes),
        "success_mean_pct": successes.mean(),
    }


def _difference_columns(paired: pd.DataFrame, num_comparisons: int, level: float) -> dict[str, object]:
    """Return what the table says of one arm's complete pairs with the reference."""
    differences, n = paired["difference_pct"], len(paired)
    has_chance = paired["has_chance"].any()
    low, high = (math.nan, math.nan) if has_chance else t_interval(differences, level)
    if n == 0 or has_chance:
        detectable = math.nan
    elif not can_decide(n, num_comparisons):
        detectable = math.inf
    else:
        detectable = detectable_difference(differences.std(), n, alpha=ALPHA / num_comparisons)
    return {
        "num_pairs": n,
        "num_pairs_mixed": int(paired["pair_stale_mixed"].sum()),
        "difference_pct": differences.mean(),
        "difference_low_pct": low,
        "difference_high_pct": high,
        "p": sign_flip_p(differences),
        "won_share": ((differences > 0) + 0.5 * (differences == 0)).mean(),
        "detectable_pct": detectable,
        "success_num_pairs": int(paired["both_ok"].sum()),
        "success_difference_pct": paired.loc[paired["both_ok"], "difference_pct"].mean(),
    }
