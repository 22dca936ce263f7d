"""Tables and figures of what was foreseen, beside the frontier that a study has measured."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ablations.analysis.foresight import RankCorrelation, rank_correlation
from ablations.analysis.frontier import frontier_table
from ablations.bench.drawing import save_figure
from ablations.bench.foresee import PROBES, Foreseen
from ablations.config.escape import figure_label
from ablations.figures.foresee import (
    arm_legend,
    correlation_text,
    first_steps_over_depth,
    foreseen_against_measured,
)
from ablations.store import Store
from ablations.store.frames import read_frames

KEYS = ["setting", "arm", "arm_label", "arm_order"]
MEASURED = ["frontier_lr", "low", "high", "n", "num_below", "num_above"]
"""Columns of `frontier_table` that stand beside what was foreseen."""

NOT_AVERAGED = (*KEYS, "seed", "steps", "lowest_start", "lowest_after", "converged")


def measured_frontier(store: Store) -> tuple[pd.DataFrame, list[str]]:
    """Return the frontier of each arm at each setting with several rates, and what of the cells cannot be read.

    Args:
        store: folder of the study.

    Returns:
        Columns of `frontier_table`, without rows if there are no cells; and a sentence for each problem.
    """
    if not store.exists:
        return pd.DataFrame(columns=["setting", "arm", *MEASURED]), []
    frames = read_frames(store, numerics=None)
    return frontier_table(frames.cells, None)[["setting", "arm", *MEASURED]], list(frames.problems)


def foreseen_table(rows: Sequence[Foreseen], measured: pd.DataFrame) -> pd.DataFrame:
    """Return a row per setting and arm: geometric means over the seeds, and the measured frontier.

    Args:
        rows: measurements of one or more seeds.
        measured: `setting`, `arm` and the columns `MEASURED`, which are NaN for an arm and setting without a row.

    Returns:
        `setting`, `arm`, `arm_label`, `arm_order`, `num_seeds`, `converged` (all of them), the other numbers of
        `Foreseen` except the lowest eigenvalues, and the columns `MEASURED`.
    """
    frame = pd.DataFrame(rows, columns=list(Foreseen._fields))
    numbers = [name for name in Foreseen._fields if name not in NOT_AVERAGED]
    means = frame.groupby(KEYS, sort=False, as_index=False).agg(
        num_seeds=("seed", "size"),
        converged=("converged", "all"),
        **{name: (name, _geometric_mean) for name in numbers},
    )
    return means.merge(measured[["setting", "arm", *MEASURED]], on=["setting", "arm"], how="left")


def correlations(table: pd.DataFrame) -> dict[str, RankCorrelation]:
    """Return the rank correlations of foreseen and measured rates: over all points, and within the settings."""
    found = {}
    for at in ("start", "after"):
        foreseen = table[f"lr_{at}"]
        found[f"lr_{at}"] = rank_correlation(foreseen, table["frontier_lr"])
        found[f"lr_{at}, within settings"] = rank_correlation(foreseen, table["frontier_lr"], within=table["setting"])
    return found


def describe_foreseen(table: pd.DataFrame) -> tuple[list[str], list[list[str]]]:
    """Return head and rows of the printed table; each pair of numbers is at the start and after the steps."""
    pairs = {
        "eigenvalue": ("lambda_start", "lambda_after"),
        "lr foreseen": ("lr_start", "lr_after"),
        "RMS, first block": ("rms_first_start", "rms_first_after"),
        "last block": ("rms_last_start", "rms_last_after"),
        "gradient, first block": ("grad_first_start", "grad_first_after"),
        "last": ("grad_last_start", "grad_last_after"),
    }
    lines = []
    for row in table.to_dict("records"):
        mark = "" if row["converged"] else " (not converged)"
        numbers = [f"{row[start]:.2g}, {row[after]:.2g}" for start, after in pairs.values()]
        numbers[0] += mark
        lines.append([row["setting"], row["arm"], *numbers, _frontier_text(row)])
    return ["setting", "arm", *pairs, "lr measured"], lines


def describe_correlations(found: Mapping[str, RankCorrelation]) -> list[str]:
    """Return a line per rank correlation that is defined."""
    return [
        f"{name}: Spearman's correlation with the measured frontier {correlation_text(each)}, {each.n} points"
        for name, each in found.items()
        if not math.isnan(each.rho)
    ]


def draw_foreseen(table: pd.DataFrame, path: Path) -> list[Path]:
    """Draw foreseen against measured rates, as PNG and PDF; return the paths of the files.

    Args:
        table: result of `foreseen_table`.
        path: path of the files; its extension is replaced.
    """
    entries = table["arm"].nunique() + table["setting"].nunique()
    figure = Figure(figsize=(7.5, max(4.5, 0.21 * (entries + 4))), layout="constrained")
    foreseen_against_measured(_with_plain_texts(table), figure.subplots())
    return save_figure(figure, path)


def draw_first_steps(probes: pd.DataFrame, path: Path) -> list[Path]:
    """Draw the probes over depth, a row of panels for each setting, as PNG and PDF; return the paths of the files.

    Args:
        probes: rows of `ablations.bench.foresee.ProbeRow`, one or more.
        path: path of the files; its extension is replaced.
    """
    probes = _with_plain_texts(probes)
    settings = list(dict.fromkeys(probes["setting"]))
    arms = probes["arm"].nunique()
    figure = Figure(figsize=(10, max(2.6 * len(settings), 0.21 * (arms + 4))), layout="constrained")
    panels = figure.subplots(len(settings), len(PROBES), squeeze=False)
    for setting, row in zip(settings, panels, strict=True):
        own = probes[probes["setting"] == setting]
        for probe, axes in zip(PROBES, row, strict=True):
            first_steps_over_depth(own[own["probe"] == probe], axes)
            axes.set_title(setting, loc="left", fontsize="small")
    figure.legend(handles=arm_legend(probes), loc="outside right center", fontsize="small", frameon=False)
    return save_figure(figure, path)


def _with_plain_texts(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a frame whose names matplotlib draws as they are."""
    return frame.assign(**{name: frame[name].map(figure_label) for name in ("setting", "arm_label")})


def _geometric_mean(values: pd.Series[float]) -> float:
    """Return the geometric mean; NaN unless all values are positive."""
    return float(np.exp(np.log(values).mean())) if (values > 0).all() else math.nan


def _frontier_text(row: Mapping[Hashable, Any]) -> str:
    if math.isnan(row["frontier_lr"]):
        return ""
    outside = [f"{int(row[f'num_{side}'])} {side}" for side in ("below", "above") if row[f"num_{side}"]]
    return f"{row['frontier_lr']:.2g}{' (' * bool(outside)}{', '.join(outside)}{')' * bool(outside)}"
