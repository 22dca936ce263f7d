"""Share of test images on which two runs differ: between arms at one seed, and between seeds of one arm (churn)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

NUM_RESAMPLES = 1000
CHUNK = 100  # resamples per step: the weights of all their images are in memory at once

Floats = npt.NDArray[np.float64]


def agreement(correct: pd.DataFrame, *, seed: int = 0, level: float = 0.95) -> pd.DataFrame:
    """Return the share of test images on which exactly one of two runs is right, for every pair of arms.

    Two arms are compared cell by cell at their common seeds. An arm is compared with itself over every pair of its
    seeds, which gives the effect of the seed (churn). Intervals are percentile bootstraps over seeds x images, both
    drawn with replacement; all pairs of arms share the drawn images. No resample compares a seed with itself.

    Args:
        correct: one row per cell: `condition`, `arm`, `arm_label`, `arm_order`, `seed`, `stale`, and `correct`, a
            boolean array (images,) of one length within a condition.
        seed: bootstrap seed; equal seeds give equal intervals.
        level: confidence level, in (0, 1).

    Returns:
        One row per condition and ordered pair of arms, an arm with itself included: `condition`, `arm`, `arm_label`,
        `arm_order`, `other`, `other_label`, `other_order`, `num_pairs` (pairs of cells), `num_pairs_mixed` (pairs of a
        stale and a fresh cell), `disagreement_pct`, `low_pct`, `high_pct`; NaN without a pair. The bounds are NaN if
        there is only one seed.

    Raises:
        ValueError: cells of one condition have different numbers of test images.

    >>> columns = {"condition": "", "arm": ["a", "b"], "arm_label": ["a", "b"], "arm_order": [0, 1]}
    >>> cells = pd.DataFrame(columns).assign(seed=0, stale=False)
    >>> cells = cells.assign(correct=[np.array([1, 1, 0, 0], bool), np.array([1, 0, 0, 0], bool)])
    >>> agreement(cells)["disagreement_pct"].tolist()
    [nan, 25.0, 25.0, nan]
    """
    rows: list[dict[str, object]] = []
    for condition, cells in correct.groupby("condition", sort=False):
        lengths = sorted({len(one) for one in cells["correct"]})
        if len(lengths) > 1:
            raise ValueError(f"condition '{condition}': cells are tested on {' and '.join(map(str, lengths))} images")
        rows += _of_condition(cells, np.random.default_rng(seed), (1 - level) / 2)
    names = ("arm", "arm_label", "arm_order", "other", "other_label", "other_order")
    numbers = ("num_pairs", "num_pairs_mixed", "disagreement_pct", "low_pct", "high_pct")
    return pd.DataFrame(rows, columns=["condition", *names, *numbers])


def _of_condition(cells: pd.DataFrame, rng: np.random.Generator, tail: float) -> list[dict[str, object]]:
    keys = cells.sort_values("arm_order")[["condition", "arm", "arm_label", "arm_order"]].drop_duplicates("arm")
    own = {str(arm): group.set_index("seed")["correct"] for arm, group in cells.groupby("arm")}
    stale = {str(arm): group.set_index("seed")["stale"] for arm, group in cells.groupby("arm")}
    records = [{str(name): value for name, value in arm.items()} for arm in keys.to_dict("records")]
    arms = list(itertools.combinations_with_replacement(records, 2))
    found = [_cell_pairs(own[one["arm"]], own[other["arm"]], churn=one is other) for one, other in arms]
    places = {seed: i for i, seed in enumerate(sorted(cells["seed"].unique()))}
    draws = _resample([differs for _, differs in found], [pairs for pairs, _ in found], places, rng)
    rows = []
    for (one, other), (pairs, differs), drawn in zip(arms, found, draws, strict=True):
        has_interval = len({seed for pair in pairs for seed in pair}) > 1
        low, high = np.nanquantile(drawn, [tail, 1 - tail]) if has_interval else (np.nan, np.nan)
        numbers = {
            "num_pairs": len(pairs),
            "num_pairs_mixed": sum(stale[one["arm"]][a] != stale[other["arm"]][b] for a, b in pairs),
            "disagreement_pct": 100 * float(differs.mean()) if len(pairs) else np.nan,
            "low_pct": 100 * float(low),
            "high_pct": 100 * float(high),
        }
        for first, second in ((one, other),) if one is other else ((one, other), (other, one)):
            named = {"other": second["arm"], "other_label": second["arm_label"], "other_order": second["arm_order"]}
            rows.append({**first, **named, **numbers})
    return sorted(rows, key=lambda row: (row["arm_order"], row["other_order"]))


def _cell_pairs(
    one: pd.Series[Any], other: pd.Series[Any], *, churn: bool
) -> tuple[list[tuple[int, int]], npt.NDArray[np.float32]]:
    """Return the compared pairs of seeds, and the images on which the two cells differ, (pairs, images)."""
    if churn:
        pairs = list(itertools.combinations(sorted(one.index), 2))
    else:
        pairs = [(seed, seed) for seed in sorted(set(one.index) & set(other.index))]
    num_images = len(np.asarray(one.iloc[0]))
    differs = np.empty((len(pairs), num_images), dtype=np.float32)
    for i, (ours, theirs) in enumerate(pairs):
        differs[i] = np.asarray(one[ours]) != np.asarray(other[theirs])
    return pairs, differs


def _resample(
    differs: Sequence[npt.NDArray[np.float32]],
    pairs: Sequence[list[tuple[int, int]]],
    places: dict[int, int],
    rng: np.random.Generator,
) -> list[Floats]:
    """Return the resampled shares of each pair of arms, (resamples,); NaN if a resample has no pair of seeds."""
    num_images, num_seeds = differs[0].shape[1], len(places)
    drawn: list[list[Floats]] = [[] for _ in differs]
    for _ in range(NUM_RESAMPLES // CHUNK):
        images = rng.multinomial(num_images, np.full(num_images, 1 / num_images), CHUNK)  # (chunk, images)
        seeds = rng.multinomial(num_seeds, np.full(num_seeds, 1 / num_seeds), CHUNK)  # (chunk, seeds)
        weights = images.astype(np.float32).T / np.float32(num_images)
        for i, (compared, own) in enumerate(zip(pairs, differs, strict=True)):
            shares = (own @ weights).T  # (chunk, pairs)
            ours, theirs = (seeds[:, [places[pair[side]] for pair in compared]] for side in (0, 1))
            times = np.where([a == b for a, b in compared], ours, ours * theirs).astype(np.float64)  # (chunk, pairs)
            total = times.sum(axis=1)
            with np.errstate(invalid="ignore"):
                drawn[i].append(np.where(total > 0, (times * shares).sum(axis=1) / total, np.nan))
    return [np.concatenate(parts) for parts in drawn]
