"""The claims of a study as one family: verdicts that hold jointly, by Holm's method in either direction."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ablations.analysis import ALPHA, holm, smallest_one_sided_p
from ablations.analysis.claim_case import Finding, Verdict
from ablations.analysis.claim_tests import TRAINING_SHARE
from ablations.config.claim import MARGIN_KINDS, TRIAL_KINDS


@dataclass(frozen=True, kw_only=True)
class Decision:
    """A verdict within the family, and what it rests on.

    Args:
        verdict: verdict within the family.
        alone: verdict if the claim were the only one.
        p_supported: adjusted p for the claim; NaN if it was not tested.
        p_contradicted: adjusted p against the claim; NaN if it was not tested.
        out_of_reach: verdicts that no results of as many cells could give in this family.
    """

    verdict: Verdict
    alone: Verdict
    p_supported: float
    p_contradicted: float
    out_of_reach: tuple[Verdict, ...]


def family_sizes(findings: Sequence[Finding], *, num_waiting: int = 0) -> tuple[int, int]:
    """Count the tests for claims, and those against, that the verdicts are adjusted for.

    Args:
        findings: findings of all claims in all conditions.
        num_waiting: claims that are of the family and are decided later.
    """
    sides = [one.in_family_for for one in findings], [one.in_family_against for one in findings]
    num_for, num_against = (sum(side) + num_waiting for side in sides)
    return num_for, num_against


def decide(findings: Sequence[Finding], *, num_waiting: int = 0) -> list[Decision]:
    """Decide all claims together, so that each direction has a false verdict in at most 5 % of studies.

    Holm, Scand. J. Statist. 6, 65 (1979), which holds however the tests depend on each other. A claim that cannot be
    tested yet counts with p = 1, so that a verdict is not lost when it can.

    Args:
        findings: findings of all claims in all conditions.
        num_waiting: claims that are of the family and are decided later.

    >>> tests = [Finding(evidence="", p_for=p, p_against=1 - p) for p in (0.001, 0.03)]
    >>> [(one.verdict, one.alone) for one in decide([*tests, tests[1]])]
    [('supported', 'supported'), ('undecided', 'supported'), ('undecided', 'supported')]
    """
    tests_for = _Side(
        [one.p_for for one in findings],
        [one.least_for for one in findings],
        [one.in_family_for for one in findings],
        num_waiting,
    )
    tests_against = _Side(
        [one.p_against for one in findings],
        [one.least_against for one in findings],
        [one.in_family_against for one in findings],
        num_waiting,
    )
    decided = []
    for i, one in enumerate(findings):
        sides: tuple[tuple[Verdict, _Side], ...] = (("supported", tests_for), ("contradicted", tests_against))
        out: tuple[Verdict, ...] = () if one.known else tuple(what for what, side in sides if side.is_out[i])
        decided.append(
            Decision(
                verdict=one.known or _verdict(tests_for.adjusted[i], tests_against.adjusted[i]),
                alone=one.known or _verdict(one.p_for, one.p_against),
                p_supported=float(tests_for.adjusted[i]),
                p_contradicted=float(tests_against.adjusted[i]),
                out_of_reach=out,
            )
        )
    return decided


class _Side:
    """The tests of one direction.

    Args:
        p: p values; NaN if it was not tested.
        least: smallest p that each test can give.
        in_family: whether each counts in the family.
        num_waiting: further tests of the family, decided later.
    """

    def __init__(self, p: list[float], least: list[float], in_family: list[bool], num_waiting: int) -> None:
        tested, counted = np.isfinite(p), np.array(in_family, dtype=bool)
        self.adjusted = np.where(tested, _holm(np.where(tested, p, 1.0), counted, num_waiting, waits_for=1.0), math.nan)
        best = _holm(np.where(tested, least, 0.0), counted, num_waiting, waits_for=0.0)
        self.is_out = tested & (best >= ALPHA)


def _holm(
    p: npt.NDArray[np.float64], counted: npt.NDArray[np.bool_], num_waiting: int, *, waits_for: float
) -> npt.NDArray[np.float64]:
    family = np.concatenate([np.where(counted, p, math.nan), np.full(num_waiting, waits_for)])
    return holm(family)[: len(p)]


def _verdict(p_for: float, p_against: float) -> Verdict:
    return "supported" if p_for < ALPHA else "contradicted" if p_against < ALPHA else "undecided"


@dataclass(frozen=True, kw_only=True)
class Planned:
    """A verdict that a claim will have in a planned study.

    Args:
        kind: kind of the claim.
        num_seeds: cells that it is judged by, or pairs, the fewest of several comparisons; None if they are not known
            yet.
    """

    kind: str
    num_seeds: int | None


@dataclass(frozen=True, kw_only=True)
class Shortage:
    """Claims of a kind that too few cells can decide.

    Args:
        kind: kind of the claims.
        num_seeds: cells that they are judged by, or pairs; None if they are not known yet.
        verdict: the verdict that is out of reach.
        least_p: smallest p that a test of the kind can give.
        num_tests: tests in the family of that direction.
        num_needed: verdicts of other claims with smaller p that must come first; None: no results suffice.
    """

    kind: str
    num_seeds: int | None
    verdict: Verdict
    least_p: float
    num_tests: int
    num_needed: int | None


def shortages(claims: Sequence[Planned], *, num_others: int, num_trials: float | None) -> list[Shortage]:
    """Find the kinds of claims that a planned study cannot decide, or only after others, whatever its results.

    Args:
        claims: verdicts that the claims of the study will have.
        num_others: largest number of arms that one is compared with in a condition, at least 1.
        num_trials: number of trials of each arm, at points of a Sobol sequence; infinite if it is not known; None if
            there are no such trials.
    """
    found = []
    sides: tuple[tuple[Verdict, int, float | None], ...] = (
        ("supported", 1, num_trials),
        ("contradicted", num_others, None),  # by one of several differences; a trial that trains has no error
    )
    for verdict, num_differences, trials in sides:
        tested = [
            (claim.kind, claim.num_seeds) for claim in claims if claim.kind not in TRIAL_KINDS or trials is not None
        ]
        each = {(kind, n): _least_p(kind, num_differences, n, trials or 0) for kind, n in dict.fromkeys(tested)}
        num_tests, adjusted = len(tested), dict(zip(tested, holm([each[one] for one in tested]), strict=True))
        for (kind, n), p in each.items():
            if first := next(k for k in itertools.count() if p * (num_tests - k) < ALPHA):
                needed = None if adjusted[kind, n] >= ALPHA else first
                found.append(
                    Shortage(kind=kind, num_seeds=n, verdict=verdict, least_p=p, num_tests=num_tests, num_needed=needed)
                )
    return found


def _least_p(kind: str, num_differences: int, num_seeds: int | None, num_trials: float) -> float:
    """Return the smallest p that a test of a kind of claim can give; 0 if it has no bound."""
    if kind in TRIAL_KINDS:
        return float((1 - TRAINING_SHARE) ** num_trials)
    if num_seeds is None or kind == "cost_linear_in_tokens":
        return 0.0
    if num_seeds < 2 and kind != "fails_to_train":
        return 1.0  # fewer than two pairs are not tested
    if kind in MARGIN_KINDS:
        return 0.0
    if kind == "fails_to_train":
        return float(0.5**num_seeds)
    least = smallest_one_sided_p(num_seeds) * (num_differences if kind == "better_than_every_other" else 1)
    return min(1.0, least)
