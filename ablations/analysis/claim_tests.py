"""Tests of single claims: a p for each claim and one against it, from the cells of a study."""

from __future__ import annotations

import math

import pandas as pd

from ablations.analysis import (
    LINEAR,
    binomial_p,
    cost_exponents,
    wilson_interval,
)
from ablations.analysis.claim_case import Case, Finding, Verdict
from ablations.analysis.pair_claims import margin_finding, order_finding, pairs_text
from ablations.analysis.setting_claims import setting_finding
from ablations.config.claim import ACROSS, Claim
from ablations.config.values import plural

COSTS = ("multiply_adds", "time_s")
"""Quantities that must be measured at several numbers of tokens; the time, which is not exact, in several rounds."""

BOUND_P, TRAINING_SHARE = 0.05, 0.2
"""A claim that no learning rate trains is tested against this share of the range; its bound is shown at this p."""

DIVERGED_SHARE = 0.5
"""An arm fails to train if more than this share of its cells diverge."""


def examine(claim: Claim, condition: str, case: Case) -> Finding:
    """Test a claim in one condition of a study.

    Each test is one-sided, and its p is valid by itself; `ablations.analysis.claims.judge` lists the tests.
    """
    if claim.kind not in ACROSS and claim.statement in case.settings and not case.settings[claim.statement]:
        return Finding(evidence=_unjudged_text(claim, case), in_family_for=False, in_family_against=False)
    if claim.kind == "fails_at_any_lr":
        return _test_trials(claim.arm, case)
    if claim.kind == "cost_linear_in_tokens":
        return _test_cost(case.costs_by_arm.get((condition, claim.arm), case.costs.iloc[:0]))
    if claim.kind in ACROSS:
        return setting_finding(claim, condition, case)
    cells = case.cells_by_arm.get(condition, {})
    if missing := [arm for arm in claim.arms if arm not in cells]:
        is_arm = set(claim.arms) <= set(case.arms_in(condition))
        text = f"no cell of {' or '.join(missing)} has ended"
        if not is_arm and set(claim.arms) <= set(case.arms):
            text = f"no condition has both {' and '.join(claim.arms)}"
        return Finding(evidence=text, in_family_for=is_arm, in_family_against=is_arm)
    if claim.kind == "fails_to_train":
        return _test_failure(cells[claim.arm])
    others = [arm for arm in case.arms_in(condition) if arm != claim.arm] if claim.than is None else [claim.than]
    own = {other: case.pairs(claim.arm, other, condition) for other in others if other in cells}
    few = [other for other, pairs in own.items() if len(pairs) < 2]
    if len(few) == len(own):
        return Finding(evidence="fewer than two complete pairs", num_pairs=min(map(len, own.values()), default=0))
    tested = {other: pairs for other, pairs in own.items() if other not in few}
    counts = [pairs_text([cells[claim.arm], cells[other]], pairs) for other, pairs in tested.items()]
    if claim.margin_pct is not None:
        return margin_finding(claim, claim.margin_pct, tested[others[0]], counts[0])
    missing = [f"no cell of {other} has ended" for other in others if other not in cells]
    missing += [f"fewer than two complete pairs with {other}" for other in few]
    return order_finding(claim.arm, tested, counts, missing)


def _unjudged_text(claim: Claim, case: Case) -> str:
    """Say why no condition judges a claim that is restricted to some values."""
    if unknown := [arm for arm in claim.arms if arm not in case.arms]:
        return f"no cell of {' or '.join(unknown)} has ended"
    if not any(set(claim.arms) <= set(case.arms_in(name)) for name in case.conditions):
        return f"no condition has both {' and '.join(claim.arms)}"
    return "no condition has these values"


