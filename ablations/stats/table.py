"""The table that a study ends with, and whether its pairing held.

A frame `cells` has one row per finished cell: `condition`, `arm`, `arm_label`, `arm_order`, `seed`, `outcome`, `kind`,
`score_pct`, `stale`, `init_hash`, `split_hash`, `batches`. Only seeds are replicates: nothing is pooled over
conditions.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from ablations.stats.inference import (
    ALPHA,
    can_decide,
    detectable_difference,
    holm,
    sign_flip_p,
    t_interval,
    wilson_interval,
)

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


def summarise(cells: pd.DataFrame, reference: str | None, level: float = 0.95) -> pd.DataFrame:
    """Return the main table: one row per condition and arm, each arm beside its paired comparison.

    Args:
        cells: one row per cell.
        reference: the arm that the others are compared with; None where there is no other.
        level: confidence of every interval, in (0, 1).

    Returns:
        Conditions in the order of their cells, arms in that of the registry; scores and differences in points, NaN
        where there is none.
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
    places = np.lexsort((cells["arm_order"], pd.factorize(cells["condition"])[0]))
    for (condition, arm), own in cells.iloc[places].groupby(ARM, sort=False):
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
    """Count the complete pairs of each arm whose two cells started from the same weights, split and batches.

    Args:
        cells: one row per cell; `batches` holds a hash of the batches of each epoch begun, apart by spaces.
        reference: the arm that the others are compared with.

    Returns:
        `condition`, `arm`, `num_pairs`, `num_same_init`, `num_same_split` and `num_same_batches`, a row for each arm
        but the reference. Batches are compared over the epochs that both cells ran. An empty hash is equal to none.

    Raises:
        ValueError: two cells have the same condition, arm and seed.
    """
    pairs = _pairs(cells, reference)
    same = pairs[ARM].assign(num_pairs=1)
    for part in ("init", "split"):
        ours = pairs[f"{part}_hash"].fillna("")
        same[f"num_same_{part}"] = ((ours == pairs[f"{part}_hash_reference"]) & (ours != "")).astype(int)
    batches = zip(pairs["batches"], pairs["batches_reference"], strict=True)
    same["num_same_batches"] = [int(_same_beginning(ours.split(), theirs.split())) for ours, theirs in batches]
    arms = cells[cells["arm"] != reference].sort_values(["condition", "arm_order"])[ARM].drop_duplicates()
    return same.groupby(ARM).sum().reindex(pd.MultiIndex.from_frame(arms), fill_value=0).reset_index()


def _same_beginning(ours: list[str], theirs: list[str]) -> bool:
    both = min(len(ours), len(theirs))
    return both > 0 and ours[:both] == theirs[:both]


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
