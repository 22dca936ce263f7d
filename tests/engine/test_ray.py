"""Cells on a Ray cluster of three nodes, which share no cache and no working folder with each other or the runner."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from conftest import GRID_OF_24, TWO_LONG_CELLS, cells, numbers, outcomes, start, wait_for

pytest.importorskip("ray")


class Nodes:
    """A cluster of three nodes, on this machine, with one core each."""

    def __init__(self, folder: Path) -> None:
        from ray.cluster_utils import Cluster

        self.folder, self.num_made = folder, 0
        self.cluster = Cluster()
        self.nodes: dict[Path, Any] = {}
        while len(self.nodes) < 3:
            self.add()

    def add(self) -> None:
        """Add a node with an empty cache."""
        self.num_made += 1
        own = self.folder / str(self.num_made)
        own.mkdir()
        places = {"ABLATIONS_CACHE": str(own / "cache"), "TMPDIR": str(own)}
        self.nodes[own] = self.cluster.add_node(num_cpus=1, object_store_memory=10**8, env_vars=places)

    def folder_of(self, log: Path) -> Path:
        """Return the folder of the node that runs the cell of a log."""
        return self.folder / log.relative_to(self.folder).parts[0]

    def is_head(self, log: Path) -> bool:
        """Whether the cell of a log runs on the node of the cluster's head, which must not die."""
        return self.nodes[self.folder_of(log)] is self.cluster.head_node

    def kill(self, log: Path) -> None:
        """Kill the node of a cell's log, as a power failure would, and add another one."""
        own = self.folder_of(log)
        self.cluster.remove_node(self.nodes.pop(own), allow_graceful=False)
        shutil.rmtree(own)
        self.add()

    @property
    def logs(self) -> list[Path]:
        """The logs of the cells that run now."""
        return sorted(self.folder.glob("*/ablations-seat-*/*/*/log.txt"))


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    with tempfile.TemporaryDirectory(prefix="n") as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_worker_niceness", "0")
        started = Nodes(Path(folder))
        yield started
        started.cluster.shutdown()


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """The folder of the cluster's study."""
    return tmp_path / "ray"


@pytest.fixture
def run(nodes: Nodes, out: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start ``run`` on the cluster."""
    begun: list[subprocess.Popen[str]] = []

    def on_cluster(*arguments: object) -> subprocess.Popen[str]:
        where = ("--engine", "ray", "--ray-address", nodes.cluster.address)
        begun.append(start(*arguments, *where, out=out, new_group=True))
        return begun[-1]

    yield on_cluster
    for process in begun:
        process.kill()


def partial(out: Path) -> list[str]:
    return [path.name for path in out.glob("norm-digits/cells/.partial/*")]


def cell_processes(nodes: Nodes) -> dict[Path, int]:
    """Return the processes that run cells, by the log that is their output."""
    logs, found = nodes.logs, {}
    for process in psutil.process_iter():
        try:
            output = Path(f"/proc/{process.pid}/fd/1").readlink()
        except OSError:
            continue
        if output in logs:
            found[output] = process.pid
    return found


@pytest.mark.slow
def test_cells_are_those_of_this_machine(run, nodes, finished_study, out):
    process, here = run(*GRID_OF_24), numbers(finished_study(*GRID_OF_24))
    assert process.wait() == 0, process.stderr.read()
    assert len(numbers(out)) == 24
    assert numbers(out) == here
    ran = [outcome.ran_on for outcome in outcomes(out).values()]
    assert {each["engine"] for each in ran} == {"ray"}
    assert len({each["node"] for each in ran}) == 3
    assert [len(list(path.glob("digits-*"))) for path in nodes.folder.glob("*/cache")] == [1, 1, 1]
    assert partial(out) == nodes.logs == []


@pytest.mark.slow
def test_a_node_that_dies_and_a_process_that_is_killed_cost_no_cell(run, nodes, finished_study, out):
    process, here = run(*TWO_LONG_CELLS, "--checkpoint-every", 1), numbers(finished_study(*TWO_LONG_CELLS))
    wait_for(lambda: len(list(out.glob("norm-digits/cells/.partial/*/checkpoint.ckpt"))) == 2)
    running = cell_processes(nodes)
    first, second = sorted(running, key=nodes.is_head)
    os.kill(running[second], signal.SIGKILL)
    nodes.kill(first)
    printed, err = process.communicate()
    assert (process.returncode, err) == (0, "")
    assert printed.count("1 cell will start again elsewhere") == 1
    seen = outcomes(out).values()
    assert {outcome.outcome for outcome in seen} == {"ok"}
    assert sorted([attempt["kind"] for attempt in outcome.attempts] for outcome in seen) == [[], ["killed"]]
    assert [len(outcome.resumed_after_epochs) for outcome in seen] == [1, 1]
    assert numbers(out) == here


@pytest.mark.slow
def test_the_runner_killed_and_started_again_keeps_what_has_finished(run, nodes, out):
    process = run("--norm", "xnorm,l2", "--seeds", 2, "--epochs", 8, "--checkpoint-every", 1)
    wait_for(lambda: bool(cells(out)) and bool(cell_processes(nodes)))
    finished = {name: (folder / "outcome.json").read_bytes() for name, folder in cells(out).items()}
    process.send_signal(signal.SIGKILL)
    process.wait()
    wait_for(lambda: not cell_processes(nodes))
    again = run("--norm", "xnorm,l2", "--seeds", 2, "--epochs", 8, "--checkpoint-every", 1)
    assert again.wait() == 0
    assert len(cells(out)) == 4
    for name, outcome in finished.items():
        assert (cells(out)[name] / "outcome.json").read_bytes() == outcome
    assert partial(out) == []


@pytest.mark.slow
def test_failures_are_those_of_this_machine(run, nodes, out):
    arms = "xnorm,raises,hoards,sleeps,leaves,l2"
    limits = ("--timeout", "8s", "--memory-per-cell", "1GiB", "--seeds", 1, "--epochs", 4)
    process = run("--norm", arms, "--plugin", "arms", "--set", "train_limit=512", *limits)
    _, err = process.communicate()
    assert (process.returncode, err) == (1, "")
    seen = outcomes(out)
    assert {name.removesuffix("-s0"): f"{o.outcome} {o.kind}".strip() for name, o in seen.items()} == {
        "xnorm": "ok",
        "l2": "ok",
        "raises": "failed error",
        "hoards": "failed oom",
        "sleeps": "failed timeout",
        "leaves": "failed error",
    }
    for name in ("raises", "hoards", "sleeps"):
        assert any("arms.py" in line for line in seen[f"{name}-s0"].traceback), name
    assert {name for name, outcome in seen.items() if outcome.attempts} == {"hoards-s0", "sleeps-s0"}


@pytest.mark.process
def test_no_cluster_is_one_line(tmp_path):
    process = start("--engine", "ray", "--ray-address", "127.0.0.1:1", out=tmp_path)
    out, err = process.communicate()
    assert process.returncode == 3
    assert "stopped: no Ray cluster answers at 127.0.0.1:1 (--ray-address)" in out
    assert err == ""
    assert "Traceback" not in out + err
