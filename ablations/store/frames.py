"""Read a study folder into tidy DataFrames, and report what cannot be read."""

from __future__ import annotations

import io
import itertools
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ablations.config import CellConfig, Study
from ablations.config.nets import is_foreign
from ablations.config.numerics import recorded_numerics
from ablations.config.task import AVERAGE_PRECISIONS, METRICS, score_column
from ablations.config.types import Task
from ablations.config.values import value_name
from ablations.store.objects import read_examples, read_precision
from ablations.store.records import CellRecord, Store
from ablations.store.tidy_csv import unguarded
from ufo.norms import NORMS

SCORED_AS_CHANCE = ("nan", "exploded")
"""Kinds of divergence that are scored at chance level."""

CURVE_METRICS: Mapping[Task, tuple[tuple[str, str], ...]] = {
    "classify": (("train", "loss"), ("val", "loss"), ("val", "accuracy_pct")),
    "detect": (("train", "loss"), ("val", "box_ap_pct"), ("val", "mask_ap_pct")),
}
"""Split and metric in curves.csv, by task; together they name a column of metrics.csv."""

KEYS = ("cell", "arm", "arm_label", "arm_order", "condition", "seed", "outcome", "kind", "measure")
"""Columns of a cell that its curves and probes repeat."""

COSTS = ("condition", "arm", "quantity", "tokens", "round", "value")
"""Columns of cost.csv."""


@dataclass(frozen=True, kw_only=True)
class Frames:
    """The results of a study as tidy DataFrames.

    Args:
        study: the study.
        configs: configurations of the finished cells, in the order of `cells`.
        cells: one row per finished cell; `score_pct` is its score, on validation for a trial, else test, in `measure`.
        curves: one row per cell, epoch, split and metric.
        probes: one row per cell, epoch, layer and probe; `layer_order` counts the layers from 0.
        correct: one row per tested cell: its keys, `stale`, and `correct`, a boolean array (images,).
        precision: for detectors, one row per tested cell, kind, IoU and recall; else empty.
        examples: for detectors, one row per detected or annotated (`is_truth`) object in a few test images of each
            arm's first seed; without objects, an image has one row without a category.
        costs: measurements of `bench cost`; empty if there are none.
        missing: `condition`, `arm`, `seed` of every cell of the study without a readable record.
        problems: one sentence for each file or part of a file that could not be read and is left out.
    """

    study: Study
    configs: tuple[CellConfig, ...]
    cells: pd.DataFrame
    curves: pd.DataFrame
    probes: pd.DataFrame
    correct: pd.DataFrame
    precision: pd.DataFrame
    examples: pd.DataFrame
    costs: pd.DataFrame
    missing: pd.DataFrame
    problems: tuple[str, ...]


def read_frames(store: Store, *, numerics: Mapping[str, str] | None) -> Frames:
    """Read a study's folder; damaged files are left out and reported in `Frames.problems`.

    Args:
        store: folder of the study.
        numerics: current numerics version by normaliser, by which cells are marked stale; None: no cell is stale.

    Raises:
        UsageError: there is no study, or its study.yaml cannot be read.
    """
    study = store.read_study()
    found, problems = store.read_records()
    records = [record for record in found.values() if study.has(record.config)]
    others = [record.folder.name for record in found.values() if not study.has(record.config)]
    problems += [f"{name}: not a cell of this study, left out" for name in others]
    cells = pd.DataFrame([_cell_row(record, study, numerics) for record in records], columns=_columns(study))
    place = {name: i for i, name in enumerate(study.condition_names)}
    expected = [record.folder / name for record in records if record.has_result for name in ("log.txt", "timing.csv")]
    problems += [f"{path.parent.name}: {path.name} is missing" for path in expected if not path.is_file()]
    cells = cells.sort_values(
        ["condition", "arm_order", "seed"],
        key=lambda column: column.map(place) if column.name == "condition" else column,
        ignore_index=True,
    )
    ordered = [found[cell] for cell in cells["cell"]]
    curves = _with_keys(cells, [_curves(record, problems) for record in ordered], ["epoch", "split", "metric", "value"])
    probes = _with_keys(cells, [_probes(record, problems) for record in ordered], ["epoch", "layer", "probe", "value"])
    layers = {layer: i for i, layer in enumerate(probes["layer"].unique())}
    tested = [(record.config.id, _correct(record, problems)) for record in ordered]
    correct = pd.DataFrame([pair for pair in tested if pair[1] is not None], columns=["cell", "correct"])
    return Frames(
        study=study,
        configs=tuple(record.config for record in ordered),
        cells=cells,
        curves=curves,
        probes=probes.assign(layer_order=probes["layer"].map(layers)),
        correct=cells[[*KEYS, "stale"]].merge(correct, on="cell", validate="one_to_one"),
        precision=read_precision(cells, ordered, problems),
        examples=read_examples(cells, ordered, problems),
        costs=_costs(store.folder / "cost.csv", study, problems),
        missing=_missing(study, cells),
        problems=tuple(problems),
    )


