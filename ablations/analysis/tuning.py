"""What the trials of a tuning say: each arm's best, how sure that is, how much it depends on the point.

A frame `trials` has one row per trial that has ended: `condition`, `arm`, `arm_label`, `arm_order`, `seed`, which tells
the trials of an arm apart and is the same for the arms at the same point, `outcome`, `score_pct` (validation accuracy;
chance where it diverged and has none; NaN where it failed), `val_loss`, `epochs_run`, `seconds`; and for each searched
field its value, and in ``<field>_place`` where that lies in the range: 0 at the low end, 1 at the high one, on the
range's own scale.
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
"""Share of a range at either end within which a best value raises an alarm: a better one may lie beyond."""

TUNED = (
    *("condition", "arm", "arm_label", "arm_order", "num_trials", "num_diverged", "num_failed"),
    *("diverged_share", "diverged_low_share", "diverged_high_share"),
    *("best_seed", "best_pct", "median_pct", "expected_half_pct", "seconds", "edges"),
)
"""Columns of `tuned`, before those of the searched fields."""

STABLE_OVER = ("lr",)
"""Fields whose widest range without divergence means something beside others that are searched: those that cause it."""

SHORTFALL_PCT = 5.0
"""Points by which a winner's seeds may fall short of its trial before that raises an alarm."""

BY_ARM = ["condition", "arm"]


