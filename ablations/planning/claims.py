"""What a plan says of a study's claims: what cannot be decided, and what was known."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from ablations.analysis.family import Planned, Shortage, shortages
from ablations.config import Study
from ablations.config.claim import ACROSS, TRIAL_KINDS, Claim
from ablations.config.settings import settings_of_claims
from ablations.config.values import plural

ENDLESS = 2_000
"""A number of seeds or trials at which every smallest p has reached its limit: 0, or that of drawn sign flips."""


def claim_lines(study: Study) -> list[str]:
    """Describe in lines what a study cannot say of its claims, and which numbers were known before them."""
    lines = []
    unasked = {arm: None for claim in study.claims for arm in claim.arms if arm not in study.arm_names}
    if unasked:
        lines.append(f"claims about arms that are not in this study stay undecided: {', '.join(unasked)}")
    each = list(study.arms_by_condition.values())
    apart = [
        f"'{claim.statement}'"
        for claim in study.claims
        if set(claim.arms) <= set(study.arm_names) and not any(set(claim.arms) <= set(arms) for arms in each)
    ]
    if apart:
        lines.append(f"claims about arms that no condition has together stay undecided: {', '.join(apart)}")
    lines += _unjudged_lines(study)
    either: dict[Shortage, list[str]] = {}
    for short in _shortages(study, _num_trials(study)):
        if (short.kind in TRIAL_KINDS) == study.is_tuning:
            either.setdefault(replace(short, verdict="undecided"), []).append(short.verdict)
    lines += [_shortage_line(study, short, verdicts) for short, verdicts in either.items()]
    known: dict[str, list[str]] = {}
    for claim in study.claims:
        for source in claim.known_from:
            known.setdefault(source, []).append(f"'{claim.statement}'")
    return lines + [
        f"numbers known from {source} before {'this claim was' if len(claims) == 1 else 'these claims were'} in this "
        f"study: {', '.join(claims)}"
        for source, claims in known.items()
    ]


def _num_trials(study: Study) -> float | None:
    """Return the trials of each arm that bound a share of the range; None without such trials."""
    if study.search is None or study.search.sampler != "sobol":
        return None
    return len(study.axes["seed"]) if study.is_tuning else math.inf  # they were counted when they were planned


def _unjudged_lines(study: Study) -> list[str]:
    """Name the claims that no condition judges though it has their arms, and the reason."""
    lines = []
    each = list(study.arms_by_condition.values())
    for claim, settings in zip(study.claims, settings_of_claims(study), strict=True):
        if settings or not any(set(claim.arms) <= set(arms) for arms in each):
            continue
        across = ACROSS.get(claim.kind)
        reason = "no condition has these values" if across is None else f"that takes several values of {across}"
        lines.append(f"'{claim.statement}' stays undecided: {reason}")
    return lines


def _shortages(study: Study, num_trials: float | None, num_seeds: int | None = None) -> list[Shortage]:
    """Find what is out of reach, with the seeds that each claim has in each setting or with a given number."""
    held = {} if study.is_tuning or num_seeds is not None else _seeds_held(study)
    planned = [
        Planned(kind=claim.kind, num_seeds=_num_seeds(claim, conditions, held) if held else num_seeds)
        for claim, settings in zip(study.claims, settings_of_claims(study), strict=True)
        for conditions in settings.values()
    ]
    num_others = max(1, *(len(arms) - 1 for arms in study.arms_by_condition.values()))
    return shortages(planned, num_others=num_others, num_trials=num_trials)


def _seeds_held(study: Study) -> dict[str, dict[str, set[int]]]:
    """Return the seeds of each arm in each condition."""
    held: dict[str, dict[str, set[int]]] = {}
    for arm, condition, seed in study.places:
        held.setdefault(condition, {}).setdefault(arm, set()).add(seed)
    return held


def _num_seeds(claim: Claim, conditions: Sequence[str], held: Mapping[str, Mapping[str, set[int]]]) -> int:
    """Return the cells or pairs of a claim in the condition of a setting that has the fewest of them."""
    numbers = []
    for condition in conditions:
        seeds = held[condition]
        others = [claim.than] if claim.than is not None else []
        if claim.kind == "better_than_every_other":
            others = [arm for arm in seeds if arm != claim.arm]
        numbers += [len(seeds[claim.arm] & seeds[other]) for other in others] or [len(seeds[claim.arm])]
    return min(numbers)


def _shortage_line(study: Study, short: Shortage, verdicts: list[str]) -> str:
    """Say which verdicts on a kind of claim are out of reach, and how many cells they take."""
    have = len(study.axes["seed"]) if short.num_seeds is None else short.num_seeds
    verbs = " or ".join({"supported": "support", "contradicted": "contradict"}[verdict] for verdict in verdicts)
    what = f"claim of the kind {short.kind}"
    why = f"the smallest p is {short.least_p:.2g}"
    if short.num_tests > 1:
        why += f", and the {short.num_tests} tests of the claims are one family"
    if short.num_needed is not None:
        return f"{plural(have, study.unit)} can {verbs} a {what} only after {plural(short.num_needed, 'other')}: {why}"
    unable = f"{plural(have, study.unit)} can {verbs} no {what}, whatever the results: {why}"
    if _is_short(study, short, ENDLESS):
        return f"{unable}: no number of {study.unit}s suffices for so many claims"
    enough = next(n for n in itertools.count(have + 1) if not _is_short(study, short, n))
    return f"{unable}: give at least {plural(enough, study.unit)}"


def _is_short(study: Study, short: Shortage, number: int) -> bool:
    """Tell whether the kind stays out of reach with another number of seeds, or of trials in a tuning."""
    seeds, trials = (None, number) if study.is_tuning else (number, _num_trials(study))
    found = _shortages(study, trials, seeds)
    return any((other.kind, other.num_needed) == (short.kind, None) for other in found)