def _test_failure(own: pd.DataFrame) -> Finding:
    """Test by the exact binomial distribution whether more than half of an arm's cells diverge, or less."""
    num_diverged, n = int((own["outcome"] == "diverged").sum()), int((own["outcome"] != "failed").sum())
    counts = {"failed and are left out": len(own) - n, "are stale": int(own["stale"].sum())}
    left = "".join(f"; {count} {what}" for what, count in counts.items() if count)
    text = f"{num_diverged} of {n} cells diverged"
    if not n:
        return Finding(evidence=text + left)
    low, high = wilson_interval(num_diverged, n)
    above, below = (binomial_p(num_diverged, n, DIVERGED_SHARE, above=side) for side in (True, False))
    text += f", 95 % interval of the share [{low:.2f}, {high:.2f}]; binomial p {above:.4f} above, {below:.4f} below 0.5"
    return Finding(evidence=text + left, p_for=above, p_against=below, least_for=0.5**n, least_against=0.5**n)


def _test_trials(arm: str, case: Case) -> Finding:
    """Test whether an arm fails to train at every searched learning rate; a trial that trains contradicts it."""
    if case.sampler is None or "lr_place" not in case.trials:
        text = "the learning rate was not searched: python -m ablations tune"
        return Finding(evidence=text, in_family_for=False, in_family_against=False)
    is_bounded = case.sampler == "sobol" and arm in case.arms
    own = case.trials[case.trials["arm"] == arm]
    ended = own[own["outcome"] != "failed"]
    trained = ended[ended["outcome"] == "ok"]
    counts = {"failed and are left out": len(own) - len(ended), "are stale": int(own["stale"].sum())}
    left = "".join(f"; {count} {what}" for what, count in counts.items() if count)
    known: Verdict | None = None
    p_for, n = math.nan, len(ended)
    if len(trained):
        low, high = trained["lr"].min(), trained["lr"].max()
        text, known = f"{len(trained)} of {n} trials train, at lr {low:g} to {high:g}", "contradicted"
    elif not n:
        text = "no trial has a result"
    else:
        text = f"{plural(n, 'trial')}, all diverged"
        if is_bounded:
            p_for = binomial_p(0, n, TRAINING_SHARE, above=False)
            share = 100 * (1 - BOUND_P ** (1 / n))
            text += (
                f": at most {share:.0f} % of the searched range trains, with 95 % confidence; binomial p {p_for:.4f}"
            )
            text += f" below {TRAINING_SHARE:g}"
        else:
            text += ", but points by TPE bound no share of the range"
    return Finding(
        evidence=text + left,
        p_for=p_for,
        least_for=(1 - TRAINING_SHARE) ** n if n else 0.0,
        known=known,
        in_family_for=is_bounded,
        in_family_against=False,
    )


def _test_cost(own: pd.DataFrame) -> Finding:
    """Test whether a cost is linear: counts decide without error, times by t tests over the rounds."""
    exponents = cost_exponents(own)
    if exponents.empty:
        return Finding(evidence="not measured: python -m ablations bench cost STUDY")
    rows = {row["quantity"]: row for row in exponents.to_dict("records")}
    parts = [f"{name} ~ N^{row['exponent']:.2f} [{row['low']:.2f}, {row['high']:.2f}]" for name, row in rows.items()]
    counts, times = (rows.get(name) for name in COSTS)
    is_sure = times is not None and times["rounds"] > 1
    parts += ["time_s has only one complete round"] if times is not None and not is_sure else []
    parts += [f"{name} is not measured" for name in COSTS if name not in rows]
    if counts is not None and counts["low"] > LINEAR:
        text = "; ".join([*parts, "the counts decide, without error"])
        return Finding(evidence=text, known="contradicted", in_family_for=False, in_family_against=False)
    below, above = (times["p_below"], times["p_above"]) if times is not None and is_sure else (math.nan, math.nan)
    if is_sure:
        parts.append(f"one-sided t tests of the time: p {below:.4f} below, {above:.4f} above {LINEAR:g}")
    may_support = counts is not None and counts["high"] < LINEAR
    return Finding(evidence="; ".join(parts), p_for=below if may_support else math.nan, p_against=above)
