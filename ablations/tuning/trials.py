"""Trials of a tuning, and the points of its winners."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from ablations.config import UsageError
from ablations.config.paths import real_path
from ablations.config.request import Request
from ablations.config.search import FIRST_TRIAL_SEED, Point, Search, Tuned
from ablations.config.study import point_name
from ablations.planning.plan import Plan, make_plan
from ablations.store import Store
from ablations.tuning.propose import Ended, propose

STARTUP = 8
"""Number of first TPE trials whose points come from the Sobol sequence, the same for every arm."""


def trial_plans(request: Request, *, num_trials: int) -> Iterator[Plan]:
    """Yield the plans of a tuning's trials; run each before asking for the next.

    The Sobol sampler has one plan. With TPE, the first has the known points, and each further one a trial of every arm
    whose point depends only on that arm's results so far: an interrupted tuning resumes with the same points.

    Args:
        request: request without seeds and points.
        num_trials: number of trials of every arm.

    Raises:
        UsageError: any mistake of the user, in one line.
    """
    search = request.search
    assert search is not None, "a tuning searches something"
    seeds = [FIRST_TRIAL_SEED + k for k in range(num_trials)]
    drawn = seeds if search.sampler == "sobol" else seeds[:STARTUP]
    points = tuple(Point(values=v, seed=seed) for seed, v in zip(drawn, search.points(len(drawn)), strict=True))
    trials = replace(request, asked={**request.asked, "seed": seeds}, points=points, trials=True)
    plan = make_plan(trials)
    if search.sampler == "tpe" and plan.study.points != points:  # the stored study has its own points
        plan = make_plan(replace(trials, points=plan.study.points))
    yield plan
    while search.sampler == "tpe" and (new := _next_points(search, plan)):
        plan = make_plan(replace(trials, points=(*plan.study.points, *new)))
        keys = {point.key for point in new}
        yield replace(plan, cells=[cell for cell in plan.cells if (plan.study.arm_of(cell), cell.seed) in keys])


def confirmation(request: Request, store: Store, *, seeds: list[int]) -> tuple[Request, list[str]]:
    """Request the training of each arm's winner on fresh seeds.

    Args:
        request: request of the tuning.
        store: folder of the trials.
        seeds: seeds of the replicates.

    Returns:
        The request, and sentences with the winning point of each arm and its caveats.

    Raises:
        UsageError: a trial is missing, or no trial of an arm has a result.
    """
    from ablations.analysis import winners
    from ablations.store.frames import read_frames

    frames = read_frames(store, numerics=None)
    study, trials = frames.study, frames.cells
    if frames.problems:
        raise UsageError(frames.problems[0])
    if num_missing := len(frames.missing):
        raise UsageError(f"trials of {study.name} without an outcome: {num_missing}; finish them first")
    best = winners(trials)
    if without := [arm for arm in study.arm_names if arm not in set(best["arm"])]:
        raise UsageError(
            f"every trial of {without[0]} has failed, so it has no winner: python -m ablations retry {store.folder}"
        )
    points, lines = [], []
    for row in best.to_dict("records"):
        values = {field: row[field] for field in study.searched}
        points.append(Point(values=values, arm=row["arm"]))
        how = f"{row['score_pct']:.2f} % on validation"
        if row["outcome"] == "diverged":
            how = "every trial diverged; this one has the highest score"
        lines.append(f"{row['arm']}: {point_name(values, values)} ({how})")
    if num_failed := int((trials["outcome"] == "failed").sum()):
        lines.append(f"failed trials: {num_failed}; so the arms did not have the same budget")
    asked = {**request.asked, study.compare: study.arms, "seed": seeds}
    confirmed = replace(request, asked=asked, points=tuple(points), trials=False, claims=study.claims)
    return replace(confirmed, name=real_path(store.folder).parent.name, ref=request.ref or study.ref), lines


def _next_points(search: Search, plan: Plan) -> list[Point]:
    """Return the next point of every arm with trials left, from its results so far."""
    study, records = plan.study, plan.store.records()
    tuned, points = Tuned(study.points), []
    for arm in dict.fromkeys(study.arm_of(cell) for cell in plan.cells):
        seeds = study.axes["seed"]
        lacking = [seed for seed in seeds if tuned.values(arm, seed) is None]
        if lacking:
            own = [r for r in records.values() if study.has(r.config) and study.arm_of(r.config) == arm]
            own.sort(key=lambda record: record.config.seed)
            drawn = [{field: record.config[field] for field in search.fields} for record in own]
            ended = [Ended.of(r.outcome, values, metric=study.metric) for r, values in zip(own, drawn, strict=True)]
            number = lacking[0] - FIRST_TRIAL_SEED
            points.append(Point(values=propose(search, ended, number=number), arm=arm, seed=lacking[0]))
    return points
