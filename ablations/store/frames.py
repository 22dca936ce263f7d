"""Read a study folder into tidy DataFrames, and report what cannot be read."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ablations.config import CellConfig, Study
from ablations.config.escape import shortened
from ablations.config.numerics import recorded_numerics
from ablations.config.task import ACCURACY, BOX_AP, MASK_AP, Metric, average_precisions, metric_of, score_column
from ablations.config.values import value_name
from ablations.store.digests import altered_files
from ablations.store.objects import read_examples, read_precision
from ablations.store.reading import read_flags, read_text, reason_of
from ablations.store.record import CellRecord
from ablations.store.records import Store
from ablations.store.series import layer_orders, read_curves, read_probes, read_steps
from ablations.store.tidy_csv import unguarded
from ufo.norms import NORMS

SCORED_AS_CHANCE = ("nan", "exploded")
"""Kinds of divergence that are scored at chance level."""

CURVE_METRICS: Mapping[Metric, tuple[tuple[str, str], ...]] = {
    ACCURACY: (("train", "loss"), ("val", "loss"), ("val", "accuracy_pct")),
    MASK_AP: (("train", "loss"), ("val", "box_ap_pct"), ("val", "mask_ap_pct")),
    BOX_AP: (("train", "loss"), ("val", "box_ap_pct")),
}
"""Split and metric in curves.csv, by the compared metric; together they name a column of metrics.csv."""

KEYS = ("cell", "arm", "arm_label", "arm_order", "condition", "seed", "outcome", "kind", "measure")
"""Columns of a cell that its curves and probes repeat."""

COSTS = ("condition", "arm", "quantity", "tokens", "round", "value")
"""Columns of cost.csv."""

QUANTITIES = (("multiply_adds", "inference_s", "training_step_s"), ("multiply_adds", "time_s"))
"""Quantities in cost.csv: of a whole net, without a number of tokens, and of a normaliser."""


@dataclass(frozen=True, kw_only=True)
class Frames:
    """The results of a study as tidy DataFrames.

    Args:
        study: the study.
        configs: configurations of the finished cells, in the order of `cells`.
        cells: one row per finished cell; `score_pct` is its score, on validation for a trial, else test, in `measure`.
        curves: one row per cell, epoch, split and metric.
        probes: one row per cell, epoch, layer and probe; `layer_order` counts the layers from 0 (`layer_orders`).
        steps: one row per cell, recorded training step, layer and probe; the loss has an empty layer without an order.
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
    steps: pd.DataFrame
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
        numerics: current numerics version by normaliser, by which cells are marked stale; None: no cell is stale. Nor
            are those of a normaliser that it lacks.

    Raises:
        UsageError: there is no study, or its study.yaml cannot be read.
    """
    study = store.read_study()
    found, problems = store.read_records()
    records = [record for record in found.values() if study.has(record.config)]
    known = {record.folder for record in records}
    others = [record.folder.name for record in found.values() if record.folder not in known]
    problems += [f"{name}: not a cell of this study, left out" for name in others]
    columns, arms = _columns(study), arm_columns(study)
    rows = [_cell_row(record, study, numerics, columns) | arms[study.arm_of(record.config)] for record in records]
    cells = pd.DataFrame(rows, columns=columns)
    place = {name: i for i, name in enumerate(study.condition_names)}
    expected = [record.folder / name for record in records if record.has_result for name in ("log.txt", "timing.csv")]
    problems += [f"{path.parent.name}: {path.name} is missing" for path in expected if not path.is_file()]
    cells = cells.sort_values(
        ["condition", "arm_order", "seed"],
        key=lambda column: column.map(place) if column.name == "condition" else column,
        ignore_index=True,
    )
    ordered = [found[cell] for cell in cells["cell"]]
    metrics = {f"{split}_{metric}": (split, metric) for split, metric in CURVE_METRICS[study.metric]}
    curves = _with_keys(cells, read_curves(ordered, metrics, problems))
    probes = _with_keys(cells, read_probes(ordered, problems))
    steps = _with_keys(cells, read_steps(ordered, problems))
    step_orders = layer_orders(steps[steps["layer"] != ""].rename(columns={"step": "epoch"}))
    tested = [(record.config.id, _correct(record, problems)) for record in ordered]
    correct = pd.DataFrame([pair for pair in tested if pair[1] is not None], columns=["cell", "correct"])
    precision, examples = read_precision(cells, ordered, problems), read_examples(cells, ordered, problems)
    costs = _costs(store.folder / "cost.csv", study, problems)
    problems += _altered(ordered, problems)
    return Frames(
        study=study,
        configs=tuple(record.config for record in ordered),
        cells=cells,
        curves=curves,
        probes=probes.assign(layer_order=probes["layer"].map(layer_orders(probes))),
        steps=steps.assign(layer_order=steps["layer"].map(step_orders).astype("Int64")),
        correct=cells[[*KEYS, "stale"]].merge(correct, on="cell", validate="one_to_one"),
        precision=precision,
        examples=examples,
        costs=costs,
        missing=_missing(study, cells),
        problems=tuple(problems),
    )


def arm_columns(study: Study) -> dict[str, dict[str, Any]]:
    """Return the name, label, group and order of each arm: its place in the registry, or on the compared axis.

    Normalisers of plug-ins, which reading a study does not import, come last, as the study has recorded them.
    """
    own = [spec.name for spec in NORMS.values() if not spec.is_plugin] if study.compare == "norm" else []
    others = [name for name in study.arm_names if name not in own]
    others.sort(key=lambda name: study.norms[name].order if name in study.norms and own else 0)
    columns, tied = dict[str, dict[str, Any]](), study.tied_texts
    for name in study.arm_names:
        label, group = name, ""
        if name in own:
            label, group = NORMS[name].label, NORMS[name].group
        elif own and (record := study.norms.get(name)) is not None:
            label, group = record.label, record.group
        if name in tied:
            label = f"{label} ({tied[name]})"
        order = own.index(name) if name in own else len(own) + others.index(name)
        columns[name] = {"arm": name, "arm_label": label, "arm_group": group, "arm_order": order}
    return columns


def _columns(study: Study) -> list[str]:
    arm = ["arm", "arm_label", "arm_group", "arm_order"]
    scores = ["test_accuracy_pct", "test_loss", "val_accuracy_pct", "val_loss"]
    if study.task == "detect":
        scores += [f"test_{figure}" for figure in average_precisions(study.metric)]
    scores += ["val_score_pct", "score_pct", "chance_pct", "measure"]
    result = ["outcome", "kind", "detail", *scores, "stale"]
    paired = ["init_hash", "split_hash", "batches", "epochs_run"]
    spent = ["seconds", "num_attempts", "attempts_seconds", "is_resumed", "peak_memory_mib", "num_parameters"]
    how = ["device", "cuda_settings", "stacked_seeds"]
    where = ["processor", "torch", "software", "revision", "started", "folder"]
    return ["cell", *arm, "condition", *study.axes, *study.searched, *result, *paired, *spent, *how, *where]


def _cell_row(
    record: CellRecord, study: Study, numerics: Mapping[str, str] | None, columns: list[str]
) -> dict[str, Any]:
    outcome, config = record.outcome, record.config
    measured = outcome.get(score_column(config))
    score = outcome["chance_pct"] if outcome["kind"] in SCORED_AS_CHANCE else measured
    git, recorded = outcome.get("git") or {}, recorded_numerics(outcome)
    versions = {name: version for name, version in outcome["versions"].items() if version is not None}
    return {
        **{field: config[field] for field in (*study.axes, *study.searched)},
        **{key: outcome[key] for key in columns if key in outcome},
        "batches": " ".join(outcome["epoch_hashes"]),
        "detail": shortened(outcome["detail"]),
        "cell": config.id,
        "condition": study.condition_of(config),
        "measure": metric_of(config).name,
        "val_score_pct": outcome.get(metric_of(config).columns[1]),
        "score_pct": None if outcome["outcome"] == "failed" else score,
        "stale": (numerics or {}).get(config.net.norm, recorded) != recorded,
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


def _altered(records: Sequence[CellRecord], problems: Sequence[str]) -> list[str]:
    """Say which files are not what the run wrote, except those of which something is said already."""
    said = {" ".join(problem.split()[:2]).rstrip(":") for problem in problems}
    altered = ((f"{record.folder.name}: {what}") for record in records for what in altered_files(record))
    return [problem for problem in altered if " ".join(problem.split()[:2]) not in said]


def _settings_text(settings: Mapping[str, Any] | None) -> str:
    """Format the settings of CUDA in a record; ``none`` if it has none, so that records without CUDA compare equal.

    >>> _settings_text({"float32_matmul": "ieee", "mps": True})
    'float32_matmul=ieee, mps=on'
    """
    return shortened(", ".join(f"{name}={value_name(value)}" for name, value in (settings or {}).items())) or "none"


def _with_keys(cells: pd.DataFrame, read: pd.DataFrame) -> pd.DataFrame:
    """Add the keys of its cell to each row, whose `place` is the cell's."""
    keys = cells[list(KEYS)].iloc[read["place"].to_numpy(int)].reset_index(drop=True)
    return pd.concat([keys, read.drop(columns="place").reset_index(drop=True)], axis="columns")


