"""A worker and the process behind it: one cell, or, as on a GPU, cell after cell."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from multiprocessing import connection
from pathlib import Path

import psutil
import pytest
import torch
from conftest import wait_for

from ablations.config import recipes
from ablations.config.make import make_config
from ablations.config.options import CellOptions
from ablations.data import find_source, prepare
from ablations.engine import cell
from ablations.engine.result import Result
from ablations.engine.worker import Task, Worker
from ablations.store.provenance import import_plugin, plugin_hash
from ufo.norms import NORMS

pytestmark = pytest.mark.slow

MakeTask = Callable[..., Task]


@pytest.fixture
def task(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeTask]:
    monkeypatch.setattr(NORMS, "_entries", dict(NORMS._entries))
    monkeypatch.delitem(sys.modules, "arms", raising=False)
    import_plugin("arms")
    info = prepare(find_source("digits", data_root=cache, download=False, image_size=None))

    def make(norm: str, *, name: str = "cell", **more: object) -> Task:
        folder = tmp_path / name
        folder.mkdir()
        base = recipes.defaults(image_side=8, flips=False) | {"data": "digits", "data_fingerprint": info.fingerprint}
        chosen = {
            "config": make_config(base | {"epochs": 1, "train_limit": 128, "depth": 1, "norm": norm, "seed": 0}),
            "options": CellOptions(),
            "plugin_hash": plugin_hash(norm),
        }
        return Task(
            **chosen | more,
            info=info,
            folder=folder,
            device=torch.device("cpu"),
            numerics="1",
            plugins=("arms",),
        )

    yield make
    sys.modules.pop("arms")


@pytest.fixture
def worker() -> Iterator[Callable[..., Worker]]:
    made = []

    def make(*, reuse: bool) -> Worker:
        made.append(Worker(reuse=reuse))
        return made[-1]

    yield make
    for one in made:
        one.kill()


def result_of(worker: Worker, task: Task, *, within_s: float = 60) -> Result | int | None:
    worker.start([task])
    assert connection.wait(worker.waitables, within_s), "nothing came"
    answer = worker.result()
    return answer[0] if isinstance(answer, list) else answer


def log(task: Task) -> str:
    return (task.folder / "log.txt").read_text()


def test_a_worker_runs_one_cell_and_leaves(worker, task):
    one = worker(reuse=False)
    assert result_of(one, task("xnorm")).outcome == "ok"
    wait_for(lambda: not psutil.pid_exists(one.process.pid))


def test_a_worker_that_is_kept_runs_cell_after_cell_each_with_its_own_log(worker, task):
    kept, tasks = worker(reuse=True), [task("prints", name=name) for name in "ab"]
    results = [result_of(kept, one) for one in tasks]
    assert [result.outcome for result in results] == ["ok", "ok"]
    assert results[0].fields["test_loss"] == results[1].fields["test_loss"]
    counts = [log(one).count("called") for one in tasks]
    assert counts[0] == counts[1] > 0


def test_a_worker_that_is_kept_tells_where_its_second_cell_hangs(worker, task):
    kept, hanging = worker(reuse=True), task("sleeps", name="b")
    assert result_of(kept, task("xnorm")).outcome == "ok"
    kept.start([hanging])
    wait_for(lambda: (hanging.folder / "log.txt").exists() and not kept.pipe.poll(1))
    kept.dump()
    kept.kill()
    assert "Stack (most recent call first)" in log(hanging)
    assert "arms.py" in log(hanging)


def test_a_worker_that_is_kept_serves_a_plug_ins_arm_alone(worker, task):
    kept, others = worker(reuse=True), [task(norm, name=norm) for norm in ("prints", "xnorm")]
    assert [kept.can_run(one) for one in others] == [True, True]
    kept.start([task("xnorm")])
    assert [kept.can_run(one) for one in others] == [False, True]
    assert kept.can_run(replace(others[0], plugins=()))
    config = others[1].config
    more = [config.model_copy(update=update) for update in ({"seed": 1}, {"lr": 2 * config.optimisation.lr})]
    assert [kept.can_run(replace(others[1], config=one)) for one in more] == [True, False]


def test_memory_that_is_used_up_to_the_last_byte_is_out_of_memory(worker, task):
    result = result_of(worker(reuse=False), task("crumbs", options=CellOptions(memory_mib=300)))
    assert isinstance(result, Result), result
    assert (result.outcome, result.kind) == ("failed", "oom")


def test_what_a_dead_cell_has_started_ends_with_it(worker, task):
    lost = task("leaves_a_child")
    assert result_of(worker(reuse=False), lost) == 1
    child = int(log(lost).partition("child ")[2].split()[0])
    wait_for(lambda: not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE)


def test_a_plug_in_that_was_changed_since_the_run_began_is_not_run(worker, task):
    result = result_of(worker(reuse=False), task("prints", plugin_hash="another"))
    assert (result.outcome, result.kind) == ("failed", "error")
    assert result.detail == "RuntimeError: the plug-in changed after the run began; run the command again"


def test_a_cell_is_its_own_within_a_slurm_job(task, tmp_path, monkeypatch):
    for name, value in {"NTASKS": "4", "JOB_ID": "1", "JOB_NAME": "grid", "NODEID": "0", "LOCALID": "0"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hpc_ckpt_1.ckpt").write_text("of another program")
    ours = task("xnorm")
    result = cell.run_cell(ours.config, ours.info, folder=ours.folder, device=ours.device)
    assert (result.outcome, result.detail) == ("ok", "")
