"""What is in a study folder as tidy DataFrames."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from ablations.store.records import CellRecord, Store, unreadable
from ablations.study import Study
from ablations.study.grid import arm_name
from ufo.norms import NORMS

SCORED_AS_CHANCE = ("nan", "exploded")
"""Kinds of divergence that have no accuracy of their own."""

CURVE_METRICS = {
    "train_loss": ("train", "loss"),
    "val_loss": ("val", "loss"),
    "val_accuracy_pct": ("val", "accuracy_pct"),
}
"""Column of metrics.csv to split and metric of curves.csv."""


def read_frames(store: Store, *, sources: Mapping[str, str] | None) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the finished cells and their curves, tidy, with label, order and condition of each arm.

    Args:
        store: the study's folder.
        sources: hash of the sources as they are, by normaliser; cells from others are stale. None: not looked at.

    Returns:
        One row per cell; one row per cell, epoch, split and metric.
    """
    study = store.read_study()
    records = [record for record in store.records().values() if study.has(record.config)]
    cells = pd.DataFrame([_cell_row(record, study, sources) for record in records], columns=_columns(study))
    place = {name: i for i, name in enumerate(study.condition_names)}
    cells = cells.sort_values(
        ["condition", "arm_order", "seed"],
        key=lambda column: column.map(place) if column.name == "condition" else column,
        ignore_index=True,
    )
    curves = [_curves(record) for record in records]
    keys = cells[["cell", "arm", "arm_label", "arm_order", "condition", "seed", "outcome", "kind"]]
    columns = ["cell", "epoch", "split", "metric", "value"]
    tidy = pd.concat(curves, ignore_index=True) if curves else pd.DataFrame(columns=columns)
    return cells, keys.merge(tidy, on="cell", validate="one_to_many")


def arm_columns(value: Any, study: Study) -> dict[str, Any]:
    """Return an arm's name, label, group and order: its place in the registry, or on the axis for another field."""
    name = arm_name(value)
    if study.compare == "norm" and name in NORMS:
        spec = NORMS[name]
        return {"arm": name, "arm_label": spec.label, "arm_group": spec.group, "arm_order": list(NORMS).index(name)}
    place = study.arms.index(value) + (len(NORMS) if study.compare == "norm" else 0)
    return {"arm": name, "arm_label": name, "arm_group": "", "arm_order": place}


def _columns(study: Study) -> list[str]:
    arm = ["arm", "arm_label", "arm_group", "arm_order"]
    result = ["outcome", "kind", "test_accuracy_pct", "test_loss", "score_pct", "chance_pct", "stale"]
    paired = ["init_hash", "split_hash", "batches", "epochs_run"]
    where = ["device", "torch", "seconds", "peak_memory_mib", "num_parameters"]
    return ["cell", *arm, "condition", *study.axes, *result, *paired, *where]


def _cell_row(record: CellRecord, study: Study, sources: Mapping[str, str] | None) -> dict[str, Any]:
    outcome, config = record.outcome, record.config
    measured = outcome["test_accuracy_pct"]
    score = outcome["chance_pct"] if outcome["kind"] in SCORED_AS_CHANCE else measured
    return {
        **{field: getattr(config, field) for field in study.axes},
        **arm_columns(getattr(config, study.compare), study),
        **{key: outcome[key] for key in _columns(study) if key in outcome},
        "batches": " ".join(outcome["epoch_hashes"]),
        "cell": config.id,
        "condition": study.condition_of(config),
        "score_pct": None if outcome["outcome"] == "failed" else score,
        "stale": sources is not None and outcome["source_hash"] != sources[config.norm],
        "torch": outcome["versions"]["torch"],
    }


def _curves(record: CellRecord) -> pd.DataFrame:
    """Return a cell's curves; one that ended before its first epoch did has that epoch without values."""
    path = record.folder / "metrics.csv"
    no_epoch = pd.DataFrame({"epoch": [1], **dict.fromkeys(CURVE_METRICS, np.nan)})
    try:
        wide = pd.read_csv(path) if record.outcome["epochs_run"] else no_epoch
        long = wide.melt("epoch", list(CURVE_METRICS), "column")
    except (OSError, ValueError, KeyError) as error:
        raise unreadable(record.folder, f"metrics.csv: {error}") from error
    long["cell"] = record.config.id
    long["split"] = long["column"].map(lambda column: CURVE_METRICS[column][0])
    long["metric"] = long["column"].map(lambda column: CURVE_METRICS[column][1])
    return long[["cell", "epoch", "split", "metric", "value"]]
