"""What the numbers say of each claim: supported, contradicted, or undecided."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from ablations.stats import (
    ALPHA,
    MARGIN_PCT,
    Comparison,
    compare,
    cost_exponents,
    differences,
    equivalence_p,
    one_sided_p,
    seeds_for,
    sign_flip_one_sided_p,
    wilson_interval,
)
from ablations.study.claim import Claim

Verdict = Literal["supported", "contradicted", "undecided"]

LINEAR = 1.2
"""Exponent of the cost in the number of tokens up to which it counts as linear; a quadratic one is 2."""

COLUMNS = ("claim", "source", "post_hoc", "condition", "verdict", "evidence", "num_pairs", "seeds_for_margin")


@dataclass(frozen=True)
class _Finding:
    """A verdict and what it rests on."""

    verdict: Verdict
    evidence: str
    num_pairs: int = 0
    seeds_for_margin: float = math.nan


def judge(claims: Sequence[Claim], cells: pd.DataFrame, costs: pd.DataFrame) -> pd.DataFrame:
    """Judge every claim in every condition.

    *Better than* is supported, or contradicted, by a two-sided sign-flip p below 0.05 and the sign of the difference; p
    are adjusted by Holm's method over every comparison that any of these claims needs, in all conditions. *Worse by at
    least m* is a one-sided test against -m at 0.05 each way; *equivalent within m* is TOST at 0.05, contradicted where
    the 95 % interval lies outside. Both are t tests, or sign-flip tests where chance scores have entered. *Fails to
    train* is about the share of diverged cells among those that did not fail: its 95 % Wilson interval lies above one
    half, or below. *Cost linear in tokens* is about the exponents of multiply-adds and of time.

    Args:
        claims: of the study.
        cells: one row per cell, as `ablations.stats.summarise` takes them.
        costs: what `ablations bench cost` has measured: `condition`, `arm`, `quantity`, `tokens`, `round`, `value`; no
            rows where it has not.

    Returns:
        One row per claim and condition: `claim`, `source`, `post_hoc`, `condition`, `verdict`, `evidence` in words,
        `num_pairs`, and `seeds_for_margin`: where it is undecided, the number of seeds that would decide it with 80 %
        power, computed for the claim's margin (0.5 points where it has none) and the spread seen, never for the
        difference seen.
    """
    needed = dict.fromkeys(comparison for claim in claims for comparison in _comparisons(claim, cells))
    table = compare(cells, list(needed))
    paired = differences(cells, list(needed))
    rows = []
    for claim in claims:
        for condition in cells["condition"].unique() if len(cells) else [""]:
            finding = _judge(claim, condition, cells=cells, costs=costs, table=table, paired=paired)
            rows.append(
                {
                    "claim": claim.statement,
                    "source": claim.source,
                    "post_hoc": claim.post_hoc,
                    "condition": condition,
                    "verdict": finding.verdict,
                    "evidence": finding.evidence,
                    "num_pairs": finding.num_pairs,
                    "seeds_for_margin": finding.seeds_for_margin if finding.verdict == "undecided" else math.nan,
                }
            )
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype({"seeds_for_margin": "Int64"})


def _comparisons(claim: Claim, cells: pd.DataFrame) -> list[Comparison]:
    if claim.than is not None:
        return [Comparison((claim.arm,), (claim.than,))]
    if claim.kind == "better_than_every_other":
        others = cells.sort_values("arm_order", kind="stable")["arm"].unique()
        return [Comparison((claim.arm,), (other,)) for other in others if other != claim.arm]
    return []


def _judge(
    claim: Claim,
    condition: str,
    *,
    cells: pd.DataFrame,
    costs: pd.DataFrame,
    table: pd.DataFrame,
    paired: pd.DataFrame,
) -> _Finding:
    there = cells[cells["condition"] == condition]
    if claim.kind == "cost_linear_in_tokens":
        return _judge_cost(costs[(costs["condition"] == condition) & (costs["arm"] == claim.arm)])
    if missing := [arm for arm in claim.arms if arm not in set(there["arm"])]:
        return _Finding("undecided", f"no cell of {' or '.join(missing)} has ended")
    if claim.kind == "fails_to_train":
        return _judge_failure(there[there["arm"] == claim.arm])
    names = [comparison.name for comparison in _comparisons(claim, there)]
    here = paired[paired["condition"] == condition]
    own = [here[here["comparison"] == name] for name in names]
    if not own or any(len(pairs) < 2 for pairs in own):
        return _Finding("undecided", "fewer than two complete pairs", min(map(len, own), default=0))
    if claim.margin_pct is None:
        alpha = ALPHA / int((table["num_pairs"] > 0).sum())
        return _judge_greater(table[(table["condition"] == condition) & table["comparison"].isin(names)], own, alpha)
    return _judge_margin(claim, claim.margin_pct, own[0])


def _judge_greater(tested: pd.DataFrame, own: list[pd.DataFrame], alpha: float) -> _Finding:
    """Judge whether every one of some differences is above zero."""
    signs = np.sign(tested["difference_pct"]).where(tested["supported"], 0)
    verdict: Verdict = "supported" if signs.min() > 0 else "contradicted" if signs.min() < 0 else "undecided"
    rows = tested.to_dict("records")
    parts = [f"{row['comparison']}: {row['difference_pct']:+.2f} points, p {row['p_holm']:.3f}" for row in rows]
    seeds = max(_seeds(pairs, MARGIN_PCT, alpha=alpha) for pairs in own)
    return _Finding(verdict, "; ".join(parts), min(map(len, own)), seeds)


def _judge_margin(claim: Claim, margin_pct: float, own: pd.DataFrame) -> _Finding:
    values, by_chance = own["difference_pct"].to_numpy(np.float64), bool(own["has_chance"].any())
    test = sign_flip_one_sided_p if by_chance else one_sided_p
    if claim.kind == "worse_by":
        below, above = (test(values, -margin_pct, below=side) for side in (True, False))
        verdict: Verdict = "supported" if below < ALPHA else "contradicted" if above < ALPHA else "undecided"
        tests = f"p {below:.3f} below, {above:.3f} above {-margin_pct:+g}"
        seeds = _seeds(own, margin_pct, alpha=2 * ALPHA)
    else:
        inside = equivalence_p(values, margin_pct) if not by_chance else math.nan
        outside = min(test(values, margin_pct, below=False), test(values, -margin_pct, below=True))
        verdict = "supported" if inside < ALPHA else "contradicted" if outside < ALPHA / 2 else "undecided"
        tests = f"p {inside:.3f} inside, {outside:.3f} outside {margin_pct:g}"
        seeds = _seeds(own, margin_pct, alpha=2 * ALPHA, power=0.9)  # each of the two tests, so that both have 80 %
    how = "one-sided sign-flip tests, since chance scores have entered" if by_chance else "one-sided t tests"
    return _Finding(verdict, f"{values.mean():+.2f} points; {how}: {tests}", len(own), seeds)


def _seeds(own: pd.DataFrame, margin_pct: float, *, alpha: float, power: float = 0.8) -> float:
    if own["has_chance"].any():
        return math.nan
    return seeds_for(margin_pct, float(own["difference_pct"].std()), alpha=alpha, power=power)


def _judge_failure(own: pd.DataFrame) -> _Finding:
    num_diverged, n = int((own["outcome"] == "diverged").sum()), int((own["outcome"] != "failed").sum())
    low, high = wilson_interval(num_diverged, n)
    verdict: Verdict = "supported" if low > 0.5 else "contradicted" if high < 0.5 else "undecided"
    interval = f", 95 % interval of the share [{low:.2f}, {high:.2f}]" if n else ""
    return _Finding(verdict, f"{num_diverged} of {n} cells diverged{interval}")


def _judge_cost(own: pd.DataFrame) -> _Finding:
    exponents = cost_exponents(own)
    if exponents.empty:
        return _Finding("undecided", "not measured: python -m ablations bench cost STUDY")
    rows = exponents.to_dict("records")
    verdict: Verdict = "undecided"
    if all(row["high"] < LINEAR for row in rows):
        verdict = "supported"
    elif any(row["low"] > LINEAR for row in rows):
        verdict = "contradicted"
    parts = [f"{row['quantity']} ~ N^{row['exponent']:.2f} [{row['low']:.2f}, {row['high']:.2f}]" for row in rows]
    return _Finding(verdict, "; ".join(parts))
