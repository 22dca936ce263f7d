"""Tests of claims about the paired differences of two arms, or of one arm and every other."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from ablations.analysis import (
    MARGIN_PCT,
    detectable_difference,
    equivalence_p,
    one_sided_p,
    sign_flip_one_sided_p,
    smallest_one_sided_p,
    t_detectable_difference,
)
from ablations.analysis.claim_case import Finding
from ablations.analysis.claim_power import Power
from ablations.config.claim import Claim


def pairs_text(cells: Sequence[pd.DataFrame], own: pd.DataFrame) -> str:
    """Count the pairs of a comparison, in words: all, left out, with a chance score, of mixed freshness."""
    num_seeds = len(set().union(*(arm["seed"] for arm in cells)))
    counts = {
        "left out": num_seeds - len(own),
        "with a chance score": int(own["has_chance"].sum()),
        "of a stale cell and a fresh one": int(own["is_mixed"].sum()),
    }
    return ", ".join([f"{len(own)} pairs", *(f"{count} {what}" for what, count in counts.items() if count)])


def order_finding(arm: str, tested: dict[str, pd.DataFrame], counts: list[str], missing: list[str]) -> Finding:
    """Test whether all differences are above zero, or one is below; differences to arms without pairs are unknown.

    For the claim speaks the largest p, since each difference must be above zero (an intersection-union test: Berger,
    Technometrics 24, 295, 1982). Against it speaks the smallest, times their number (Bonferroni).
    """
    values = [own["difference_pct"].to_numpy(np.float64) for own in tested.values()]
    above, below = ([sign_flip_one_sided_p(one, 0.0, below=side) for one in values] for side in (False, True))
    parts = [
        f"{arm} - {other}: {one.mean():+.2f} points, p {up:.4f} above, {down:.4f} below 0, {count}"
        for other, one, up, down, count in zip(tested, values, above, below, counts, strict=True)
    ]
    num_pairs = [len(one) for one in values]
    return Finding(
        evidence="; ".join([*parts, *missing]),
        p_for=max(above) if not missing else math.nan,
        p_against=min(1.0, len(below) * min(below)),
        least_for=smallest_one_sided_p(min(num_pairs)),
        least_against=len(below) * smallest_one_sided_p(max(num_pairs)),
        num_pairs=min(num_pairs),
        power=Power(pairs=tuple(tested.values()), margin_pct=MARGIN_PCT, detectable=detectable_difference),
        too_near=""
        if missing
        else f"this number of pairs detects {MARGIN_PCT:g} points: the difference is too near zero",
    )


def margin_finding(claim: Claim, margin_pct: float, own: pd.DataFrame, counts: str) -> Finding:
    """Test a difference against a margin, by t tests; by sign flips if there are chance scores."""
    values, by_chance = own["difference_pct"].to_numpy(np.float64), bool(own["has_chance"].any())
    test = sign_flip_one_sided_p if by_chance else one_sided_p
    if claim.kind == "worse_by":
        p_for, p_against = (test(values, -margin_pct, below=side) for side in (True, False))
        tests = f"p {p_for:.4f} below, {p_against:.4f} above {-margin_pct:+g}"
    else:
        p_for = equivalence_p(values, margin_pct) if not by_chance else math.nan
        outside = min(test(values, margin_pct, below=False), test(values, -margin_pct, below=True))
        p_against = min(1.0, 2 * outside)  # either side contradicts
        within = "equivalence is not tested" if by_chance else f"p {p_for:.4f} inside"
        tests = f"{within}, p {p_against:.4f} outside {margin_pct:g}"
    is_flipped = by_chance or np.ptp(values) == 0
    least, how = (smallest_one_sided_p(len(own)), "sign-flip") if is_flipped else (0.0, "t")
    return Finding(
        evidence=f"{values.mean():+.2f} points, {counts}; one-sided {how} tests: {tests}",
        p_for=p_for,
        p_against=p_against,
        least_for=least,
        least_against=least if claim.kind == "worse_by" else 2 * least,
        num_pairs=len(own),
        power=Power(
            pairs=(own,),
            margin_pct=margin_pct,
            detectable=t_detectable_difference,
            power=0.8 if claim.kind == "worse_by" else 0.9,  # for each of two tests, so that both reject with 80 %
        ),
        too_near=f"this number of pairs resolves {margin_pct:g} points: the difference is too near the margin",
    )
