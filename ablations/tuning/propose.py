"""Next point of an arm, by Optuna's tree-structured Parzen estimator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from ablations.config.search import Search
from ablations.config.task import Metric

DIVERGED = "diverged"
"""Name of the constraint that a diverged trial violates: Optuna counts it as infeasible, and TPE avoids it."""


@dataclass(frozen=True, kw_only=True)
class Ended:
    """A trial that has an outcome.

    Args:
        values: values of the searched fields.
        outcome: ``ok``, ``diverged`` or ``failed``.
        score_pct: validation score; chance if it diverged without one; None if it failed.
    """

    values: Mapping[str, Any]
    outcome: str
    score_pct: float | None

    @classmethod
    def of(cls, outcome: Mapping[str, Any], values: Mapping[str, Any], *, metric: Metric) -> Ended:
        """Make it from the content of outcome.json."""
        score = outcome.get(metric.columns[1])
        if outcome["outcome"] == "diverged" and score is None:
            score = outcome["chance_pct"]
        return cls(values=values, outcome=outcome["outcome"], score_pct=score)


def propose(search: Search, ended: Sequence[Ended], *, number: int) -> dict[str, int | float]:
    """Propose the next point of an arm; the same results give the same point.

    Args:
        search: ranges and seed.
        ended: ended trials of the arm, in the order of their numbers.
        number: number of the next trial, from 0; it keys the sampler together with the search's seed.
    """
    seed = int(np.random.SeedSequence([search.seed, number]).generate_state(1)[0])
    study = optuna.create_study(
        direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed, n_startup_trials=1, constant_liar=False)
    )
    study.add_trials([as_trial(search, trial) for trial in ended])
    params = study.ask(distributions(search)).params
    return {each.field: each.rounded(params[each.field]) for each in search.ranges}


def as_trial(search: Search, ended: Ended) -> FrozenTrial:
    """Convert a trial for Optuna: a failed one has no result, a diverged one is infeasible."""
    is_failed = ended.outcome == "failed"
    return create_trial(
        state=TrialState.FAIL if is_failed else TrialState.COMPLETE,
        value=None if is_failed else ended.score_pct,
        params=dict(ended.values),
        distributions=distributions(search),
        constraints={} if is_failed else {DIVERGED: float(ended.outcome == "diverged")},
    )


def distributions(search: Search) -> dict[str, BaseDistribution]:
    """Convert the ranges of a search for Optuna."""
    return {
        each.field: IntDistribution(int(each.low), int(each.high), log=each.log)
        if each.is_integer
        else FloatDistribution(each.low, each.high, log=each.log)
        for each in search.ranges
    }
