"""Probes of single training steps, summarised over seeds or layers."""

from __future__ import annotations

import numpy as np
import pandas as pd

KEYS = ["condition", "arm", "arm_label", "arm_order", "probe"]


def step_means(steps: pd.DataFrame) -> pd.DataFrame:
    """Return each arm's geometric mean over its seeds, per layer and step.

    Failed cells are left out, and so is the loss, which has no layer.

    Args:
        steps: rows of `Frames.steps`.

    Returns:
        One row per condition, arm, probe, and layer and step that any arm of the condition has. `value`: mean of the
        seeds that recorded it, inf if one is not finite or has diverged before, 0 if one is 0, NaN if there is none;
        `num_seeds`, `num_diverged`: numbers of the arm; `least`, `largest`: range of the positive finite values of all
        arms of the condition and probe, NaN if there are none.
    """
    own = steps[(steps["layer"] != "") & (steps["outcome"] != "failed")]
    value = own["value"].where(np.isfinite(own["value"]) & (own["value"] >= 0), np.inf)
    parts = []
    for _, rows in own.assign(value=value).groupby(["condition", "probe"], sort=False):
        layers = rows.drop_duplicates("layer").sort_values("layer_order").set_index("layer")["layer_order"]
        places = pd.MultiIndex.from_product([layers.index, np.sort(rows["step"].unique())], names=["layer", "step"])
        means = pd.concat([_arm_means(arm, places) for _, arm in rows.groupby("arm", sort=False)], ignore_index=True)
        shown = means["value"][np.isfinite(means["value"]) & (means["value"] > 0)]
        order = means["layer"].map(layers)
        parts.append(means.assign(layer_order=order, least=shown.min(), largest=shown.max()))
    columns = [*KEYS, "layer", "layer_order", "step", "value", "num_seeds", "num_diverged", "least", "largest"]
    return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)


def largest_over_layers(steps: pd.DataFrame) -> pd.DataFrame:
    """Return the row of the layer with the largest value of each cell, step and probe; one not finite is the largest.

    Args:
        steps: rows of `Frames.steps`.

    >>> steps = pd.DataFrame({"cell": "a", "step": 1, "probe": "p", "layer": ["x", "y"], "value": [2.0, float("nan")]})
    >>> largest_over_layers(steps)[["layer", "value"]].to_dict("records")
    [{'layer': 'y', 'value': inf}]
    """
    ranked = steps.assign(value=steps["value"].where(np.isfinite(steps["value"]), np.inf))
    ranked = ranked.sort_values("value", kind="stable")
    return ranked.drop_duplicates(["cell", "step", "probe"], keep="last").sort_index()


def _arm_means(rows: pd.DataFrame, places: pd.MultiIndex) -> pd.DataFrame:
    """Return the means of one arm's values of one probe at layers and steps."""
    values = rows.pivot(index=["layer", "step"], columns="cell", values="value").reindex(places)
    cells = rows.groupby("cell").agg(last=("step", "max"), outcome=("outcome", "first"))
    is_diverged = cells["outcome"] == "diverged"
    for cell in cells.index[is_diverged]:
        is_over = places.get_level_values("step") > cells.loc[cell, "last"]
        values.loc[is_over, cell] = np.inf
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = pd.DataFrame(np.log(values.to_numpy(np.float64)), index=values.index)
        means = pd.Series(np.exp(logs.mean(axis="columns")), index=values.index)
    means = means.mask((values == np.inf).any(axis="columns"), np.inf)
    first = rows.iloc[0]
    return (
        means.rename("value")
        .reset_index()
        .assign(**{key: first[key] for key in KEYS}, num_seeds=len(cells), num_diverged=int(is_diverged.sum()))
    )
