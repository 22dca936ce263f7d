"""What stands above every engine: records, retries and time limits, with engines that run nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from runner_speed import IdleNodes, Shown

from ablations.config import RunStopped
from ablations.config.options import EngineOptions
from ablations.config.request import Request
from ablations.engine.interface import Ended
from ablations.engine.job import Job, Placement
from ablations.engine.runner import Runner
from ablations.monitor.board import Board
from ablations.planning.plan import make_plan


class Stuck(IdleNodes):
    """An engine whose jobs do not end; it notes which of them it cancels, and which are alone."""

    def __init__(self, num_nodes: int) -> None:
        super().__init__(num_nodes)
        self.cancelled: list[Job] = []
        self.was_alone: list[bool] = []

    def place(self, *, num_cells: int, alone: bool) -> Placement:
        if alone:
            assert not self.running
        self.was_alone.append(alone)
        return super().place()

    def wait(self, _seconds: float) -> list[Ended]:
        return []

    def cancel(self, job: Job, *, dump: bool = False) -> bool:
        assert dump
        self.cancelled.append(job)
        return super().cancel(job)


class Dying(IdleNodes):
    """An engine whose processes die."""

    def wait(self, _seconds: float) -> list[Ended]:
        ended, self.running = self.running, []
        return [Ended(job, ("killed", "its node is gone")) for job in ended]


def run(
    engine: IdleNodes,
    out: Path,
    options: EngineOptions = EngineOptions(),  # noqa: B008
    *,
    num_held: int = 0,
) -> dict[str, dict]:
    """Run 30 cells, some of which another runner holds, and return their outcomes by the names of their folders."""
    asked = {"norm": ["xnorm", "l2", "single_l2"], "seed": list(range(10))}
    plan = make_plan(Request(asked=asked, out=out, name="nothing", devices=("cpu",), engine=options))
    plan.store.write_study(plan.study)
    held = [plan.store.leases.claim(cell.id) for cell in plan.todo[:num_held]]
    runner = Runner(
        plan.todo,
        study=plan.study,
        store=plan.store,
        infos=plan.infos,
        engine=engine,
        options=plan.engine,
        records={},
        watcher=Shown(Board(plan.study)),
        waits_s=0.2,
    )
    try:
        runner.run()
    except RunStopped as reason:
        print(reason)
    for lease in held:
        lease.release(keep_checkpoint=False)
    assert list(plan.store.leases.partials.glob("*")) == []
    return {path.parent.name: json.loads(path.read_text()) for path in plan.store.cells.glob("*/outcome.json")}


def test_every_cell_is_recorded_once(tmp_path):
    outcomes = run(IdleNodes(1), tmp_path)
    assert len(outcomes) == 30
    assert {(each["outcome"], len(each["attempts"])) for each in outcomes.values()} == {("ok", 0)}


def test_a_job_past_the_limit_is_cancelled_and_retried_alone(tmp_path, capsys):
    engine = Stuck(1)
    outcomes = run(engine, tmp_path, EngineOptions(timeout_s=0.01))
    assert "the first cell of every arm fails in the same way: timeout" in capsys.readouterr().out
    assert engine.running == []
    assert {each["kind"] for each in outcomes.values()} == {"timeout"}
    assert engine.was_alone[-1]
    assert engine.was_alone.count(True) == sum(len(each["attempts"]) for each in outcomes.values()) == 1
    assert len(engine.cancelled) == len(outcomes) + 1


def test_cells_of_a_runner_that_is_alive_can_be_left_to_it(tmp_path, capsys):
    assert len(run(IdleNodes(1), tmp_path, num_held=2)) == 28
    assert "2 cells left to other runners, which are alive" in capsys.readouterr().out


@pytest.mark.parametrize("retry", ["failed", "none"])
def test_a_process_that_died_is_a_failure(retry, tmp_path, capsys):
    outcomes = run(Dying(1), tmp_path, EngineOptions(retry=retry))
    assert "the first cell of every arm fails in the same way: killed" in capsys.readouterr().out
    assert {(each["kind"], each["detail"]) for each in outcomes.values()} == {("killed", "its node is gone")}
    assert sum(len(each["attempts"]) for each in outcomes.values()) == (retry == "failed")
