"""Pairs of cells that differ only in the arm: their construction, checks and benefit."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from ablations.analysis.inference import correlation_interval, t_interval, welch_interval

CHANCE_KINDS = ("nan", "exploded")
"""Kinds of divergence with a chance score."""

BLOCK = ["condition", "seed"]
"""Columns that are equal in the two cells of a pair."""


def check_places(cells: pd.DataFrame) -> None:
    """Check that each condition, arm and seed has at most one cell.

    Raises:
        ValueError: two cells have the same condition, arm and seed.
    """
    repeated = cells.duplicated(["condition", "arm", "seed"])
    if repeated.any():
        first = cells[repeated].iloc[0]
        raise ValueError(f"two cells of arm {first['arm']}, condition '{first['condition']}', seed {first['seed']}")


def complete_seeds(cells: pd.DataFrame, arms: Iterable[str]) -> pd.DataFrame:
    """Return the cells of the given arms at every condition and seed where all of them have a score.

    Args:
        cells: one row per cell: `condition`, `arm`, `seed`, `score_pct`, and any other columns.
        arms: arm names.

    Returns:
        Rows of `cells`, one per arm at each such condition and seed.

    Raises:
        ValueError: two cells have the same condition, arm and seed.
    """
    check_places(cells)
    wanted = set(arms)
    own = cells[cells["arm"].isin(wanted) & cells["score_pct"].notna()]
    return own[own.groupby(BLOCK)["arm"].transform("size") == len(wanted)]


def pairs_with(cells: pd.DataFrame, reference: str | None) -> pd.DataFrame:
    """Return the complete pairs of every arm with the reference.

    Args:
        cells: one row per cell.
        reference: the reference arm; None gives no pairs.

    Returns:
        One row per pair: the arm's columns, the reference's with suffix `_reference`, and `difference_pct`, the arm's
        score minus the reference's.

    Raises:
        ValueError: two cells have the same condition, arm and seed.
    """
    others = [arm for arm in cells["arm"].unique() if arm != reference]
    columns = [*cells.columns, *(f"{name}_reference" for name in cells.columns if name not in BLOCK)]
    found = [pd.DataFrame(columns=columns)]
    for arm in others if reference in set(cells["arm"]) else []:
        own = complete_seeds(cells, [arm, str(reference)])
        theirs = own[own["arm"] == reference]
        found.append(own[own["arm"] == arm].merge(theirs, on=BLOCK, suffixes=("", "_reference")))
    pairs = pd.concat([frame for frame in found if len(frame)] or found, ignore_index=True)
    difference = pairs["score_pct"].astype(np.float64) - pairs["score_pct_reference"].astype(np.float64)
    return pairs.assign(difference_pct=difference)


def pairing_held(cells: pd.DataFrame, reference: str | None) -> pd.DataFrame:
    """Count each arm's complete pairs that are equal in initial weights, split, batches, machine and software.

    Args:
        cells: one row per cell; `batches` holds a hash of each started epoch's batches, separated by spaces; `device`,
            `cuda_settings`, `stacked_seeds` and `torch` describe how it was computed.
        reference: the reference arm.

    Returns:
        One row per condition and arm except the reference: `condition`, `arm`, `num_pairs`, `num_same_init`,
        `num_same_split`, `num_same_batches`, `num_same_device`, `num_same_cuda_settings`, `num_same_stacked_seeds` and
        `num_same_torch`. Batches are compared over the epochs that both cells ran. An empty hash equals no other.

    Raises:
        ValueError: two cells have the same condition, arm and seed.
    """
    pairs = pairs_with(cells, reference)
    same = pairs[["condition", "arm"]].assign(num_pairs=1)
    for part in ("init_hash", "split_hash", "device", "cuda_settings", "stacked_seeds", "torch"):
        ours, theirs = pairs[part].fillna(""), pairs[f"{part}_reference"].fillna("")
        same[f"num_same_{part.removesuffix('_hash')}"] = ((ours == theirs) & (ours != "")).astype(int)
    batches = zip(pairs["batches"], pairs["batches_reference"], strict=True)
    equal = [_same_beginning(ours.split(), theirs.split()) for ours, theirs in batches]
    same["num_same_batches"] = np.array(equal, dtype=int)
    others = cells[cells["arm"] != reference].sort_values("arm_order", kind="stable")
    arms = others.sort_values("condition", kind="stable")[["condition", "arm"]].drop_duplicates()
    counts = same.groupby(["condition", "arm"]).sum()
    return counts.reindex(pd.MultiIndex.from_frame(arms), fill_value=0).reset_index()


def pairing_gain(cells: pd.DataFrame, reference: str | None, level: float = 0.95) -> pd.DataFrame:
    """Measure the benefit of pairing: the correlation of paired scores and the narrower intervals.

    Pairs with a chance score are left out: such a score does not depend on what the two cells share.

    Args:
        cells: one row per cell.
        reference: the reference arm.
        level: confidence level of every interval, in (0, 1).

    Returns:
        One row per condition and arm except the reference: `condition`, `arm`, `arm_label`, `arm_order`, `num_pairs`;
        `correlation` with `correlation_low` and `correlation_high`; `paired_width_pct` and `unpaired_width_pct`, the
        full widths of the paired t interval and of Welch's over the same cells, in points; `variance_ratio`, the
        variance of the difference for independent cells divided by the paired one: above 1, the factor by which pairing
        reduces the seeds needed.

    Raises:
        ValueError: two cells have the same condition, arm and seed.
    """
    pairs = pairs_with(cells, reference)
    pairs = pairs[~pairs["kind"].isin(CHANCE_KINDS) & ~pairs["kind_reference"].isin(CHANCE_KINDS)]
    rows = []
    arms = cells.loc[cells["arm"] != reference, ["condition", "arm", "arm_label", "arm_order"]].drop_duplicates()
    for arm in arms.to_dict("records") if reference is not None else []:
        own = pairs[(pairs["condition"] == arm["condition"]) & (pairs["arm"] == arm["arm"])]
        ours, theirs = (own[name].to_numpy(np.float64) for name in ("score_pct", "score_pct_reference"))
        paired, unpaired = t_interval(ours - theirs, level), welch_interval(ours, theirs, level)
        spread = (ours - theirs).var(ddof=1) if len(own) > 1 else 0.0
        ratio = (ours.var(ddof=1) + theirs.var(ddof=1)) / spread if spread > 0 else np.nan
        widths = paired[1] - paired[0], unpaired[1] - unpaired[0]
        rows.append([*arm.values(), len(own), *correlation_interval(ours, theirs, level), *widths, ratio])
    numbers = ["num_pairs", "correlation", "correlation_low", "correlation_high"]
    numbers += ["paired_width_pct", "unpaired_width_pct", "variance_ratio"]
    return pd.DataFrame(rows, columns=[*arms.columns, *numbers])


def _same_beginning(ours: list[str], theirs: list[str]) -> bool:
    both = min(len(ours), len(theirs))
    return both > 0 and ours[:both] == theirs[:both]
