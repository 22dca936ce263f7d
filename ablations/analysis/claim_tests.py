"""Tests of single claims: a p for each claim and one against it, from the cells of a study."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np
import pandas as pd

from ablations.analysis import (
    LINEAR,
    MARGIN_PCT,
    Comparison,
    binomial_p,
    cost_exponents,
    detectable_difference,
    differences,
    equivalence_p,
    one_sided_p,
    sign_flip_one_sided_p,
    smallest_one_sided_p,
    t_detectable_difference,
    wilson_interval,
)
from ablations.analysis.claim_power import Power
from ablations.config.claim import Claim
from ablations.config.values import plural

Verdict = Literal["supported", "contradicted", "undecided"]

COSTS = ("multiply_adds", "time_s")
"""Quantities that must be measured at several numbers of tokens; the time, which is not exact, in several rounds."""

TESTED = ["condition", "arm", "seed", "score_pct", "outcome", "kind", "stale"]
"""Columns of cells that claims are tested by."""

BOUND_P, TRAINING_SHARE = 0.05, 0.2
"""A claim that no learning rate trains is tested against this share of the range; its bound is shown at this p."""

DIVERGED_SHARE = 0.5
"""An arm fails to train if more than this share of its cells diverge."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """A study's claims and the data to judge them by.

    Args:
        claims: the study's claims.
        arms: all arms of the study, including those without a cell.
        conditions: all conditions of the study, including those without a cell.
        asked: arms of each condition; empty: every condition has all arms.
        cells: one row per cell, as `ablations.analysis.summarise` takes them.
        costs: measurements of `ablations bench cost`, possibly no row: `condition`, `arm`, `quantity`, `tokens`,
            `round`, `value`.
        trials: the study's tuning trials, one row each; no row without a tuning.
        sampler: sampler of the tuning's points; None without a tuning.
        num_waiting: claims that are of the family and are decided later, by the winners of a tuning.
    """

    claims: Sequence[Claim]
    arms: Sequence[str]
    conditions: Sequence[str]
    cells: pd.DataFrame
    costs: pd.DataFrame
    asked: Mapping[str, Sequence[str]] = field(default_factory=dict)
    trials: pd.DataFrame = field(default_factory=pd.DataFrame)
    sampler: str | None = None
    num_waiting: int = 0

    def arms_in(self, condition: str) -> Sequence[str]:
        """Return the arms that a condition has, including those without a cell."""
        return self.asked.get(condition, () if self.asked else self.arms)

    def conditions_of(self, claim: Claim) -> list[str]:
        """Return the conditions that have the arms of a claim; if none has, all, or one of no name for known arms."""
        arms = set(claim.arms)
        found = [name for name in self.conditions if arms <= set(self.arms_in(name))]
        return found or ([""] if arms <= set(self.arms) else list(self.conditions))

    @cached_property
    def cells_by_arm(self) -> dict[str, dict[str, pd.DataFrame]]:
        """Cells by condition and arm, of those that have a cell, with the columns that claims are tested by."""
        found: dict[str, dict[str, pd.DataFrame]] = {}
        for (condition, arm), own in self.cells[TESTED].groupby(["condition", "arm"], sort=False):
            found.setdefault(str(condition), {})[str(arm)] = own
        return found

    @cached_property
    def costs_by_arm(self) -> dict[tuple[str, str], pd.DataFrame]:
        """Measurements by condition and arm, of those that have one."""
        found = self.costs.groupby(["condition", "arm"], sort=False)
        return {(str(condition), str(arm)): own for (condition, arm), own in found}

    def pairs(self, arm: str, other: str, condition: str) -> pd.DataFrame:
        """Return the differences of two arms per seed in a condition; those of all conditions are computed at once."""
        if (arm, other) not in self._pairs:
            found = differences(self.cells[TESTED], [Comparison((arm,), (other,))])
            self._pairs[arm, other] = {str(name): own for name, own in found.groupby("condition", sort=False)}
        return self._pairs[arm, other].get(condition, pd.DataFrame())

    @cached_property
    def _pairs(self) -> dict[tuple[str, str], dict[str, pd.DataFrame]]:
        return {}


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What the data say about a claim in a condition, before any adjustment.

    Args:
        evidence: the numbers, in words.
        p_for: p of the hypothesis that the claim is false; NaN if it was not tested.
        p_against: p of the hypothesis that the claim is true; NaN if it was not tested.
        least_for: smallest p that the test for the claim can give with as many cells.
        least_against: the same of the test against it.
        known: verdict that follows from facts without error; None if only tests decide.
        in_family_for: whether the study can have a test for the claim, so that it counts in the family.
        in_family_against: whether the study can have a test against it.
        num_pairs: pairs, the fewest of several comparisons.
        power: what the pairs can detect; None without any.
        too_near: what to say of an undecided claim whose pairs are enough.
    """

    evidence: str
    p_for: float = math.nan
    p_against: float = math.nan
    least_for: float = 0.0
    least_against: float = 0.0
    known: Verdict | None = None
    in_family_for: bool = True
    in_family_against: bool = True
    num_pairs: int = 0
    power: Power | None = None
    too_near: str = ""


def examine(claim: Claim, condition: str, case: Case) -> Finding:
    """Test a claim in one condition of a study.

    Each test is one-sided, and its p is valid by itself; `ablations.analysis.claims.judge` lists the tests.
    """
    if claim.kind == "fails_at_any_lr":
        return _test_trials(claim.arm, case)
    if claim.kind == "cost_linear_in_tokens":
        return _test_cost(case.costs_by_arm.get((condition, claim.arm), case.costs.iloc[:0]))
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
    counts = [_pairs_text([cells[claim.arm], cells[other]], pairs) for other, pairs in tested.items()]
    if claim.margin_pct is not None:
        return _test_margin(claim, claim.margin_pct, tested[others[0]], counts[0])
    missing = [f"no cell of {other} has ended" for other in others if other not in cells]
    missing += [f"fewer than two complete pairs with {other}" for other in few]
    return _test_order(claim.arm, tested, counts, missing)


def _pairs_text(cells: Sequence[pd.DataFrame], own: pd.DataFrame) -> str:
    """Count the pairs of a comparison, in words: all, left out, with a chance score, of mixed freshness."""
    num_seeds = len(set().union(*(arm["seed"] for arm in cells)))
    counts = {
        "left out": num_seeds - len(own),
        "with a chance score": int(own["has_chance"].sum()),
        "of a stale cell and a fresh one": int(own["is_mixed"].sum()),
    }
    return ", ".join([f"{len(own)} pairs", *(f"{count} {what}" for what, count in counts.items() if count)])


def _test_order(arm: str, tested: dict[str, pd.DataFrame], counts: list[str], missing: list[str]) -> Finding:
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


def _test_margin(claim: Claim, margin_pct: float, own: pd.DataFrame, counts: str) -> Finding:
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
