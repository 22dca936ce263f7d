"""Verdicts on claims: supported, contradicted or undecided."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from ablations.analysis import ALPHA
from ablations.analysis.claim_case import Case, Finding
from ablations.analysis.claim_tests import examine
from ablations.analysis.family import Decision, decide, family_sizes
from ablations.config.claim import Claim

COLUMNS = (
    *("claim", "source", "post_hoc", "known_from", "condition", "verdict", "alone"),
    *("p_supported", "p_contradicted", "p_supported_holm", "p_contradicted_holm"),
    *("num_tests_supported", "num_tests_contradicted", "evidence", "num_pairs", "detectable_pct", "seeds_for_margin"),
)


def judge(cases: Sequence[Case]) -> pd.DataFrame:
    """Judge every claim of one or several studies in every condition, all of them as one family.

    Each claim has a p for it and one against it. Holm's method adjusts the p for all claims in all conditions, and
    those against apart; a claim is supported or contradicted by an adjusted p below 0.05, so that each direction has a
    false verdict in at most 5 % of studies. The tests are one-sided:

    - *Better than*: sign-flip tests that the difference is above or below 0. *Better than every other*: the largest p
      of its differences, which needs pairs with every other arm of the study; against it the smallest, times their
      number.
    - *Worse by at least m*: t tests against -m. *Equivalent within m*: TOST, and against it twice the smaller p of the
      t tests beyond -m and m. Both use sign-flip tests if there are chance scores.
    - *Less stable than*: sign-flip tests that the difference of the frontiers, the largest learning rates that train,
      is below or above 0, over the learning rates of a setting (`ablations.analysis.frontier`).
    - *Explained by scale*: the larger p of *worse by at least m* at the arms' own scale and *equivalent within m* at
      the matched one; against it twice the smaller p against either.
    - *Fails to train*: exact binomial tests that more or less than half of the cells diverge, failed ones excluded.
    - *Fails to train at any learning rate in the range*: contradicted by one trial that trains, without error.
      Otherwise an exact binomial test that less than one fifth of the range trains, if the trials are of a Sobol
      sequence: 0.8^n for n trials, none of which trains.
    - *Cost linear in tokens*: t tests over rounds of the time's exponent, against 1.2; contradicted by the exponent of
      the multiply-adds without error. Both must be measured to support it.

    A claim that has no cells yet counts with p = 1. A claim that this study cannot test does not count, nor does a
    direction that is decided without error.

    Args:
        cases: one per study.

    Returns:
        One row per claim and condition that has its arms: `claim`, `source`, `post_hoc`, `known_from` (studies whose
        results were known), `condition`, `verdict`; `alone`, the verdict if the claim were the only one; `p_supported`
        and `p_contradicted`, the p for and against it, and the same adjusted, `p_supported_holm` and
        `p_contradicted_holm`, missing without a test; `num_tests_supported` and `num_tests_contradicted`, the tests
        that each is adjusted for, the same in all rows; `evidence` in words; `num_pairs`, the fewest of several
        comparisons; `detectable_pct`, the difference (or distance from a margin) detectable with 80 % power at the
        observed spread and at 0.05 divided by the number of tests, the largest of several comparisons;
        `seeds_for_margin`, the seeds that decide an undecided claim with 80 % power at that level, from its margin (0.5
        points if it has none) and the observed spread, never from the observed difference; missing if the study already
        has that many.
    """
    asked = [
        (claim, condition, examine(claim, condition, case))
        for case in cases
        for claim in case.claims
        for condition in case.settings_of(claim)
    ]
    findings, num_waiting = [finding for *_, finding in asked], sum(case.num_waiting for case in cases)
    sizes = family_sizes(findings, num_waiting=num_waiting)
    decisions = decide(findings, num_waiting=num_waiting)
    rows = [_row(*one, decision, sizes) for one, decision in zip(asked, decisions, strict=True)]
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype({"seeds_for_margin": "Int64"})


def _row(claim: Claim, condition: str, finding: Finding, decision: Decision, sizes: tuple[int, int]) -> dict[str, Any]:
    evidence, detectable, seeds = finding.evidence, math.nan, math.nan
    is_open, alpha = decision.verdict == "undecided", ALPHA / max(1, *sizes)
    if finding.power is not None:
        detectable = finding.power.detectable_at(alpha)
        seeds = finding.power.seeds_at(alpha) if is_open else math.nan
    if is_open and decision.out_of_reach:
        evidence += (
            f"; too few cells to be {' or '.join(decision.out_of_reach)} among these claims, whatever the scores"
        )
    elif is_open and finding.too_near and seeds <= finding.num_pairs:
        evidence += f"; {finding.too_near}"
    return {
        "claim": claim.statement,
        "source": claim.source,
        "post_hoc": claim.post_hoc,
        "known_from": "; ".join(claim.known_from),
        "condition": condition,
        "verdict": decision.verdict,
        "alone": decision.alone,
        "p_supported": finding.p_for,
        "p_contradicted": finding.p_against,
        "p_supported_holm": decision.p_supported,
        "p_contradicted_holm": decision.p_contradicted,
        "num_tests_supported": sizes[0],
        "num_tests_contradicted": sizes[1],
        "evidence": evidence,
        "num_pairs": finding.num_pairs,
        "detectable_pct": detectable,
        "seeds_for_margin": seeds if is_open and seeds > finding.num_pairs else math.nan,
    }
