"""Main table of a study.

A frame `cells` has one row per finished cell: `condition`, `arm`, `arm_label`, `arm_order`, `seed`, `outcome`, `kind`,
`score_pct`, `stale`. Only seeds are replicates: nothing is pooled over conditions.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from ablations.analysis.comparisons import COLUMNS, MARGIN_PCT, compare, with_reference
from ablations.analysis.inference import t_interval, wilson_interval
from ablations.analysis.pairs import CHANCE_KINDS

COMPARED = tuple(name for name in COLUMNS if name not in ("condition", "comparison"))
COUNTS = ("num_pairs", "num_pairs_left_out", "num_pairs_mixed", "num_pairs_chance", "success_num_pairs")
FLAGS = ("supported", "equivalent")
TABLE = (
    *("condition", "arm", "arm_label", "arm_order", "is_reference", "n", "num_diverged", "num_failed", "num_stale"),
    *("mean_pct", "median_pct", "sd_pct", "low_pct", "high_pct"),
    *("diverged_share", "diverged_low_share", "diverged_high_share"),
    *("failed_share", "failed_low_share", "failed_high_share"),
    *("success_n", "success_mean_pct", "success_low_pct", "success_high_pct"),
    *COMPARED,
)


def summarise(
    cells: pd.DataFrame, reference: str | None, *, margin_pct: float = MARGIN_PCT, level: float = 0.95
) -> pd.DataFrame:
    """Return the main table: one row per condition and arm, with the paired comparison to the reference.

    Args:
        cells: one row per cell.
        reference: the reference arm; None for no comparison.
        margin_pct: margin of equivalence with the reference, in points, > 0.
        level: confidence level of every interval, in (0, 1).

    Returns:
        Conditions in the order of their cells, arms in registry order; scores and differences in points, NaN if
        missing. `n` counts cells with a score. `diverged_share` is relative to the cells that did not fail,
        `failed_share` to all cells, both with Wilson bounds. A mean with chance scores has no t interval, which would
        undercover. `success_n`, `success_mean_pct` and its bounds cover cells with outcome ok. The comparison with the
        reference has the columns of `ablations.analysis.compare`; they are empty in the reference's own row.

    Raises:
        ValueError: two cells have the same condition, arm and seed.

    >>> columns = {"condition": "", "seed": [0, 0, 1, 1], "outcome": "ok", "kind": "", "stale": False}
    >>> cells = pd.DataFrame({"arm": ["xnorm", "l2"] * 2, "score_pct": [61.0, 60.5, 62.0, 60.0], **columns})
    >>> cells = cells.assign(arm_label=cells["arm"], arm_order=[0, 1] * 2)
    >>> summarise(cells, "xnorm")[["arm", "n", "mean_pct", "difference_pct", "p"]].values.tolist()
    [['xnorm', 2, 61.5, nan, nan], ['l2', 2, 60.25, -1.25, 0.5]]
    """
    compared = compare(cells, with_reference(cells, reference), margin_pct=margin_pct, level=level)
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for row in compared.to_dict("records"):
        rows[row["condition"], row["comparison"]] = {str(name): value for name, value in row.items()}
    places = np.lexsort((cells["arm_order"], pd.factorize(cells["condition"])[0]))
    table = []
    for (condition, arm), own in cells.iloc[places].groupby(["condition", "arm"], sort=False):
        comparison = rows.get((str(condition), f"{arm} - {reference}"), {})
        no_pair = {name: 0 if name in COUNTS else False if name in FLAGS else math.nan for name in COMPARED}
        if reference is not None and arm != reference and not comparison:  # the condition has no cell of the reference
            no_pair["num_pairs_left_out"] = own["seed"].nunique()
        is_reference = {"is_reference": arm == reference}
        table.append({**_arm_columns(own, level), **is_reference, **no_pair, **comparison})
    return pd.DataFrame(table, columns=list(TABLE))


def _arm_columns(own: pd.DataFrame, level: float) -> dict[str, object]:
    """Return the table's columns for one arm in one condition, without its comparison."""
    scores = own["score_pct"].dropna()
    successes = own.loc[own["outcome"] == "ok", "score_pct"].dropna()
    num_diverged, num_failed = (int((own["outcome"] == outcome).sum()) for outcome in ("diverged", "failed"))
    diverged_low, diverged_high = wilson_interval(num_diverged, len(own) - num_failed, level)
    failed_low, failed_high = wilson_interval(num_failed, len(own), level)
    has_chance = own["kind"].isin(CHANCE_KINDS).any()
    low, high = (math.nan, math.nan) if has_chance else t_interval(scores, level)
    success_low, success_high = t_interval(successes, level)
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
        "failed_share": num_failed / len(own),
        "failed_low_share": failed_low,
        "failed_high_share": failed_high,
        "success_n": len(successes),
        "success_mean_pct": successes.mean(),
        "success_low_pct": success_low,
        "success_high_pct": success_high,
    }
