"""Cells as tasks of a real Slurm with two virtual nodes on this machine."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import slurm_nodes
from conftest import GRID_OF_24, TWO_LONG_CELLS, numbers, outcomes, start, wait_for

from ablations.config.options import EngineOptions, SlurmOptions
from ablations.store.leases import RESUMED

pytestmark = pytest.mark.skipif(
    not slurm_nodes.is_installed() and not os.environ.get("CI"), reason="needs Debian's slurm-wlm and munge, as root"
)

TWO_TASKS = ("--slurm-max-parallel", 2)


@pytest.fixture(scope="module")
def cluster() -> Iterator[slurm_nodes.Slurm]:
    with tempfile.TemporaryDirectory(prefix="s") as folder, slurm_nodes.slurm(Path(folder)) as started:
        yield started


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """The folder of the cluster's study."""
    return tmp_path / "slurm"


@pytest.fixture
def run(cluster: slurm_nodes.Slurm, out: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start ``run`` on the cluster; afterwards cancel all jobs."""

    def on_cluster(*arguments: object) -> subprocess.Popen[str]:
        environment = {"SLURM_CONF": cluster.environment["SLURM_CONF"]}
        return start(*arguments, "--engine", "slurm", out=out, new_group=True, **environment)

    yield on_cluster
    cluster.call("scancel", "--user=root")
    wait_for(lambda: cluster.call("squeue", "--noheader") == "")


def running(out: Path) -> list[Path]:
    """Return the folders of the cells that have finished an epoch and run."""
    return [path.parent for path in out.glob("norm-digits/cells/.partial/*/metrics.csv")]


def tasks(cluster: slurm_nodes.Slurm) -> list[str]:
    """Return the tasks that run, as ARRAY_TASK."""
    return sorted(cluster.call("squeue", "--noheader", "--states=R", "--format=%i").split())


def at_once(cluster: slurm_nodes.Slurm, task: str) -> None:
    """Start a requeued task now, in place of two minutes later."""
    wait_for(lambda: task in cluster.call("squeue", "--noheader", "--states=PD", "--format=%i"))
    cluster.call("scontrol", "update", f"JobId={task}", "StartTime=now")


@pytest.mark.slow
def test_cells_are_those_of_this_machine_and_the_command_can_be_detached(run, finished_study, out):
    printed, err = run(*GRID_OF_24, *TWO_TASKS, "--detach", "--slurm", "comment=ours").communicate()
    assert err == ""
    assert "submitted to Slurm: 2 tasks of the array" in printed
    assert printed.rstrip().endswith("goes on by itself; the command without --detach attaches to it")
    process, here = run(*GRID_OF_24), numbers(finished_study(*GRID_OF_24))
    printed, err = process.communicate()
    assert (process.returncode, err) == (0, "")
    assert "attached to the array" in printed
    assert len(numbers(out)) == 24
    assert numbers(out) == here
    ran = [outcome.ran_on for outcome in outcomes(out).values()]
    assert {each["engine"] for each in ran} == {"slurm"}
    assert len({each["job"] for each in ran}) == 2
    assert not list(out.glob("norm-digits/cells/.partial/*"))


@pytest.mark.slow
def test_the_notice_of_a_time_limit_a_requeue_and_a_cancelled_task_cost_no_cell(run, cluster, finished_study, out):
    process, here = run(*TWO_LONG_CELLS, *TWO_TASKS), numbers(finished_study(*TWO_LONG_CELLS))
    wait_for(lambda: len(running(out)) == 2)
    first, second = tasks(cluster)
    cluster.call("scancel", "--signal=USR2", first)
    cluster.call("scancel", second)
    at_once(cluster, first)
    wait_for(lambda: bool(list(out.glob(f"norm-digits/cells/.partial/*/{RESUMED}"))))
    cluster.call("scontrol", "requeue", first)
    at_once(cluster, first)
    assert process.wait() == 0
    seen = outcomes(out).values()
    assert {outcome.outcome for outcome in seen} == {"ok"}
    assert {outcome.ran_on["job"] for outcome in seen} == {first}
    assert all(outcome.resumed_after_epochs for outcome in seen)
    assert numbers(out) == here


@pytest.mark.slow
def test_cells_of_a_node_that_is_down_run_on_the_other(run, cluster, out):
    process = run(*TWO_LONG_CELLS, *TWO_TASKS, "--checkpoint-every", 1, "--slurm", "cpus-per-task=2")
    wait_for(lambda: len(running(out)) == 2)
    cluster.kill("n2")
    cluster.call("scontrol", "update", "NodeName=n2", "State=DOWN", "Reason=test")
    assert process.wait() == 0
    assert {outcome.outcome for outcome in outcomes(out).values()} == {"ok"}
    cluster.restart("n2")


@pytest.mark.slow
def test_the_command_ends_after_the_second_attempt_of_a_cell_that_failed(run, cluster, out):
    limits = ("--memory-per-cell", "1GiB", "--seeds", 1, "--epochs", 1)
    process = run("--norm", "xnorm,hoards", "--plugin", "arms", *limits, "--slurm-max-parallel", 1)
    printed, err = process.communicate()
    assert (process.returncode, err) == (1, "")
    seen = outcomes(out)
    assert {name: outcome.kind for name, outcome in seen.items()} == {"xnorm-s0": "", "hoards-s0": "oom"}
    assert [attempt["kind"] for attempt in seen["hoards-s0"].attempts] == ["oom"]
    assert "hoards seed 0: failed oom" in printed
    assert tasks(cluster) == []


@pytest.mark.slow
def test_two_interrupts_cancel_the_tasks(run, cluster, out):
    process = run("--norm", "xnorm", "--seeds", 1, "--epochs", 40)
    wait_for(lambda: len(running(out)) == 1)
    os.killpg(process.pid, signal.SIGINT)
    assert "press Ctrl-C again to cancel" in next(line for line in process.stdout if "finish" in line)
    os.killpg(process.pid, signal.SIGINT)
    process.communicate()
    assert process.returncode == 130
    wait_for(lambda: cluster.call("squeue", "--noheader") == "")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--slurm-time", "2h"), "are for --engine slurm, and not for local"),
        (("--detach",), "are for --engine slurm, and not for local"),
        (("--engine", "slurm", "--slurm", "qos"), "--slurm qos: give NAME=VALUE"),
        (("--engine", "slurm", "--slurm-gpus-per-task", "0"), "must be greater than or equal to 1"),
    ],
)
def test_what_slurm_does_not_know_is_one_line(cli, given, said):
    code, _, err = cli("run", *given)
    assert (code, err.count("\n")) == (2, 1)
    assert said in err


def test_a_machine_without_slurm_is_one_line(cli, monkeypatch):
    monkeypatch.setenv("PATH", "")
    code, _, err = cli("run", "--engine", "slurm")
    assert (code, err.count("\n")) == (2, 1)
    assert "there is no sbatch on this machine" in err


def test_the_options_reach_slurm():
    assert EngineOptions().slurm == SlurmOptions(time_min=240)
