"""Verdicts on claims: supported, contradicted or undecided."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
import pandas as pd

from ablations.analysis import (
    ALPHA,
    LINEAR,
    MARGIN_PCT,
    Comparison,
    Detectable,
    compare,
    cost_exponents,
    detectable_difference,
    differences,
    equivalence_p,
    holm,
    one_sided_p,
    seeds_for,
    sign_flip_one_sided_p,
    t_detectable_difference,
    wilson_interval,
)
from ablations.config.claim import Claim, ordered_pairs
from ablations.config.values import plural

Verdict = Literal["supported", "contradicted", "undecided"]

COSTS = ("multiply_adds", "time_s")
"""Quantities that must be measured at several numbers of tokens; the time, which is not exact, in several rounds."""

BOUND_P, TRAINING_SHARE = 0.05, 0.2
"""A claim that no learning rate trains is supported if, at this p, less than this share of the range trains."""

COLUMNS = (
    *("claim", "source", "post_hoc", "condition", "verdict", "evidence", "num_pairs"),
    *("detectable_pct", "seeds_for_margin"),
)


@dataclass(frozen=True)
class _Finding:
    """A verdict and its evidence."""

    verdict: Verdict
    evidence: str
    num_pairs: int = 0
    detectable_pct: float = math.nan
    seeds_for_margin: float = math.nan


@dataclass(frozen=True, kw_only=True)
class Case:
    """A study's claims and the data to judge them by.

    Args:
        claims: the study's claims.
        arms: all arms of the study, including those without a cell.
        conditions: all conditions of the study, including those without a cell.
        cells: one row per cell, as `ablations.analysis.summarise` takes them.
        costs: measurements of `ablations bench cost`, possibly no row: `condition`, `arm`, `quantity`, `tokens`,
            `round`, `value`.
        trials: the study's tuning trials, one row each; no row without a tuning.
        sampler: sampler of the tuning's points; None without a tuning.
    """

    claims: Sequence[Claim]
    arms: Sequence[str]
    conditions: Sequence[str]
    cells: pd.DataFrame
    costs: pd.DataFrame
    trials: pd.DataFrame = field(default_factory=pd.DataFrame)
    sampler: str | None = None


def judge(cases: Sequence[Case]) -> pd.DataFrame:
    """Judge every claim of one or several studies in every condition.

    - *Better than*: supported or contradicted by a two-sided sign-flip p below 0.05 and the sign of the difference.
      Holm's adjustment covers every pair of arms that any claim orders, in all conditions. *Better than every other*
      requires pairs with every other arm of the study.
    - *Worse by at least m*: one-sided tests against -m at 0.05. *Equivalent within m*: TOST at 0.05, contradicted if
      the 95 % interval lies outside. Both use t tests, or sign-flip tests if there are chance scores.
    - *Fails to train*: decided by the 95 % Wilson interval of the share of diverged cells, failed ones excluded: above
      or below one half.
    - *Fails to train at any learning rate in the range*: contradicted by one trial that trains. Otherwise supported if
      the trials of a Sobol sequence bound the share of the range that trains below one fifth with 95 % confidence
      (exactly, 1 - 0.05^(1/n): 14 trials).
    - *Cost linear in tokens*: decided by the exponents of multiply-adds and of time, both measured.

    Args:
        cases: one per study.

    Returns:
        One row per claim and condition: `claim`, `source`, `post_hoc`, `condition`, `verdict`, `evidence` in words;
        `num_pairs`, the fewest of several comparisons; `detectable_pct`, the difference (or distance from a margin)
        detectable with 80 % power at the observed spread, the largest of several comparisons; `seeds_for_margin`, the
        seeds that decide an undecided claim with 80 % power, from its margin (0.5 points if it has none) and the
        observed spread, never from the observed difference; missing if the study already has that many.
    """
    ordered = [[Comparison((a,), (b,)) for a, b in ordered_pairs(case.claims, case.arms)] for case in cases]
    tables = [compare(case.cells, comparisons) for case, comparisons in zip(cases, ordered, strict=True)]
    family = pd.concat([table for table in tables if len(table)] or tables[:1])
    alpha = ALPHA / max(1, int((family["num_pairs"] > 0).sum()))
    adjusted = iter(holm(family["p"].to_numpy(np.float64)))
    rows = []
    for case, table in zip(cases, tables, strict=True):
        own = table.assign(p_holm=[next(adjusted) for _ in range(len(table))])
        rows += _judge_case(case, own.assign(supported=own["p_holm"] < ALPHA), alpha)
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype({"seeds_for_margin": "Int64"})


def _judge_case(case: Case, table: pd.DataFrame, alpha: float) -> list[dict[str, Any]]:
    rows = []
    for claim in case.claims:
        for condition in case.conditions:
            finding = _judge(claim, condition, case=case, table=table, alpha=alpha)
            is_open = finding.verdict == "undecided" and finding.seeds_for_margin > finding.num_pairs
            said = {"claim": claim.statement, "source": claim.source, "post_hoc": claim.post_hoc}
            seeds = finding.seeds_for_margin if is_open else math.nan
            rows.append({**said, "condition": condition, **asdict(finding), "seeds_for_margin": seeds})
    return rows


def _judge(claim: Claim, condition: str, *, case: Case, table: pd.DataFrame, alpha: float) -> _Finding:
    cells = case.cells[case.cells["condition"] == condition]
    have = set(cells["arm"])
    if claim.kind == "fails_at_any_lr":
        return _judge_trials(claim.arm, case)
    if claim.kind == "cost_linear_in_tokens":
        return _judge_cost(case.costs[(case.costs["condition"] == condition) & (case.costs["arm"] == claim.arm)])
    if missing := [arm for arm in claim.arms if arm not in have]:
        return _Finding("undecided", f"no cell of {' or '.join(missing)} has ended")
    if claim.kind == "fails_to_train":
        return _judge_failure(cells[cells["arm"] == claim.arm])
    others = [arm for arm in case.arms if arm != claim.arm] if claim.than is None else [claim.than]
    compared = {other: Comparison((claim.arm,), (other,)) for other in others if other in have}
    own = {other: differences(cells, [comparison]) for other, comparison in compared.items()}
    few = [other for other, pairs in own.items() if len(pairs) < 2]
    if len(few) == len(own):
        return _Finding("undecided", "fewer than two complete pairs", min(map(len, own.values()), default=0))
    if claim.margin_pct is not None:
        (pairs,) = own.values()
        return _judge_margin(claim, claim.margin_pct, pairs, _pairs_text(cells, claim.arms, pairs))
    missing = [f"no cell of {other} has ended" for other in others if other not in have]
    missing += [f"fewer than two complete pairs with {other}" for other in few]
    in_condition = table[table["condition"] == condition]
    tested = {other: pairs for other, pairs in own.items() if other not in few}
    rows = [_directed(in_condition, compared[other]) for other in tested]
    counts = [_pairs_text(cells, [claim.arm, other], pairs) for other, pairs in tested.items()]
    return _judge_greater(rows, list(tested.values()), counts, alpha=alpha, missing=missing)


def _pairs_text(cells: pd.DataFrame, arms: Sequence[str], own: pd.DataFrame) -> str:
    """Count the pairs of a comparison, in words: all, left out, with a chance score, of mixed freshness."""
    num_seeds = cells.loc[cells["arm"].isin(arms), "seed"].nunique()
    counts = {
        "left out": num_seeds - len(own),
        "with a chance score": int(own["has_chance"].sum()),
        "of a stale cell and a fresh one": int(own["is_mixed"].sum()),
    }
    return ", ".join([f"{len(own)} pairs", *(f"{count} {what}" for what, count in counts.items() if count)])


def _directed(table: pd.DataFrame, comparison: Comparison) -> dict[str, Any]:
    """Return a comparison's row, derived from the reverse comparison if only that one is in the table."""
    ours = table[table["comparison"] == comparison.name]
    if len(ours):
        return {str(name): value for name, value in ours.iloc[0].items()}
    theirs = table[table["comparison"] == Comparison(comparison.minus, comparison.plus).name].iloc[0]
    reverse = {"comparison": comparison.name, "difference_pct": -theirs["difference_pct"]}
    return {str(name): value for name, value in theirs.items()} | reverse


