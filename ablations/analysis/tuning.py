"""Statistics of a tuning's trials: each arm's best trial, its reliability and its sensitivity to the searched fields.

A frame `trials` has one row per finished trial: `condition`, `arm`, `arm_label`, `arm_order`, `seed`, `outcome`,
`score_pct`, `val_loss`, `epochs_run`, `seconds`, and each searched field. `seed` identifies a trial within its arm;
arms at the same point share it. `score_pct` is validation accuracy: chance if a diverged trial has none, NaN if the
trial failed. ``<field>_place`` is the value's position in the range, from 0 (low end) to 1 (high end), on the range's
scale.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ablations.analysis.inference import wilson_interval

EDGE = 0.1
"""Outer share of a range, at either end, in which a best value raises an alarm: a better one may lie beyond."""

TUNED = (
    *("condition", "arm", "arm_label", "arm_order", "num_trials", "num_diverged", "num_failed"),
    *("diverged_share", "diverged_low_share", "diverged_high_share"),
    *("best_seed", "best_pct", "median_pct", "expected_half_pct", "seconds", "edges"),
)
"""Columns of `tuned` before those of the searched fields."""

STABLE_OVER = ("lr",)
"""Fields that cause divergence, so their widest stable range is meaningful even if other fields are searched too."""

SHORTFALL_PCT = 5.0
"""Points by which a winner's seeds may fall short of its trial before an alarm is raised."""

BY_ARM = ["condition", "arm"]


def winners(trials: pd.DataFrame) -> pd.DataFrame:
    """Return each arm's best trial: the one with the highest validation accuracy among those with outcome ok.

    Ties go to the lower validation loss, then to the earlier trial. If every trial diverged, it is the one with the
    highest score, then the longest training. Failed trials are ignored.

    Args:
        trials: one row per trial.

    Returns:
        Rows of `trials` in their order, one per condition and arm with a result.
    """
    ended = trials[trials["outcome"].isin(["ok", "diverged"])]
    ranked = ended.assign(
        _ok=ended["outcome"] == "ok",
        _score=ended["score_pct"].astype(np.float64),
        _loss=pd.to_numeric(ended["val_loss"]).astype(np.float64).fillna(np.inf),
        _epochs=ended["epochs_run"].where(ended["outcome"] != "ok", 0),
    ).sort_values(
        ["_ok", "_score", "_epochs", "_loss", "seed"], ascending=[False, False, False, True, True], kind="stable"
    )
    best = ranked.drop_duplicates(BY_ARM).index
    return trials.loc[[index for index in trials.index if index in set(best)]].reset_index(drop=True)


