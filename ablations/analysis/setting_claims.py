"""Tests of claims about a setting as a whole: over its learning rates, and over its two scales."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from ablations.analysis import sign_flip_one_sided_p, smallest_one_sided_p, t_detectable_difference, t_interval
from ablations.analysis.claim_case import Case, Finding
from ablations.analysis.claim_power import Power
from ablations.analysis.frontier import frontiers
from ablations.analysis.pair_claims import margin_finding, pairs_text
from ablations.config.claim import ACROSS, Claim
from ablations.config.values import plural

SCALES = ("own", "matched")


def setting_finding(claim: Claim, setting: str, case: Case) -> Finding:
    """Test a claim of a kind of `ACROSS` in one setting of a study."""
    conditions = case.settings.get(claim.statement, {}).get(setting, ())
    if not conditions:
        across = ACROSS[claim.kind]
        text = f"no setting has both {' and '.join(claim.arms)} at several values of {across}"
        return Finding(evidence=text, in_family_for=False, in_family_against=False)
    own = case.cells[case.cells["condition"].isin(conditions) & case.cells["arm"].isin(claim.arms)]
    if missing := [arm for arm in claim.arms if arm not in set(own["arm"])]:
        return Finding(evidence=f"no cell of {' or '.join(missing)} has ended")
    return _test_stability(claim, own) if claim.kind == "less_stable_than" else _test_scale(claim, own, case)


def _test_stability(claim: Claim, own: pd.DataFrame) -> Finding:
    """Test the paired difference of two arms' frontiers by sign flips.

    Frontiers take few values, so that their differences are often equal, which a t test is not made for.
    """
    columns = ["seed", "log10_lr", "censored"]
    found = frontiers(own)
    one, other = (found.loc[found["arm"] == arm, columns] for arm in claim.arms)
    pairs = one.merge(other, on="seed", suffixes=("", "_than"))
    num_left = own["seed"].nunique() - len(pairs)
    left = f", {num_left} left out, whose frontier is not known" if num_left else ""
    if len(pairs) < 2:
        return Finding(evidence=f"fewer than two pairs of frontiers{left}", num_pairs=len(pairs))
    values = (pairs["log10_lr"] - pairs["log10_lr_than"]).round(9).to_numpy(np.float64)
    num_tied = int(((pairs["censored"] != "") & (pairs["censored"] == pairs["censored_than"])).sum())
    tied = f", {num_tied} beyond the same end of the range, counted as equal" if num_tied else ""
    below, above = (sign_flip_one_sided_p(values, 0.0, below=side) for side in (True, False))
    low, high = t_interval(values)
    interval = "" if math.isnan(low) else f" [{low:+.2f}, {high:+.2f}]"  # none if all differences are equal
    rates = " and ".join(f"{10 ** pairs[name].mean():.2g}" for name in ("log10_lr", "log10_lr_than"))
    least = smallest_one_sided_p(len(pairs))
    return Finding(
        evidence=f"{values.mean():+.2f} decades{interval}, frontiers {rates}, "
        f"{plural(len(pairs), 'pair')}{left}{tied}; sign-flip p {below:.4f} below, {above:.4f} above 0",
        p_for=below,
        p_against=above,
        least_for=least,
        least_against=least,
        num_pairs=len(pairs),
    )


def _test_scale(claim: Claim, own: pd.DataFrame, case: Case) -> Finding:
    """Test that an arm is worse at its own scale, and equivalent at the matched one; the claim needs both.

    For it speaks the larger p of the two (an intersection-union test: Berger, Technometrics 24, 295, 1982); against it
    the smaller, times two.
    """
    assert claim.than is not None, "the kind has it"
    assert claim.margin_pct is not None, "the kind has it"
    parts, names, kept = [], [], []
    for scale, kind in zip(SCALES, ("worse_by", "equivalent_within"), strict=True):
        here = own[own["scale"] == scale]
        condition = str(here["condition"].iloc[0]) if len(here) else ""
        pairs = case.pairs(claim.arm, claim.than, condition)
        if len(pairs) < 2:
            return Finding(evidence=f"fewer than two complete pairs at scale={scale}", num_pairs=len(pairs))
        part = claim.model_copy(update={"kind": kind})
        counts = pairs_text([here[here["arm"] == arm] for arm in claim.arms], pairs)
        parts.append(margin_finding(part, claim.margin_pct, pairs, counts))
        names.append(f"at scale={scale} {parts[-1].evidence}")
        kept.append(pairs)
    return Finding(
        evidence="; ".join(names),
        p_for=_largest([part.p_for for part in parts]),
        p_against=min(1.0, 2 * min(part.p_against for part in parts)),
        least_for=max(part.least_for for part in parts),
        least_against=2 * min(part.least_against for part in parts),
        num_pairs=min(part.num_pairs for part in parts),
        power=Power(
            pairs=tuple(kept),
            margin_pct=claim.margin_pct,
            detectable=t_detectable_difference,
            power=1 - 0.2 / 3,  # for each of three tests, so that all of them reject with 80 %
        ),
        too_near=f"this number of pairs resolves {claim.margin_pct:g} points: a difference is too near the margin",
    )


def _largest(values: Sequence[float]) -> float:
    """Return the largest value; NaN if one is NaN, since it was not tested."""
    return float(np.max(values))