def _judge_greater(
    rows: list[dict[str, Any]], own: list[pd.DataFrame], counts: list[str], *, alpha: float, missing: list[str]
) -> _Finding:
    """Judge whether all differences are above zero; differences to arms without pairs are unknown."""
    signs = [np.sign(row["difference_pct"]) if row["supported"] else 0 for row in rows]
    verdict: Verdict = "contradicted" if min(signs) < 0 else "undecided"
    if min(signs) > 0 and not missing:
        verdict = "supported"
    parts = [
        f"{row['comparison']}: {row['difference_pct']:+.2f} points, p {row['p_holm']:.3f}, {count}"
        for row, count in zip(rows, counts, strict=True)
    ]
    power = [_power(pairs, MARGIN_PCT, detectable_difference, alpha=alpha, power=0.8) for pairs in own]
    detectable, seeds = map(float, np.max(power, axis=0))  # NaN if any is unknown
    num_pairs = min(map(len, own))
    text = "; ".join([*parts, *missing])
    if verdict == "undecided" and not missing and seeds <= num_pairs:
        text += f"; this number of pairs detects {MARGIN_PCT:g} points: the difference is too near zero"
    return _Finding(verdict, text, num_pairs, detectable, seeds)


def _judge_margin(claim: Claim, margin_pct: float, own: pd.DataFrame, counts: str) -> _Finding:
    values, by_chance = own["difference_pct"].to_numpy(np.float64), bool(own["has_chance"].any())
    test = sign_flip_one_sided_p if by_chance else one_sided_p
    if claim.kind == "worse_by":
        below, above = (test(values, -margin_pct, below=side) for side in (True, False))
        verdict: Verdict = "supported" if below < ALPHA else "contradicted" if above < ALPHA else "undecided"
        tests = f"p {below:.3f} below, {above:.3f} above {-margin_pct:+g}"
        power = 0.8
    else:
        inside = equivalence_p(values, margin_pct) if not by_chance else math.nan
        outside = min(test(values, margin_pct, below=False), test(values, -margin_pct, below=True))
        verdict = "supported" if inside < ALPHA else "contradicted" if outside < ALPHA / 2 else "undecided"
        within = "equivalence is not tested" if by_chance else f"p {inside:.3f} inside"
        tests = f"{within}, p {outside:.3f} outside {margin_pct:g}"
        power = 0.9  # for each of the two tests, so that both reject with 80 %
    how = "sign-flip" if by_chance or np.ptp(values) == 0 else "t"
    text = f"{values.mean():+.2f} points, {counts}; one-sided {how} tests: {tests}"
    detectable, seeds = _power(own, margin_pct, t_detectable_difference, alpha=2 * ALPHA, power=power)
    if verdict == "undecided" and seeds <= len(own):
        text += f"; this number of pairs resolves {margin_pct:g} points: the difference is too near the margin"
    return _Finding(verdict, text, len(own), detectable, seeds)


