"""A cell that two processes share: the steps of one, whichever of the two fails or dies."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from multiprocessing import connection

import numpy as np
import pandas as pd
import psutil
import pytest
import torch
from conftest import wait_for
from runner_speed import Shown
from test_worker import log, result_of, task  # noqa: F401  # a fixture

from ablations.config import CellConfig, UsageError
from ablations.config.options import CellOptions, EngineOptions, SlurmOptions
from ablations.config.request import Request
from ablations.engine.capacity import Capacity
from ablations.engine.local import LocalEngine
from ablations.engine.runner import Runner
from ablations.engine.team import Team
from ablations.engine.worker import Task, Worker
from ablations.monitor.board import Board
from ablations.planning import checks
from ablations.planning.plan import make_plan
from ablations.store import CHECKPOINT

CPU = torch.device("cpu")
ONE_STEP_AN_EPOCH = {
    "epochs": 5,
    "train_limit": 64,
    "batch_size": 64,
    "lpi": False,  # whose batch normalisation is synchronised on GPUs only
    "patch_embed": "linear",
    "augment": "shift",
    "mixup": 0.8,
    "cutmix": 1.0,
    "erasing": 0.5,
    "drop_path": 0.2,
    "ema_decay": 0.9,
    "smoke": True,
}


@pytest.fixture
def team() -> Iterator[Callable[..., Team]]:
    made = []

    def make(*, reuse: bool = False) -> Team:
        made.append(Team(2, reuse=reuse))
        return made[-1]

    yield make
    for one in made:
        one.kill()


def shared(one: Task) -> Task:
    return replace(one, peers=(CPU,))


def with_fields(one: Task, **fields: object) -> Task:
    return replace(one, config=CellConfig(**{**one.config.model_dump(), **ONE_STEP_AN_EPOCH, **fields}))


@pytest.mark.slow
def test_two_processes_take_the_steps_of_one_also_when_they_are_resumed(team, task):  # noqa: F811
    alone, both, cut, next_one = (with_fields(task("xnorm", name=name)) for name in ("alone", "both", "cut", "next"))
    kept = team(reuse=True)
    expected, result = result_of(Worker(reuse=False), alone), result_of(kept, shared(both))
    assert (expected.outcome, result.outcome) == ("ok", "ok"), result
    ours, theirs = (pd.read_csv(each.folder / "metrics.csv") for each in (both, alone))
    np.testing.assert_allclose(ours["train_loss"], theirs["train_loss"], rtol=1e-5)
    np.testing.assert_allclose(ours["val_loss"], theirs["val_loss"], rtol=1e-4)
    assert result.fields["epoch_hashes"] == expected.fields["epoch_hashes"]
    assert result.fields["init_hash"] == expected.fields["init_hash"]
    assert result.fields["cuda_settings"] == {"gpus": 2}
    correct, others = (np.load(each.folder / "correct.npy") for each in (both, alone))
    assert (correct == others).mean() > 0.99
    assert 0.05 < others.mean() < 0.95

    killed, cut = team(), replace(shared(cut), options=CellOptions(checkpoint_every=1))
    killed.start([cut])
    wait_for((cut.folder / CHECKPOINT).exists)
    killed.kill()
    result = result_of(team(), cut)
    assert len(result.fields["resumed_after_epochs"]) == 1, result
    assert result_of(kept, shared(next_one)).outcome == "ok"
    for name in ("metrics.csv", "correct.npy"):
        for other in (cut, next_one):
            assert (other.folder / name).read_bytes() == (both.folder / name).read_bytes()


@pytest.mark.slow
def test_a_process_that_dies_or_fails_ends_the_cell_with_the_others(team, task):  # noqa: F811
    dying, failing, endless = team(), team(), shared(with_fields(task("xnorm"), epochs=500))
    dying.start([endless])
    wait_for((endless.folder / "metrics.csv").exists)
    pids = [worker.process.pid for worker in dying._workers]
    dying._workers[1].process.kill()
    assert connection.wait(dying.waitables, 30)
    assert dying.result() == -signal.SIGKILL
    wait_for(lambda: not any(psutil.pid_exists(pid) for pid in pids))
    lopsided = shared(with_fields(task("lopsided", name="failing")))
    result = result_of(failing, lopsided)
    assert (result.outcome, result.kind) == ("failed", "oom")
    assert any("arms.py" in line for line in result.traceback)
    assert "process 2 of the cell:\n" in log(lopsided)
    assert "the second process has no more memory" in log(lopsided)


def test_gpus_that_share_a_cell_are_one_slot():
    gpus = tuple(torch.device("cuda", number) for number in range(4))
    capacity = Capacity(gpus, EngineOptions(gpus_per_cell=2), threads_per_cell=1)
    assert [(slot.device, capacity.peers(slot.device)) for slot in capacity.slots] == [
        (gpus[0], (gpus[1],)),
        (gpus[2], (gpus[3],)),
    ]
    assert not capacity.shares_gpus


@pytest.mark.slow
def test_the_runner_gives_a_cell_two_devices_and_records_it(tmp_path):
    asked = {"norm": ["xnorm"], "seed": [0, 1], "epochs": [1], "train_limit": [128]}
    options = EngineOptions(jobs=1, gpus_per_cell=2)
    plan = make_plan(Request(asked=asked, out=tmp_path, name="shared", devices=("cpu",)))
    plan.store.write_study(plan.study)
    Runner(
        plan.todo,
        study=plan.study,
        store=plan.store,
        infos=plan.infos,
        engine=LocalEngine((CPU, CPU), options, threads_per_cell=1, note=print),
        options=options,
        records={},
        watcher=Shown(Board(plan.study)),
    ).run()
    outcomes = [json.loads(path.read_text()) for path in plan.store.cells.glob("*/outcome.json")]
    assert [(each["outcome"], each["cuda_settings"]) for each in outcomes] == [("ok", {"gpus": 2})] * 2


@pytest.mark.parametrize(
    ("devices", "options", "said"),
    [
        (("cpu",), {}, "--gpus-per-cell 2 needs CUDA GPUs; on cpu leave it out"),
        (("cuda:0",) * 3, {}, "3 GPUs cannot be divided so; give a multiple of 2"),
        (("cuda:0", "cuda:1"), {"jobs_per_gpu": 3}, "a GPU that shares a cell has no other one"),
        (("cuda:0", "cuda:1"), {"trainer": "lightning"}, "needs the lean trainer"),
        (("cuda:0",), {"name": "slurm", "slurm": SlurmOptions(gpus_per_task=3)}, "a task needs a multiple of 2"),
    ],
)
def test_what_several_gpus_cannot_share_is_one_line(devices, options, said):
    with pytest.raises(UsageError, match=said):
        checks.check_engine(tuple(map(torch.device, devices)), EngineOptions(gpus_per_cell=2, **options))


def test_a_batch_that_the_gpus_cannot_share_is_one_line(tmp_path):
    plan = make_plan(Request(asked={"batch_size": [50]}, out=tmp_path, devices=("cpu",)))
    with pytest.raises(UsageError, match="--gpus-per-cell 2: batch_size=50 must be a multiple of 4"):
        checks.check_cells(plan.cells, plan.infos, EngineOptions(gpus_per_cell=2))
    stacked = make_plan(Request(asked={"stack": [2]}, out=tmp_path, name="stacked", devices=("cpu",)))
    with pytest.raises(UsageError, match="stack=2 is for a cell on one GPU; leave out --gpus-per-cell"):
        checks.check_cells(stacked.cells, stacked.infos, EngineOptions(gpus_per_cell=2))