def tuned(trials: pd.DataFrame, fields: Sequence[str]) -> pd.DataFrame:
    """Summarise the trials of each arm.

    Args:
        trials: one row per trial.
        fields: searched fields.

    Returns:
        One row per condition and arm: counts; `diverged_share` of the trials that did not fail, with Wilson bounds; the
        best trial's `best_seed`, `best_pct` and value of each field; `median_pct` of all; `expected_half_pct`, the
        expected best of half the trials (`expected_best`); the total `seconds`; `edges`, the fields whose best value
        lies in the outer tenth of the range or is the outermost value tried, with the end (``lr high``); and for each
        field `<field>_sensitivity_pct`, `<field>_stable_low` and `<field>_stable_high` (`stable_range`).
    """
    best = winners(trials).set_index(BY_ARM)
    rows = []
    for key, own in trials.groupby(BY_ARM, sort=False):
        num_diverged, num_failed = (int((own["outcome"] == outcome).sum()) for outcome in ("diverged", "failed"))
        n = len(own) - num_failed
        low, high = wilson_interval(num_diverged, n)
        row: dict[str, Any] = {
            **{name: own[name].iloc[0] for name in ("condition", "arm", "arm_label", "arm_order")},
            "num_trials": len(own),
            "num_diverged": num_diverged,
            "num_failed": num_failed,
            "diverged_share": num_diverged / n if n else math.nan,
            "diverged_low_share": low,
            "diverged_high_share": high,
            "median_pct": own["score_pct"].median() if n else math.nan,
            "seconds": own["seconds"].sum(),
            "edges": "",
        }
        if key in best.index:
            won = best.loc[[key]].iloc[0]
            expected = expected_best(own)["expected_pct"]
            row |= {"best_seed": won["seed"], "best_pct": won["score_pct"], **{field: won[field] for field in fields}}
            row["expected_half_pct"] = expected.iloc[max(0, len(expected) // 2 - 1)]
            row["edges"] = ", ".join(filter(None, (_edge(own, won, field) for field in fields)))
        for field in fields:
            bounds = stable_range(own, field)
            row |= {f"{field}_stable_low": bounds[0], f"{field}_stable_high": bounds[1]}
            row[f"{field}_sensitivity_pct"] = sensitivity_pct(own, field)
        rows.append(row)
    added = [f"{field}_{name}" for field in fields for name in ("sensitivity_pct", "stable_low", "stable_high")]
    return pd.DataFrame(rows, columns=[*TUNED, *fields, *added])


def confirmed(table: pd.DataFrame, cells: pd.DataFrame) -> pd.DataFrame:
    """Add each winner's validation accuracy over its own seeds to the table.

    The best of many trials is biased upwards, because it is selected by its score at one seed.

    Args:
        table: table from `tuned`.
        cells: the winners' cells, one row each: `condition`, `arm`, `outcome`, `val_score_pct`, `chance_pct`.

    Returns:
        The table with `confirmed_pct`, the mean validation accuracy over seeds (chance for a diverged cell without
        one), and `is_short`, whether that lies more than `SHORTFALL_PCT` below the trial's.
    """
    scores, chance = (cells[name].astype(np.float64) for name in ("val_score_pct", "chance_pct"))
    scores = scores.where(scores.notna() | (cells["outcome"] != "diverged"), chance)
    means = cells.assign(confirmed_pct=scores).groupby("arm", sort=False)["confirmed_pct"].mean()
    joined = table.assign(confirmed_pct=table["arm"].map(means).astype(np.float64))
    shortfall = joined["best_pct"].astype(np.float64) - joined["confirmed_pct"]
    return joined.assign(is_short=shortfall > SHORTFALL_PCT)


def expected_best(trials: pd.DataFrame) -> pd.DataFrame:
    """Estimate the expected best validation accuracy of k trials, for k from 1 to the number of trials.

    The estimator is the mean of the best over all subsets of k of the n trials, which is unbiased: R. Tang et al.,
    "Showing your work doesn't always work" (ACL 2020, arXiv 2004.13705), correcting J. Dodge et al., "Show your work"
    (EMNLP 2019, arXiv 1909.03004). It assumes independent draws: it is biased low for a Sobol sequence, whose points
    are spread evenly, and meaningless for points that depend on earlier results.

    Args:
        trials: one row per trial; failed trials are left out.

    Returns:
        One row per condition, arm and k: `condition`, `arm`, `arm_label`, `arm_order`, `k` and `expected_pct`.

    >>> columns = {"condition": "", "arm": "l2", "arm_label": "l2", "arm_order": 0}
    >>> expected_best(pd.DataFrame({"score_pct": [10.0, 20.0, 60.0], **columns}))["expected_pct"].round(2).tolist()
    [30.0, 46.67, 60.0]
    """
    rows = []
    for _, own in trials.dropna(subset="score_pct").groupby(BY_ARM, sort=False):
        scores, n = np.sort(own["score_pct"].to_numpy(np.float64)), len(own)
        arm = {name: own[name].iloc[0] for name in ("condition", "arm", "arm_label", "arm_order")}
        for k in range(1, n + 1):
            weights = [math.comb(i, k - 1) / math.comb(n, k) for i in range(n)]
            rows.append({**arm, "k": k, "expected_pct": float(scores @ np.array(weights))})
    return pd.DataFrame(rows, columns=["condition", "arm", "arm_label", "arm_order", "k", "expected_pct"])


def profile(trials: pd.DataFrame, field: str) -> pd.DataFrame:
    """Return the best score within each part of a range: a curve over one field, maximised over the others.

    The parts have equal width on the range's scale. Their number is about that of the trials per part: 4 for 8 and 16
    trials, 8 for 32 and 64. A Sobol sequence fills them evenly.

    Args:
        trials: one row per trial.
        field: a searched field.

    Returns:
        One row per condition, arm and part with a result: `condition`, `arm`, `arm_label`, `arm_order`, `part`, and the
        `place`, `value` of the field and `score_pct` of the part's best trial.
    """
    rows = []
    for _, own in trials.dropna(subset="score_pct").groupby(BY_ARM, sort=False):
        for part, inside in own.groupby(_parts(own, field)):
            best = inside.iloc[int(inside["score_pct"].to_numpy(np.float64).argmax())]
            arm = {name: best[name] for name in ("condition", "arm", "arm_label", "arm_order")}
            place, value = best[f"{field}_place"], best[field]
            rows.append({**arm, "part": part, "place": place, "value": value, "score_pct": best["score_pct"]})
    columns = ["condition", "arm", "arm_label", "arm_order", "part", "place", "value", "score_pct"]
    return pd.DataFrame(rows, columns=columns)


def sensitivity_pct(own: pd.DataFrame, field: str) -> float:
    """Return the mean shortfall of an arm's score from its best, over the range of a field.

    It is the best score minus the mean over the parts of `profile`: 0 if all parts are equally good with the other
    fields tuned. After the learning-rate sensitivity of M. Wortsman et al., "Small-scale proxies for large-scale
    Transformer training instabilities" (arXiv 2309.14322), which is a difference of losses.

    Args:
        own: trials of one arm.
        field: a searched field.

    Returns:
        Shortfall in points of validation accuracy, >= 0; NaN without a result.
    """
    curve = profile(own, field)["score_pct"].astype(np.float64)
    return float(curve.max() - curve.mean()) if len(curve) else math.nan


def stable_range(own: pd.DataFrame, field: str) -> tuple[float, float]:
    """Return the widest range of a field without a diverged trial.

    It spans the widest run of neighbouring trials with outcome ok. The gap to the next diverged trial is unknown and
    not included.

    Args:
        own: trials of one arm; failed trials are left out.
        field: a searched field.

    Returns:
        Smallest and largest value of the range; NaN if no trial has outcome ok.
    """
    ended = own[own["outcome"] != "failed"].sort_values(f"{field}_place", kind="stable")
    is_ok = (ended["outcome"] == "ok").to_numpy()
    runs = ended[is_ok].groupby(np.cumsum(~is_ok)[is_ok])[[field, f"{field}_place"]].agg(["min", "max"])
    if runs.empty:
        return math.nan, math.nan
    places = runs[f"{field}_place"]
    widest = runs[field].iloc[int((places["max"] - places["min"]).to_numpy().argmax())]
    return float(widest["min"]), float(widest["max"])


def _parts(own: pd.DataFrame, field: str) -> npt.NDArray[np.int64]:
    num_parts = 2 ** ((int(math.log2(max(1, len(own)))) + 1) // 2)
    return np.minimum((own[f"{field}_place"].to_numpy(np.float64) * num_parts).astype(np.int64), num_parts - 1)


def _edge(own: pd.DataFrame, won: pd.Series[Any], field: str) -> str:
    """Return the field and the end of its range at which the best value lies; empty if at neither."""
    places, place = own[f"{field}_place"], won[f"{field}_place"]
    if place >= 1 - EDGE or (place == places.max() and len(own) > 1):
        return f"{field} high"
    return f"{field} low" if place <= EDGE or (place == places.min() and len(own) > 1) else ""
