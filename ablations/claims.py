"""What the numbers say of each claim: supported, contradicted, or undecided."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

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
    holm,
    one_sided_p,
    seeds_for,
    sign_flip_one_sided_p,
    wilson_interval,
)
from ablations.study.claim import Claim, ordered_pairs

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


@dataclass(frozen=True, kw_only=True)
class Case:
    """A study's claims and what they are judged by.

    Args:
        claims: of the study.
        arms: of the study, those without a cell too.
        cells: one row per cell, as `ablations.stats.summarise` takes them.
        costs: what `ablations bench cost` has measured: `condition`, `arm`, `quantity`, `tokens`, `round`, `value`; no
            rows where it has not.
    """

    claims: Sequence[Claim]
    arms: Sequence[str]
    cells: pd.DataFrame
    costs: pd.DataFrame


def judge(cases: Sequence[Case]) -> pd.DataFrame:
    """Judge every claim of one study, or of several, in every condition.

    *Better than* is supported, or contradicted, by a two-sided sign-flip p below 0.05 and the sign of the difference; p
    are adjusted by Holm's method over every pair of arms whose order any of these claims is about, in all conditions.
    *Better than every other* is so only if every other arm of the study has cells. *Worse by at least m* is a one-sided
    test against -m at 0.05 each way; *equivalent within m* is TOST at 0.05, contradicted where the 95 % interval lies
    outside. Both are t tests, or sign-flip tests where chance scores have entered. *Fails to train* is about the share
    of diverged cells among those that did not fail: its 95 % Wilson interval lies above one half, or below. *Cost
    linear in tokens* is about the exponents of multiply-adds and of time.

    Args:
        cases: one for each study.

    Returns:
        One row per claim and condition: `claim`, `source`, `post_hoc`, `condition`, `verdict`, `evidence` in words,
        `num_pairs`, and `seeds_for_margin`: where it is undecided, the number of seeds that would decide it with 80 %
        power, computed for the claim's margin (0.5 points where it has none) and the spread seen, never for the
        difference seen.
    """
    tables = [compare(case.cells, _ordered(case)) for case in cases]
    family = pd.concat([table for table in tables if len(table)] or tables[:1])
    alpha = ALPHA / max(1, int((family["num_pairs"] > 0).sum()))
    adjusted = iter(holm(family["p"].to_numpy(np.float64)))
    rows = []
    for case, table in zip(cases, tables, strict=True):
        own = table.assign(p_holm=[next(adjusted) for _ in range(len(table))])
        rows += _judge_case(case, own.assign(supported=own["p_holm"] < ALPHA), alpha)
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype({"seeds_for_margin": "Int64"})


def _ordered(case: Case) -> list[Comparison]:
    return [Comparison((arm,), (other,)) for arm, other in ordered_pairs(case.claims, case.arms)]


def _judge_case(case: Case, table: pd.DataFrame, alpha: float) -> list[dict[str, Any]]:
    rows = []
    for claim in case.claims:
        for condition in case.cells["condition"].unique() if len(case.cells) else [""]:
            finding = _judge(claim, condition, case=case, table=table, alpha=alpha)
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
    return rows


def _judge(claim: Claim, condition: str, *, case: Case, table: pd.DataFrame, alpha: float) -> _Finding:
    there = case.cells[case.cells["condition"] == condition]
    have = set(there["arm"])
    if claim.kind == "cost_linear_in_tokens":
        return _judge_cost(case.costs[(case.costs["condition"] == condition) & (case.costs["arm"] == claim.arm)])
    if missing := [arm for arm in claim.arms if arm not in have]:
        return _Finding("undecided", f"no cell of {' or '.join(missing)} has ended")
    if claim.kind == "fails_to_train":
        return _judge_failure(there[there["arm"] == claim.arm])
    others = [arm for arm in case.arms if arm != claim.arm] if claim.than is None else [claim.than]
    compared = [Comparison((claim.arm,), (other,)) for other in others if other in have]
    paired = differences(there, compared)
    own = [paired[paired["comparison"] == comparison.name] for comparison in compared]
    if not own or any(len(pairs) < 2 for pairs in own):
        return _Finding("undecided", "fewer than two complete pairs", min(map(len, own), default=0))
    if claim.margin_pct is not None:
        return _judge_margin(claim, claim.margin_pct, own[0])
    tested = [_directed(table[table["condition"] == condition], comparison) for comparison in compared]
    return _judge_greater(tested, own, alpha, missing=[arm for arm in others if arm not in have])


def _directed(table: pd.DataFrame, comparison: Comparison) -> dict[str, Any]:
    """Return a comparison's row, from that of the reverse one where the family has that."""
    ours = table[table["comparison"] == comparison.name]
    if len(ours):
        return {str(name): value for name, value in ours.iloc[0].items()}
    theirs = table[table["comparison"] == Comparison(comparison.minus, comparison.plus).name].iloc[0]
    reverse = {"comparison": comparison.name, "difference_pct": -theirs["difference_pct"]}
    return {str(name): value for name, value in theirs.items()} | reverse


def _judge_greater(
    tested: list[dict[str, Any]], own: list[pd.DataFrame], alpha: float, *, missing: list[str]
) -> _Finding:
    """Judge whether every one of some differences is above zero; those to arms without a cell are not known."""
    signs = [np.sign(row["difference_pct"]) if row["supported"] else 0 for row in tested]
    verdict: Verdict = "contradicted" if min(signs) < 0 else "undecided"
    if min(signs) > 0 and not missing:
        verdict = "supported"
    parts = [f"{row['comparison']}: {row['difference_pct']:+.2f} points, p {row['p_holm']:.3f}" for row in tested]
    parts += [f"no cell of {arm} has ended" for arm in missing]
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
