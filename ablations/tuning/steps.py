"""Steps of a run and of a tuning, for the command line and Python."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ablations.config.request import Request, Tuning
from ablations.engine.watcher import Watcher
from ablations.planning.execute import execute
from ablations.planning.plan import Plan, make_plan
from ablations.planning.summary import describe_plan


@dataclass(frozen=True, kw_only=True)
class Step:
    """A plan to run before the next step is requested.

    Args:
        plan: study and cells.
        lines: lines to print first.
        storage: URL of the database of Optuna's studies; None: a journal file in the folder of the trials.
    """

    plan: Plan
    lines: Sequence[str]
    storage: str | None = None

    def run(self, watcher: Watcher) -> None:
        """Write the study and run its cells; ended trials are reported to Optuna.

        Raises:
            UsageError: the storage cannot be opened, or as for `execute`.
            Interrupted: the run was stopped.
            RunStopped: too many cells failed, or the disk is full.
        """
        plan, wrap = self.plan, None
        if plan.study.is_tuning:
            from ablations.tuning.mirror import OptunaStudies

            wrap = OptunaStudies(plan.study, plan.cells, store=plan.store, url=self.storage).telling
        execute(plan, watcher=watcher, wrap=wrap)


def run_steps(request: Request) -> Iterator[Step]:
    """Yield the one step of a run.

    Raises:
        UsageError: any mistake of the user, in one line.
    """
    plan = make_plan(request)
    yield Step(plan=plan, lines=describe_plan(plan))


def tuning_steps(tuning: Tuning) -> Iterator[Step]:
    """Yield the steps of a tuning: its trials, and the winners on fresh seeds if they are confirmed.

    Raises:
        UsageError: any mistake of the user, in one line.
    """
    from ablations.tuning.trials import confirmation, trial_plans

    for number, plan in enumerate(trial_plans(tuning.request, num_trials=tuning.num_trials)):
        yield Step(plan=plan, lines=[] if number else describe_plan(plan), storage=tuning.storage)
    if tuning.confirm:
        request, lines = confirmation(tuning.request, plan.store, seeds=tuning.confirm)
        plan = make_plan(request)
        yield Step(plan=plan, lines=["", *lines, *describe_plan(plan)])
