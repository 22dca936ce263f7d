"""Figures over the settings of a study: failure map, frontier over depth, and own beside matched scale."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import numpy as np
import pandas as pd

from ablations.analysis import MARGIN_PCT
from ablations.analysis.results import Results
from ablations.config import Study
from ablations.config.study import point_name
from ablations.figures.failure_map import HEADER
from ablations.figures.scale import SCALES
from ablations.report.kinds import FigureSpec

LIMITS = 0.05, 0.6
"""Least and largest end of the failure map's colour scale, in nats: between them, it is the largest finite loss."""


def map_figures(results: Results) -> Iterator[FigureSpec]:
    """Yield the figures of each study that has their axes: learning rate, learning rate and depth, or scale.

    Args:
        results: results of studies, not of a tuning.
    """
    for study in results.studies:
        fields = list(study.conditions)
        if "lr" in fields:
            points = _with_points(results.failure_map, results, study)
            several = points.groupby("setting")["lr"].transform("nunique") > 1
            yield from _maps(points[several], [field for field in fields if field != "lr"], results, study)
            if "depth" in fields:
                yield from _frontiers(points[several], fields, results, study)
        if "scale" in fields:
            yield from _scales([field for field in fields if field != "scale"], results, study)


def _with_points(frame: pd.DataFrame, results: Results, study: Study) -> pd.DataFrame:
    """Return a study's rows of a frame with conditions, and the values of each condition as the column `point`."""
    own = results.of_study(frame, study)
    points = dict(zip(study.condition_names, study.points_on(study.conditions), strict=True))
    names = own["condition"].str.removeprefix(f"study={study.name}, ") if len(results.studies) > 1 else own["condition"]
    return own.assign(point=names.map(points))


def _stratum(results: Results, study: Study) -> str:
    """Return the name of the condition of a figure of a whole study."""
    return f"study={study.name}" if len(results.studies) > 1 else ""


def _named(points: pd.Series[Any], fields: Collection[str]) -> list[str]:
    return [point_name(point, fields) for point in points]


def _maps(points: pd.DataFrame, fields: list[str], results: Results, study: Study) -> Iterator[FigureSpec]:
    """Yield the failure map, one panel per arm: a row per depth, or per value of the last field, grouped by the others.

    All panels have the same rows and columns; a point without a result has `n` = 0.
    """
    if points.empty:
        return
    row = "depth" if "depth" in fields else fields[-1] if fields else ""
    groups = _named(points["point"], [field for field in fields if field != row])
    points = points.assign(group=groups, setting=_named(points["point"], [row] if row else []))
    rows = points[["group", "setting"]].drop_duplicates()
    rows = rows.iloc[np.argsort(pd.factorize(rows["group"])[0], kind="stable")]
    places = rows.merge(pd.Series(np.sort(points["lr"].unique()), name="lr"), how="cross")
    losses = points["excess_loss"].astype(np.float64)
    limit = float(np.clip(losses[np.isfinite(losses)].max(), *LIMITS)) if np.isfinite(losses).any() else LIMITS[1]
    num_rows = len(rows) + HEADER * len(set(rows["group"]) - {""})
    columns = ["group", "setting", "lr", "n", "num_learned", "share", "excess_loss"]
    for _, own in points.groupby(["arm_order", "arm"]):
        names = {name: own[name].iloc[0] for name in ("arm", "arm_label", "arm_order")}
        frame = places.merge(own[columns], on=["group", "setting", "lr"], how="left").fillna({"n": 0})
        frame = frame.assign(condition=_stratum(results, study), limit=limit, **names)
        title, panel = "where each arm learns", str(names["arm_label"])
        yield FigureSpec("failure_map", "", _stratum(results, study), title, frame, num_rows, panel=panel)


def _frontiers(points: pd.DataFrame, fields: list[str], results: Results, study: Study) -> Iterator[FigureSpec]:
    """Yield the frontier over the depth, one panel per combination of the other axes with several depths."""
    others = [field for field in fields if field not in ("lr", "depth")]
    at = points.drop_duplicates("setting").set_index("setting")["point"]
    table = results.frontier[results.frontier["setting"].isin(at.index)]
    own = table.assign(condition=_stratum(results, study), point=table["setting"].map(at))
    own = own.assign(depth=[point["depth"] for point in own["point"]], panel=_named(own["point"], others))
    for panel, frame in own.dropna(subset="depth").groupby("panel", sort=False):
        if frame["depth"].nunique() > 1:
            title = "largest learning rate at which each arm learns, over the depth"
            shown = frame.drop(columns="point").reset_index(drop=True)
            yield FigureSpec("frontier", "", _stratum(results, study), title, shown, panel=str(panel))


def _scales(others: list[str], results: Results, study: Study) -> Iterator[FigureSpec]:
    """Yield the differences at own and at matched scale, one figure per combination of the other axes."""
    pairs = _with_points(results.paired(), results, study)
    names = [", ".join(filter(None, [_stratum(results, study), name])) for name in _named(pairs["point"], others)]
    margins = {claim.arm: claim.margin_pct for claim in study.claims if claim.kind == "explained_by_scale"}
    pairs = pairs.assign(condition=names, scale=[point["scale"] for point in pairs["point"]], arm_label=pairs["label"])
    pairs["margin_pct"] = [margins.get(arm, MARGIN_PCT) for arm in pairs["arm"]]
    for condition, own in pairs.groupby("condition", sort=False):
        if set(own["scale"]) == set(SCALES):
            title, shown = "differences at own and at matched scale", own.drop(columns="point").reset_index(drop=True)
            yield FigureSpec("scale_difference", "", str(condition), title, shown, 2 * own["arm"].nunique())