def _correct(record: CellRecord, problems: list[str]) -> npt.NDArray[np.bool_] | None:
    """Return which test images a cell classified correctly; None if it was not tested or the file is damaged."""
    accuracy = record.outcome["test_accuracy_pct"]
    if accuracy is None:
        return None
    try:
        correct = read_flags(record.folder / "correct.npy")
    except (OSError, ValueError) as error:
        problems.append(f"{record.folder.name}: correct.npy cannot be read: {reason_of(error)}")
        return None
    if not len(correct) or abs(100 * correct.mean() - accuracy) > 1e-6:
        problems.append(f"{record.folder.name}: correct.npy does not match the accuracy in outcome.json, left out")
        return None
    return correct


def _costs(path: Path, study: Study, problems: list[str]) -> pd.DataFrame:
    """Return the rows of cost.csv for the study's arms; report rows that are damaged or of other arms."""
    try:
        text = read_text(path)
        read = pd.read_csv(io.StringIO(text[: text.rfind("\n") + 1]), dtype=str, keep_default_na=False)[list(COSTS)]
        read = unguarded(read)
    except FileNotFoundError:
        return pd.DataFrame(columns=list(COSTS))
    except (OSError, ValueError, KeyError) as error:
        problems.append(f"cost.csv cannot be read: {reason_of(error)}; run bench cost again")
        return pd.DataFrame(columns=list(COSTS))
    if not text.endswith("\n"):
        problems.append("cost.csv is truncated: its last row is left out; run bench cost again")
    costs = read.assign(**{name: pd.to_numeric(read[name], errors="coerce") for name in ("tokens", "round", "value")})
    is_whole = (costs["value"] > 0) & np.isfinite(costs["value"]) & costs["round"].notna()
    is_whole &= costs["tokens"].notna() | (read["tokens"] == "")
    of_net, of_norm = (costs["quantity"].isin(quantities) for quantities in QUANTITIES)
    is_known = of_norm.where(costs["tokens"].notna(), of_net)
    is_ours = costs["condition"].isin(study.condition_names) & costs["arm"].isin(study.arm_names)
    for left_out, what in (
        (~is_whole, "invalid rows"),
        (is_whole & ~is_known, "rows of unknown quantities"),
        (is_whole & is_known & ~is_ours, "rows of other arms"),
    ):
        if count := left_out.sum():
            problems.append(f"cost.csv: {what} left out: {count}; run bench cost again")
    kept = costs[is_whole & is_known & is_ours].reset_index(drop=True)
    timed = kept[kept["quantity"].str.endswith("_s")].fillna({"tokens": 0})
    if timed.groupby(["condition", "arm", "quantity", "tokens"])["round"].nunique().nunique() > 1:
        problems.append("cost.csv: timings are missing in some rounds; run bench cost again")
    return kept


def _missing(study: Study, cells: pd.DataFrame) -> pd.DataFrame:
    have = set(zip(cells["condition"], cells["arm"], cells["seed"], strict=True))
    asked = ((condition, arm, seed) for arm, condition, seed in study.places)
    return pd.DataFrame([point for point in asked if point not in have], columns=["condition", "arm", "seed"])