def arm_columns(value: Any, study: Study) -> dict[str, Any]:
    """Return an arm's name, label, group and order, which is its place in the registry or on the compared axis."""
    name = value_name(value)
    if study.compare == "norm" and name in NORMS:
        spec = NORMS[name]
        return {"arm": name, "arm_label": spec.label, "arm_group": spec.group, "arm_order": list(NORMS).index(name)}
    place = study.arms.index(value) + (len(NORMS) if study.compare == "norm" else 0)
    return {"arm": name, "arm_label": name, "arm_group": "", "arm_order": place}


def _columns(study: Study) -> list[str]:
    arm = ["arm", "arm_label", "arm_group", "arm_order"]
    scores = ["test_accuracy_pct", "test_loss", "val_accuracy_pct", "val_loss"]
    if study.task == "detect":
        scores += [f"test_{figure}" for figure in AVERAGE_PRECISIONS]
    scores += ["val_score_pct", "score_pct", "chance_pct", "measure"]
    result = ["outcome", "kind", "detail", *scores, "stale"]
    paired = ["init_hash", "split_hash", "batches", "epochs_run"]
    spent = ["seconds", "num_attempts", "attempts_seconds", "is_resumed", "peak_memory_mib", "num_parameters"]
    how = ["device", "cuda_settings", "stacked_seeds"]
    where = ["processor", "torch", "software", "revision", "started", "folder"]
    return ["cell", *arm, "condition", *study.axes, *study.searched, *result, *paired, *spent, *how, *where]


def _cell_row(record: CellRecord, study: Study, numerics: Mapping[str, str] | None) -> dict[str, Any]:
    outcome, config = record.outcome, record.config
    measured = outcome.get(score_column(config))
    score = outcome["chance_pct"] if outcome["kind"] in SCORED_AS_CHANCE else measured
    git = outcome.get("git") or {}
    versions = {name: version for name, version in outcome["versions"].items() if version is not None}
    return {
        **{field: config[field] for field in (*study.axes, *study.searched)},
        **arm_columns(config[study.compare], study),
        **{key: outcome[key] for key in _columns(study) if key in outcome},
        "batches": " ".join(outcome["epoch_hashes"]),
        "cell": config.id,
        "condition": study.condition_of(config),
        "measure": METRICS[config.task].name,
        "val_score_pct": outcome.get(METRICS[config.task].columns[1]),
        "score_pct": None if outcome["outcome"] == "failed" else score,
        "stale": numerics is not None and recorded_numerics(outcome) != numerics[config.net.norm],
        "num_attempts": 1 + len(outcome["attempts"]),
        "attempts_seconds": sum(attempt["seconds"] for attempt in outcome["attempts"]),
        "is_resumed": bool(outcome.get("resumed_after_epochs")),
        "cuda_settings": _settings_text(outcome.get("cuda_settings")),
        "stacked_seeds": " ".join(map(str, outcome.get("stacked_seeds", []))) or "none",
        "processor": outcome.get("machine", {}).get("processor"),
        "torch": versions.get("torch", "unknown"),
        "software": ", ".join(f"{name} {version}" for name, version in versions.items()),
        "revision": f"{git['revision'][:10]}{'+' * git['dirty']}" if git else None,
        "folder": record.folder.name,
    }


