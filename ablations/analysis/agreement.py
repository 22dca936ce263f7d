"""Share of test images on which two runs differ: between arms at one seed, and between seeds of one arm (churn)."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

NUM_RESAMPLES = 1000
CHUNK = 100  # resamples per step
ROWS = 1000  # pairs of cells per matrix product, whose images are in memory as float32

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


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


@dataclass(frozen=True)
class _Draws:
    """What is compared, in its first row as it is, and in each further row resampled.

    Args:
        images: times that each image counts, (1 + resamples, images).
        seeds: times that each seed counts, (1 + resamples, seeds).
    """

    images: npt.NDArray[np.float32]
    seeds: Floats


def _of_condition(cells: pd.DataFrame, rng: np.random.Generator, tail: float) -> list[dict[str, object]]:
    keys = cells.sort_values("arm_order")[["condition", "arm", "arm_label", "arm_order"]].drop_duplicates("arm")
    records = [{str(name): value for name, value in arm.items()} for arm in keys.to_dict("records")]
    seeds = sorted(cells["seed"].unique())
    places = [record["arm"] for record in records], seeds
    rows, columns = (cells[name].map(place.index) for name, place in zip(("arm", "seed"), places, strict=True))
    shape = len(records), len(seeds)
    right = np.zeros((*shape, len(cells["correct"].iloc[0])), dtype=bool)
    has, stale = np.zeros(shape, dtype=bool), np.zeros(shape, dtype=bool)
    right[rows, columns] = np.stack(cells["correct"].to_list())
    has[rows, columns], stale[rows, columns] = True, cells["stale"]

    draws = _draw(right.shape[2], len(seeds), rng)
    between, within = _between_arms(right, has, draws), _within_arms(right, has, draws)
    found = []
    for i, j in itertools.combinations_with_replacement(range(len(records)), 2):
        drawn = 100 * (within[i] if i == j else between[i, j])
        num_seeds, num_stale = int((has[i] & has[j]).sum()), int((has[i] & stale[i]).sum())
        num_mixed = num_stale * (num_seeds - num_stale) if i == j else (has[i] & has[j] & (stale[i] != stale[j])).sum()
        low, high = np.nanquantile(drawn[1:], [tail, 1 - tail]) if num_seeds > 1 else (np.nan, np.nan)
        numbers = {
            "num_pairs": num_seeds * (num_seeds - 1) // 2 if i == j else num_seeds,
            "num_pairs_mixed": int(num_mixed),
            "disagreement_pct": float(drawn[0]),
            "low_pct": float(low),
            "high_pct": float(high),
        }
        for first, second in dict.fromkeys([(i, j), (j, i)]):
            other = {name.replace("arm", "other", 1): value for name, value in records[second].items()}
            named = {name: other[name] for name in ("other", "other_label", "other_order")}
            found.append({**records[first], **named, **numbers})
    return sorted(found, key=lambda row: (row["arm_order"], row["other_order"]))


def _draw(num_images: int, num_seeds: int, rng: np.random.Generator) -> _Draws:
    """Draw images and seeds with replacement, as the times that each of them counts."""
    images = np.ones((1 + NUM_RESAMPLES, num_images), dtype=np.float32)
    seeds = np.ones((1 + NUM_RESAMPLES, num_seeds))
    for start in range(1, 1 + NUM_RESAMPLES, CHUNK):
        part = slice(start, start + CHUNK)
        images[part] = rng.multinomial(num_images, np.full(num_images, 1 / num_images), CHUNK)
        seeds[part] = rng.multinomial(num_seeds, np.full(num_seeds, 1 / num_seeds), CHUNK)
    return _Draws(images, seeds)


def _between_arms(right: Bools, has: Bools, draws: _Draws) -> dict[tuple[int, int], Floats]:
    """Return the share of images on which two arms differ at their common seeds, (1 + resamples,) by pair of arms.

    The products count images, so that they are exact in float32 up to 2^24 images.

    Args:
        right: whether a cell is right, (arms, seeds, images).
        has: whether there is such a cell, (arms, seeds).
        draws: times that images and seeds count.
    """
    arms = list(itertools.combinations(range(len(has)), 2))
    one, other = np.array(arms, dtype=int).reshape(-1, 2).T
    common = has[one] & has[other]  # (pairs of arms, seeds)
    pair, seed = np.nonzero(common)  # one entry per pair of cells, sorted by pair of arms
    sums = np.zeros((len(arms), len(draws.images)))
    for start in range(0, len(pair), ROWS):
        of, at = pair[start : start + ROWS], seed[start : start + ROWS]
        differs = right[one[of], at] != right[other[of], at]  # (rows, images)
        counts = differs.astype(np.float32) @ draws.images.T  # (rows, 1 + resamples)
        first = np.flatnonzero(np.diff(of, prepend=-1))
        sums[of[first]] += np.add.reduceat(counts * draws.seeds[:, at].T, first, axis=0)
    shares = _divided(sums, common @ draws.seeds.T * right.shape[2])
    return dict(zip(arms, shares, strict=True))


def _within_arms(right: Bools, has: Bools, draws: _Draws) -> list[Floats]:
    """Return the share of images on which two seeds of an arm differ, (1 + resamples,) for each arm.

    Where n of an arm's N drawn cells are right, n (N - n) of their pairs differ; a seed never differs from itself.
    """
    shares = []
    for own, there in zip(right, has, strict=True):
        times, cells = draws.seeds[:, there], own[there].astype(np.float32)
        total = times.sum(axis=1)
        num_pairs = (total**2 - (times**2).sum(axis=1)) / 2
        sums = np.zeros(len(times))
        for start in range(0, len(times), CHUNK):
            part = slice(start, start + CHUNK)
            num_right = times[part].astype(np.float32) @ cells  # (chunk, images)
            differ = num_right * (total[part, None].astype(np.float32) - num_right)
            sums[part] = (differ * draws.images[part]).sum(axis=1, dtype=np.float64)
        shares.append(_divided(sums, num_pairs * right.shape[2]))
    return shares


def _divided(sums: Floats, total: Floats) -> Floats:
    """Divide sums over pairs by the pairs' number; NaN without a pair."""
    return np.divide(sums, total, out=np.full_like(sums, np.nan), where=total > 0)
