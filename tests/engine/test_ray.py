"""Cells on a Ray cluster of three nodes, which share no cache and no working folder with each other or the runner."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from conftest import cells, numbers, start, wait_for

pytest.importorskip("ray")

LONG = ("--norm", "xnorm,l2,single_l2", "--seeds", 1, "--epochs", 12, "--checkpoint-every", 1)


class Nodes:
    """A cluster of three nodes, on this machine, with one core each."""

    def __init__(self, folder: Path) -> None:
        from ray.cluster_utils import Cluster

        self.folder, self.num_made = folder, 0
        self.cluster = Cluster()
        self.nodes: list[Any] = []
        while len(self.nodes) < 3:
            self.add()

    def add(self) -> None:
        """Add a node with an empty cache."""
        self.num_made += 1
        own = self.folder / str(self.num_made)
        own.mkdir()
        places = {"ABLATIONS_CACHE": str(own / "cache"), "TMPDIR": str(own)}
        self.nodes.append(self.cluster.add_node(num_cpus=1, object_store_memory=10**8, env_vars=places))

    def kill_one(self) -> None:
        """Kill the newest node, as a power failure would, and add another one."""
        self.cluster.remove_node(self.nodes.pop(), allow_graceful=False)
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
def run(nodes: Nodes, tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start ``run`` on the cluster."""
    begun: list[subprocess.Popen[str]] = []

    def on_cluster(*arguments: object) -> subprocess.Popen[str]:
        where = ("--engine", "ray", "--ray-address", nodes.cluster.address)
        begun.append(start(*arguments, *where, out=tmp_path, new_group=True))
        return begun[-1]

    yield on_cluster
    for process in begun:
        process.kill()


def outcomes(out: Path) -> dict[str, SimpleNamespace]:
    read = {name: json.loads((folder / "outcome.json").read_text()) for name, folder in cells(out).items()}
    return {name: SimpleNamespace(**outcome) for name, outcome in read.items()}


def partial(out: Path) -> list[str]:
    return [path.name for path in out.glob("norm-digits/cells/.partial/*")]


def cell_processes(nodes: Nodes) -> list[int]:
    """Return the processes that run cells: their output is a cell's log."""
    logs, found = {str(path) for path in nodes.logs}, []
    for process in psutil.process_iter():
        try:
            output = Path(f"/proc/{process.pid}/fd/1").readlink()
        except OSError:
            continue
        if str(output) in logs:
            found.append(process.pid)
    return found


@pytest.mark.slow
def test_cells_are_those_of_this_machine(run, nodes, tmp_path):
    asked = ("--norm", "xnorm,l2,prints", "--plugin", "arms", "--seeds", 8, "--epochs", 1)
    here = tmp_path / "here"
    ours, theirs = start(*asked, out=here), run(*asked)
    assert (ours.wait(), theirs.wait()) == (0, 0), theirs.stderr.read()
    assert len(numbers(tmp_path)) == 24
    assert numbers(tmp_path) == numbers(here)
    ran = [outcome.ran_on for outcome in outcomes(tmp_path).values()]
    assert {each["engine"] for each in ran} == {"ray"}
    assert len({each["node"] for each in ran}) == 3
    assert [len(list(path.glob("digits-*"))) for path in nodes.folder.glob("*/cache")] == [1, 1, 1]
    assert partial(tmp_path) == nodes.logs == []


@pytest.mark.slow
def test_a_cell_whose_node_dies_goes_on_from_its_checkpoint_on_another_one(run, nodes, tmp_path):
    process = run(*LONG)
    wait_for(lambda: len(list(tmp_path.glob("norm-digits/cells/.partial/*/checkpoint.ckpt"))) == 3)
    nodes.kill_one()
    out, err = process.communicate()
    assert (process.returncode, err) == (0, "")
    assert out.count("1 cell will start again elsewhere") == 1
    seen = outcomes(tmp_path)
    assert {outcome.outcome for outcome in seen.values()} == {"ok"}
    assert sorted(len(outcome.resumed_after_epochs) for outcome in seen.values()) == [0, 0, 1]
    assert {len(outcome.epoch_hashes) for outcome in seen.values()} == {12}
    here = start(*LONG, out=tmp_path / "here")
    assert here.wait() == 0
    assert numbers(tmp_path) == numbers(tmp_path / "here")


@pytest.mark.slow
def test_the_runner_killed_and_started_again_keeps_what_has_finished(run, nodes, tmp_path):
    process = run("--norm", "xnorm,l2", "--seeds", 2, "--epochs", 8, "--checkpoint-every", 1)
    wait_for(lambda: bool(cells(tmp_path)) and bool(cell_processes(nodes)))
    finished = {name: (folder / "outcome.json").read_bytes() for name, folder in cells(tmp_path).items()}
    process.send_signal(signal.SIGKILL)
    process.wait()
    wait_for(lambda: not cell_processes(nodes))
    again = run("--norm", "xnorm,l2", "--seeds", 2, "--epochs", 8, "--checkpoint-every", 1)
    assert again.wait() == 0
    assert len(cells(tmp_path)) == 4
    for name, outcome in finished.items():
        assert (cells(tmp_path)[name] / "outcome.json").read_bytes() == outcome
    assert partial(tmp_path) == []


@pytest.mark.slow
def test_failures_are_those_of_this_machine(run, nodes, tmp_path):
    arms = "xnorm,raises,hoards,sleeps,leaves,l2"
    limits = ("--timeout", "8s", "--memory-per-cell", "1GiB", "--seeds", 1, "--epochs", 4)
    process = run("--norm", arms, "--plugin", "arms", "--set", "train_limit=512", *limits)
    _, err = process.communicate()
    assert (process.returncode, err) == (1, "")
    seen = outcomes(tmp_path)
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


@pytest.mark.slow
def test_a_cell_whose_process_is_killed_is_retried(run, nodes, tmp_path):
    process = run("--norm", "xnorm,l2", "--seeds", 1, "--epochs", 10)
    wait_for(lambda: len(cell_processes(nodes)) == 2)
    os.kill(cell_processes(nodes)[0], signal.SIGKILL)
    assert process.wait() == 0
    seen = outcomes(tmp_path)
    assert {outcome.outcome for outcome in seen.values()} == {"ok"}
    assert sorted(attempt["kind"] for outcome in seen.values() for attempt in outcome.attempts) == ["killed"]


@pytest.mark.process
def test_no_cluster_is_one_line(tmp_path):
    process = start("--engine", "ray", "--ray-address", "127.0.0.1:1", out=tmp_path)
    out, err = process.communicate()
    assert process.returncode == 3
    assert "stopped: no Ray cluster answers at 127.0.0.1:1 (--ray-address)" in out
    assert err == ""
    assert "Traceback" not in out + err