def _settings_text(settings: Mapping[str, Any] | None) -> str:
    """Format the settings of CUDA in a record; ``none`` if it has none, so that records without CUDA compare equal.

    >>> _settings_text({"float32_matmul": "ieee", "mps": True})
    'float32_matmul=ieee, mps=on'
    """
    return ", ".join(f"{name}={value_name(value)}" for name, value in (settings or {}).items()) or "none"


def _with_keys(cells: pd.DataFrame, parts: list[pd.DataFrame], columns: list[str]) -> pd.DataFrame:
    """Concatenate the frames of the cells, and add the keys of its cell to each row."""
    some = [part for part in parts if len(part)]
    tidy = pd.concat(some, ignore_index=True) if some else pd.DataFrame(columns=["cell", *columns])
    return cells[list(KEYS)].merge(tidy[["cell", *columns]], on="cell", validate="one_to_many")


def _curves(record: CellRecord, problems: list[str]) -> pd.DataFrame:
    """Return a cell's curves; a cell that ended in its first epoch has that epoch without values."""
    hashes, num_epochs = record.outcome["epoch_hashes"], record.outcome["epochs_run"]
    metrics = {f"{split}_{metric}": (split, metric) for split, metric in CURVE_METRICS[record.config.task]}
    wide = pd.DataFrame({"epoch": [1], **dict.fromkeys(metrics, "")})
    if num_epochs:
        if (read := _read_csv(record, "metrics.csv", ["epoch", *metrics, "batches"], problems)) is None:
            return pd.DataFrame()
        trained = pd.Series(hashes, dtype=str).reindex(read.index)
        is_next = pd.to_numeric(read["epoch"], errors="coerce") == np.arange(len(read)) + 1
        read = read[((read["batches"].astype(str) == trained) & is_next).cummin()]
        if len(read) != num_epochs:
            problems.append(f"{record.folder.name}: metrics.csv: complete epochs: {len(read)} of {num_epochs}")
        wide = read
    values = {column: _numbers(wide[column], record, "metrics.csv", problems) for column in metrics}
    numbers = pd.DataFrame({"epoch": np.arange(len(wide)) + 1, **values})
    long = numbers.melt("epoch", list(metrics), "column")
    return long.assign(
        cell=record.config.id,
        split=long["column"].map(lambda column: metrics[column][0]),
        metric=long["column"].map(lambda column: metrics[column][1]),
    )


def _probes(record: CellRecord, problems: list[str]) -> pd.DataFrame:
    """Return a cell's probes, up to its last complete epoch, which has as many rows as the first."""
    num_epochs = record.outcome["epochs_run"]
    if (
        not num_epochs
        or (read := _read_csv(record, "probes.csv", ["epoch", "layer", "probe", "value"], problems)) is None
    ):
        return pd.DataFrame()
    if read.empty and is_foreign(record.config.net.model):  # a net without normalisers
        return pd.DataFrame()
    epochs = pd.to_numeric(read["epoch"], errors="coerce")
    counts = epochs[epochs % 1 == 0].value_counts().sort_index()
    whole = counts[(counts == counts.max()).cummin()].index
    if len(whole) != num_epochs:
        problems.append(f"{record.folder.name}: probes.csv: complete epochs: {len(whole)} of {num_epochs}")
    kept = read[epochs.isin(whole)]
    value = _numbers(kept["value"], record, "probes.csv", problems)
    names = {name: kept[name].map(sys.intern) for name in ("layer", "probe")}  # one string object for all rows
    return kept.assign(cell=record.config.id, epoch=epochs[kept.index].astype(int), value=value, **names)