def winners(trials: pd.DataFrame) -> pd.DataFrame:
    """Return the best trial of each arm: of those that ended ok the one of the highest validation accuracy.

    Among equals it is the one of the lower validation loss, then the earlier. Where every trial diverged it is the one
    of the highest score, then the one that trained longest. Trials that failed are no results.

    Args:
        trials: one row per trial.

    Returns:
        Rows of `trials`, one per condition and arm that has a result, in their order.
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
        fields: that were searched.

    Returns:
        One row per condition and arm: counts; `diverged_share`, of the trials that did not fail, with Wilson bounds;
        the best trial's `best_seed`, `best_pct` and value of each field; `median_pct` of all; `expected_half_pct`, the
        expected best of half as many trials (`expected_best`); `seconds` of all; `edges`, the fields whose best value
        lies in the outer tenth of their range, or is the outermost that was tried, with the end: ``lr high``. And for
        each field `<field>_sensitivity_pct`, and `<field>_stable_low` and `<field>_stable_high` (`stable_range`).
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
    measures = ("sensitivity_pct", "stable_low", "stable_high")
    columns = [*TUNED, *fields, *(f"{field}_{what}" for field in fields for what in measures)]
    return pd.DataFrame(rows, columns=columns)


def confirmed(table: pd.DataFrame, cells: pd.DataFrame) -> pd.DataFrame:
    """Set what each winner came to on its own seeds beside what it had in its trial.

    The best of many trials flatters an arm: it was chosen for its score, at one seed.

    Args:
        table: from `tuned`.
        cells: of the winners, one row per cell: `condition`, `arm`, `outcome`, `val_score_pct`, `chance_pct`.

    Returns:
        The table with `confirmed_pct`, the mean validation accuracy over the seeds, where a cell that diverged without
        one has chance; and `is_short`, whether it lies more than `SHORTFALL_PCT` below the trial's.
    """
    scores = (
        cells["val_score_pct"]
        .astype(np.float64)
        .where(
            cells["val_score_pct"].notna() | (cells["outcome"] != "diverged"), cells["chance_pct"].astype(np.float64)
        )
    )
    means = cells.assign(confirmed_pct=scores).groupby("arm", sort=False)["confirmed_pct"].mean()
    joined = table.assign(confirmed_pct=table["arm"].map(means).astype(np.float64))
    shortfall = joined["best_pct"].astype(np.float64) - joined["confirmed_pct"]
    return joined.assign(is_short=shortfall > SHORTFALL_PCT)


def expected_best(trials: pd.DataFrame) -> pd.DataFrame:
    """Estimate the best validation accuracy to be expected of k trials, for every k up to those that there are.

    The estimator is the unbiased one: the mean of the best over all subsets of k of the n trials. R. Tang et al.,
    "Showing your work doesn't always work" (ACL 2020, arXiv 2004.13705), which corrects that of J. Dodge et al., "Show
    your work" (EMNLP 2019, arXiv 1909.03004). It takes trials for independent draws: for a Sobol sequence, whose points
    keep apart, it is on the low side, and for points that follow from results it has no meaning.

    Args:
        trials: one row per trial; those that failed are left out.

    Returns:
        `condition`, `arm`, `arm_label`, `arm_order`, `k` and `expected_pct`.

    >>> columns = {"condition": "", "arm": "l2", "arm_label": "l2", "arm_order": 0}
    >>> expected_best(pd.DataFrame({"score_pct": [10.0, 20.0, 60.0], **columns}))["expected_pct"].round(2).tolist()
    [30.0, 46.67, 60.0]
    """
    rows = []
    for _, own in trials.dropna(subset="score_pct").groupby(BY_ARM, sort=False):
        scores = np.sort(own["score_pct"].to_numpy(np.float64))
        n = len(scores)
        arm = {name: own[name].iloc[0] for name in ("condition", "arm", "arm_label", "arm_order")}
        for k in range(1, n + 1):
            weights = [math.comb(i, k - 1) / math.comb(n, k) for i in range(n)]
            rows.append({**arm, "k": k, "expected_pct": float(scores @ np.array(weights))})
    return pd.DataFrame(rows, columns=["condition", "arm", "arm_label", "arm_order", "k", "expected_pct"])


def profile(trials: pd.DataFrame, field: str) -> pd.DataFrame:
    """Return the best score within each part of a range: the curve over one field, at the best of the others.

    The parts are of equal width on the range's scale, about as many as there are trials in each: 4 for 8 trials and for
    16, 8 for 32 and for 64. A Sobol sequence fills them evenly.

    Args:
        trials: one row per trial.
        field: that was searched.

    Returns:
        One row per condition, arm and part that has a result: `condition`, `arm`, `arm_label`, `arm_order`, `part`,
        `place` and `score_pct` of its best trial, and that trial's value of the field in `value`.
    """
    rows = []
    for _, own in trials.dropna(subset="score_pct").groupby(BY_ARM, sort=False):
        parts = _parts(own, field)
        for part, inside in own.groupby(parts):
            best = inside.iloc[int(inside["score_pct"].to_numpy(np.float64).argmax())]
            arm = {name: best[name] for name in ("condition", "arm", "arm_label", "arm_order")}
            place, value = best[f"{field}_place"], best[field]
            rows.append({**arm, "part": part, "place": place, "value": value, "score_pct": best["score_pct"]})
    columns = ["condition", "arm", "arm_label", "arm_order", "part", "place", "value", "score_pct"]
    return pd.DataFrame(rows, columns=columns)


def sensitivity_pct(own: pd.DataFrame, field: str) -> float:
    """Return how far an arm's score falls short of its best, on average over the range of a field.

    The mean over the parts of `profile` of the best of all less the best of the part: 0 where every part of the range
    is as good, and the others are tuned. After the learning-rate sensitivity of M. Wortsman et al., "Small-scale
    proxies for large-scale Transformer training instabilities" (arXiv 2309.14322), there a difference of losses.

    Args:
        own: trials of one arm.
        field: that was searched.

    Returns:
        Points of validation accuracy; NaN without a result.
    """
    curve = profile(own, field)["score_pct"].astype(np.float64)
    return float(curve.max() - curve.mean()) if len(curve) else math.nan


def stable_range(own: pd.DataFrame, field: str) -> tuple[float, float]:
    """Return the widest range of a field without a trial that diverged.

    It reaches from the first to the last of the most widely spread neighbours that all ended ok: what lies between them
    and the next that diverged is not known, and not counted.

    Args:
        own: trials of one arm; those that failed are left out.
        field: that was searched.

    Returns:
        The smallest and the largest value in it; NaN where no trial ended ok.
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
    """Say at which end of a range the best value lies; empty where at none."""
    places, place = own[f"{field}_place"], won[f"{field}_place"]
    if place >= 1 - EDGE or (place == places.max() and len(own) > 1):
        return f"{field} high"
    return f"{field} low" if place <= EDGE or (place == places.min() and len(own) > 1) else ""
