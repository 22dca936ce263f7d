"""NVIDIA's Multi-Process Service, with a control program of the tests in place of NVIDIA's."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch
from conftest import cells

from ablations.engine import local, mps, team
from ablations.engine.devices import DeviceInfo
from ablations.engine.mps import CONTROL, LOGS, PIPES, mps_service
from ablations.engine.worker import Task, Worker
from ablations.planning import estimate

DAEMON = """#!/bin/sh
# As NVIDIA's: -d starts a daemon, whose process id it writes; else it passes a command on to the daemon.
pid="${CUDA_MPS_PIPE_DIRECTORY:-{default}}/nvidia-cuda-mps-control.pid"
if [ "$1" = -d ]; then
    [ -d "$CUDA_MPS_LOG_DIRECTORY" ] || exit 7
    [ -z "$CUDA_VISIBLE_DEVICES" ] || exit 8
    sleep 300 &
    echo $! > "$pid"
    touch "$CUDA_MPS_PIPE_DIRECTORY/control"
    echo "$CUDA_MPS_PIPE_DIRECTORY" >> {started}
    exit 0
fi
kill -0 "$(cat "$pid" 2>/dev/null)" 2>/dev/null || { echo "Cannot find MPS control daemon process"; exit 1; }
read command
[ "$command" = quit ] && kill "$(cat "$pid")"
exit 0
"""
FAILS = '#!/bin/sh\n[ "$1" = -d ] && { echo "Cannot start"; exit 1; }\nexit 1\n'
HANGS = "#!/bin/sh\nexec sleep 300\n"
NEVER_QUITS = DAEMON.replace('kill "$(cat "$pid")"', "exec sleep 300")


class Control:
    """The control program on PATH, and the daemons that it has started."""

    def __init__(self, folder: Path) -> None:
        self.program, self.started, self.default = folder / "bin" / CONTROL, folder / "started", folder / "default"
        self.program.parent.mkdir()

    def write(self, script: str) -> None:
        self.program.write_text(script.replace("{started}", str(self.started)).replace("{default}", str(self.default)))
        self.program.chmod(0o755)

    def start_daemon(self, pipes: Path) -> int:
        """Start a daemon of someone else."""
        pipes.mkdir()
        environment = {PIPES: str(pipes), LOGS: str(pipes)}
        assert not mps._run([str(self.program), "-d"], "", environment)
        self.started.unlink()
        return self.pid(environment)

    @staticmethod
    def pid(environment: dict[str, str]) -> int:
        return int((Path(environment[PIPES]) / f"{CONTROL}.pid").read_text())


@pytest.fixture
def control(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Control]:
    made = Control(tmp_path)
    monkeypatch.setenv("PATH", f"{made.program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(mps, "DEFAULT_PIPES", made.default)
    monkeypatch.delenv(PIPES, raising=False)
    yield made
    for child in psutil.process_iter(["cmdline"]):
        if str(tmp_path) in " ".join(child.info["cmdline"] or []):
            child.kill()


def has_ended(pid: int) -> bool:
    for _ in range(100):
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.05)
    return False


def test_a_daemon_is_started_in_a_folder_of_its_own_and_ended(control, monkeypatch):
    control.write(DAEMON)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")  # it would number the GPUs again, for the daemon and in a worker
    notes: list[str] = []
    with mps_service(notes.append) as environment:
        assert set(environment) == {PIPES, LOGS}
        assert len(environment[PIPES]) < 60
        assert PIPES not in os.environ
        pid = control.pid(environment)
        assert psutil.pid_exists(pid)
    assert has_ended(pid)
    assert not Path(environment[PIPES]).exists()
    assert notes == []


def interrupted_run(control: Control, pids: list[int]) -> None:
    with mps_service(pytest.fail) as environment:
        pids.append(control.pid(environment))
        raise KeyboardInterrupt


def test_a_daemon_ends_after_an_interrupt(control):
    control.write(DAEMON)
    with pytest.raises(KeyboardInterrupt):
        interrupted_run(control, pids := [])
    assert has_ended(*pids)


@pytest.mark.parametrize("named", [True, False], ids=["named", "default"])
def test_a_daemon_that_is_there_is_used_and_stays(control, tmp_path, monkeypatch, named):
    control.write(DAEMON)
    pid = control.start_daemon(tmp_path / "named" if named else control.default)
    if named:
        monkeypatch.setenv(PIPES, str(tmp_path / "named"))
    with mps_service(pytest.fail) as environment:
        assert environment == {}
    assert not control.started.exists()
    assert psutil.pid_exists(pid)
    os.kill(pid, signal.SIGKILL)


def test_what_a_dead_daemon_left_is_no_daemon(control):
    control.write(DAEMON)
    os.kill(control.start_daemon(control.default), signal.SIGKILL)
    (control.default / f"{CONTROL}.pid").unlink()  # a shell takes a zombie for alive
    with mps_service(pytest.fail) as environment:
        assert environment
        assert Path(environment[PIPES]) != control.default


def test_the_pipe_of_a_daemon_is_enough_where_its_program_is_missing(monkeypatch, tmp_path):
    (tmp_path / "control").touch()
    monkeypatch.setenv(PIPES, str(tmp_path))
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with mps_service(pytest.fail) as environment:
        assert environment == {}


def test_without_the_program_the_run_goes_on_with_a_note(monkeypatch, tmp_path):
    monkeypatch.setattr(shutil, "which", lambda _: None)
    monkeypatch.setattr(mps, "DEFAULT_PIPES", tmp_path)
    notes: list[str] = []
    with mps_service(notes.append) as environment:
        assert environment is None
    assert notes == [
        "concurrent cells take turns on a GPU, without NVIDIA's Multi-Process Service: "
        "nvidia-cuda-mps-control is not on PATH"
    ]


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (FAILS, "nvidia-cuda-mps-control says: Cannot start"),
        (HANGS, "nvidia-cuda-mps-control takes more than 0.5 s"),
        ("no script", "nvidia-cuda-mps-control cannot be run: "),
    ],
    ids=["fails", "hangs", "no program"],
)
def test_a_daemon_that_does_not_start_is_a_note(control, monkeypatch, script, reason):
    monkeypatch.setattr(mps, "CONTROL_S", 0.5)
    control.write(script)
    notes: list[str] = []
    with mps_service(notes.append) as environment:
        assert environment is None
    (note,) = notes
    assert reason in note


def test_a_daemon_that_does_not_end_is_killed(control, monkeypatch):
    control.write(NEVER_QUITS)
    notes: list[str] = []
    with mps_service(notes.append) as environment:
        pid = control.pid(environment)
        monkeypatch.setattr(mps, "CONTROL_S", 0.5)
    assert has_ended(pid)
    assert notes == [
        "the daemon of NVIDIA's Multi-Process Service was killed, since it did not end: "
        "nvidia-cuda-mps-control takes more than 0.5 s"
    ]


class CpuWorker(Worker):
    """A worker whose cells run on the CPU instead of their GPU."""

    def start(self, tasks: list[Task]) -> None:
        assert all(task.options.mps for task in tasks)
        super().start([replace(task, device=torch.device("cpu")) for task in tasks])


@pytest.mark.slow
@pytest.mark.usefixtures("arms")
def test_a_run_has_its_workers_share_a_gpu_and_ends_the_daemon_after_them(cli, control, tmp_path, monkeypatch):
    control.write(DAEMON)
    gpu = DeviceInfo("cuda NVIDIA H100", 8000.0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(estimate, "time_steps_apart", lambda *_, **__: estimate.StepTimes(train_s=0.1, eval_s=0.0))
    monkeypatch.setattr(local, "measure_devices", lambda devices: dict.fromkeys(devices, gpu))
    monkeypatch.setattr(team, "Worker", CpuWorker)
    run = ("run", "--plugin", "arms", "--norm", "prints", "--seeds", 3, "--epochs", 1, "--set", "train_limit=64")
    code, _, err = cli(*run, "--jobs-per-gpu", 2, "--device", "cuda", "--out", tmp_path / "runs")
    assert code == 0, err
    (pipes,) = control.started.read_text().split()
    for folder in cells(tmp_path / "runs").values():
        assert f"called with MPS in {pipes}" in (folder / "log.txt").read_text()
    assert not Path(pipes).exists()
    assert not mps._has_daemon(str(control.program))