def _numbers(column: pd.Series[Any], record: CellRecord, name: str, problems: list[str]) -> pd.Series[float]:
    """Convert a column of text to numbers; report values that are neither numbers nor empty."""
    values = pd.to_numeric(column, errors="coerce")
    if num_bad := int((values.isna() & ~column.astype(str).str.lower().isin(["nan", ""])).sum()):
        problems.append(f"{record.folder.name}: {name}: values of {column.name} that are not numbers: {num_bad}")
    return values


def _read_csv(record: CellRecord, name: str, columns: list[str], problems: list[str]) -> pd.DataFrame | None:
    """Return columns of a cell's file as text, without an incomplete last line; None if it cannot be read."""
    path = record.folder / name
    try:
        text = path.read_text()
        lines = text[: text.rfind("\n") + 1].splitlines()
        head = lines[0].split(",") if lines else []
        if absent := [column for column in columns if column not in head]:
            problems.append(f"{record.folder.name}: {name} has no column {absent[0]}")
            return None
        rows = [line.split(",") for line in lines[1:]]
        return pd.DataFrame([row for row in rows if len(row) == len(head)], columns=head)[columns]
    except (OSError, UnicodeDecodeError) as error:
        problems.append(f"{record.folder.name}: {name} cannot be read: {_reason(error)}")
        return None


def _correct(record: CellRecord, problems: list[str]) -> npt.NDArray[np.bool_] | None:
    """Return which test images a cell classified correctly; None if it was not tested or the file is damaged."""
    accuracy = record.outcome["test_accuracy_pct"]
    if accuracy is None:
        return None
    try:
        correct = np.load(record.folder / "correct.npy", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        problems.append(f"{record.folder.name}: correct.npy cannot be read: {_reason(error)}")
        return None
    if correct.ndim != 1 or correct.dtype != np.bool_ or abs(100 * correct.mean() - accuracy) > 1e-6:
        problems.append(f"{record.folder.name}: correct.npy does not match the accuracy in outcome.json, left out")
        return None
    return correct


def _costs(path: Path, study: Study, problems: list[str]) -> pd.DataFrame:
    """Return the rows of cost.csv for the study's arms; report rows that are damaged or of other arms."""
    if not path.exists():
        return pd.DataFrame(columns=list(COSTS))
    try:
        text = path.read_bytes().decode()
        read = pd.read_csv(io.StringIO(text[: text.rfind("\n") + 1]), dtype=str, keep_default_na=False)[list(COSTS)]
        read = unguarded(read)
    except (OSError, ValueError, KeyError) as error:
        problems.append(f"cost.csv cannot be read: {_reason(error)}; run bench cost again")
        return pd.DataFrame(columns=list(COSTS))
    if not text.endswith("\n"):
        problems.append("cost.csv is truncated: its last row is left out; run bench cost again")
    costs = read.assign(**{name: pd.to_numeric(read[name], errors="coerce") for name in ("tokens", "round", "value")})
    is_whole = (costs["value"] > 0) & np.isfinite(costs["value"]) & costs["round"].notna()
    is_whole &= costs["tokens"].notna() | (read["tokens"] == "")
    is_ours = costs["condition"].isin(study.condition_names) & costs["arm"].isin(study.arm_names)
    for count, what in ((~is_whole).sum(), "invalid rows"), ((is_whole & ~is_ours).sum(), "rows of other arms"):
        if count:
            problems.append(f"cost.csv: {what} left out: {count}; run bench cost again")
    kept = costs[is_whole & is_ours].reset_index(drop=True)
    timed = kept[kept["quantity"].str.endswith("_s")].fillna({"tokens": 0})
    if timed.groupby(["condition", "arm", "quantity", "tokens"])["round"].nunique().nunique() > 1:
        problems.append("cost.csv: timings are missing in some rounds; run bench cost again")
    return kept


def _reason(error: Exception) -> str:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(str(reason).split())


def _missing(study: Study, cells: pd.DataFrame) -> pd.DataFrame:
    asked = itertools.product(study.condition_names, study.arm_names, study.axes["seed"])
    have = set(zip(cells["condition"], cells["arm"], cells["seed"], strict=True))
    return pd.DataFrame([point for point in asked if point not in have], columns=["condition", "arm", "seed"])