def _power(
    own: pd.DataFrame, margin_pct: float, detectable: Detectable, *, alpha: float, power: float
) -> tuple[float, float]:
    """Return the detectable difference and the seeds that a margin needs; NaN if the spread is unknown or zero."""
    values = own["difference_pct"].to_numpy(np.float64)
    if own["has_chance"].any() or np.ptp(values) == 0:
        return math.nan, math.nan
    sd = float(values.std(ddof=1))
    seeds = seeds_for(margin_pct, sd, alpha=alpha, power=power, detectable=detectable)
    return detectable(sd, len(values), alpha=alpha, power=power), seeds


def _judge_failure(own: pd.DataFrame) -> _Finding:
    num_diverged, n = int((own["outcome"] == "diverged").sum()), int((own["outcome"] != "failed").sum())
    low, high = wilson_interval(num_diverged, n)
    verdict: Verdict = "supported" if low > 0.5 else "contradicted" if high < 0.5 else "undecided"
    interval = f", 95 % interval of the share [{low:.2f}, {high:.2f}]" if n else ""
    counts = {"failed and are left out": len(own) - n, "are stale": int(own["stale"].sum())}
    left = "".join(f"; {count} {what}" for what, count in counts.items() if count)
    return _Finding(verdict, f"{num_diverged} of {n} cells diverged{interval}{left}")


def _judge_trials(arm: str, case: Case) -> _Finding:
    """Judge whether an arm fails to train at every searched learning rate."""
    if case.sampler is None or "lr_place" not in case.trials:
        return _Finding("undecided", "the learning rate was not searched: python -m ablations tune")
    own = case.trials[case.trials["arm"] == arm]
    ended = own[own["outcome"] != "failed"]
    trained = ended[ended["outcome"] == "ok"]
    counts = {"failed and are left out": len(own) - len(ended), "are stale": int(own["stale"].sum())}
    left = "".join(f"; {count} {what}" for what, count in counts.items() if count)
    if len(trained):
        low, high = trained["lr"].min(), trained["lr"].max()
        return _Finding("contradicted", f"{len(trained)} of {len(ended)} trials train, at lr {low:g} to {high:g}{left}")
    if not len(ended):
        return _Finding("undecided", f"no trial has a result{left}")
    bound = 1 - BOUND_P ** (1 / len(ended))
    text = f"{plural(len(ended), 'trial')}, all diverged"
    if case.sampler != "sobol":
        return _Finding("undecided", f"{text}, but points by TPE bound no share of the range{left}")
    text += f": at most {100 * bound:.0f} % of the searched range trains, with 95 % confidence"
    return _Finding("supported" if bound < TRAINING_SHARE else "undecided", text + left)


def _judge_cost(own: pd.DataFrame) -> _Finding:
    exponents = cost_exponents(own)
    if exponents.empty:
        return _Finding("undecided", "not measured: python -m ablations bench cost STUDY")
    rows = exponents.to_dict("records")
    parts = [f"{row['quantity']} ~ N^{row['exponent']:.2f} [{row['low']:.2f}, {row['high']:.2f}]" for row in rows]
    is_sure = {row["quantity"]: row["quantity"] != "time_s" or row["rounds"] > 1 for row in rows}
    parts += [f"{quantity} has only one complete round" for quantity, sure in is_sure.items() if not sure]
    absent = [quantity for quantity in COSTS if quantity not in is_sure]
    parts += [f"{quantity} is not measured" for quantity in absent]
    verdict: Verdict = "undecided"
    if any(row["low"] > LINEAR and is_sure[row["quantity"]] for row in rows):
        verdict = "contradicted"
    elif all(row["high"] < LINEAR for row in rows) and all(is_sure.values()) and not absent:
        verdict = "supported"
    return _Finding(verdict, "; ".join(parts))
