"""The devices of a run: who starts CUDA, and who must not."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch

from ablations.config import RunStopped
from ablations.data import streams
from ablations.engine import devices
from ablations.engine.devices import DeviceInfo, measure_devices
from ablations.engine.server import call
from ablations.training.limits import limit_memory

ROOT = Path(__file__).resolve().parents[2]
CPU, GPUS = torch.device("cpu"), (torch.device("cuda", 0), torch.device("cuda", 1))


@pytest.mark.process
def test_a_measurement_is_made_in_a_process_that_ends():
    before = set(psutil.Process().children(recursive=True))
    measured = call(devices._inspect, (CPU,), within_s=60)
    assert measured[CPU].name == "cpu"
    assert measured[CPU].free_mib == pytest.approx(psutil.virtual_memory().available / 2**20, rel=0.5)
    assert call(os.getpid) not in (os.getpid(), call(os.getpid))
    left = set(psutil.Process().children(recursive=True)) - before
    assert all("multiprocessing" in " ".join(child.cmdline()) for child in left)  # the server


@pytest.mark.process
def test_a_call_that_fails_says_why():
    with pytest.raises(RuntimeError, match=r"^ZeroDivisionError: "):
        call(divmod, 1, 0)
    with pytest.raises(RuntimeError, match="its process died"):
        call(os._exit, 3)
    started = time.monotonic()
    with pytest.raises(RuntimeError, match=r"^not done after 0\.5 s"):
        call(time.sleep, 60, within_s=0.5)
    assert time.monotonic() - started < 30


@pytest.mark.process
def test_a_gpu_that_cannot_be_used_stops_the_run():
    with pytest.raises(RunStopped, match=r"^cuda:99 cannot be used: \w+: "):
        measure_devices((torch.device("cuda", 99),))


def test_gpus_are_measured_apart_and_other_devices_here(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2**30 * (1 + device.index), 2**33))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"NVIDIA {device.index}")
    apart = []
    monkeypatch.setattr(devices, "call", lambda function, *given, within_s: (apart.append(given), function(*given))[1])
    assert measure_devices(GPUS) == {
        GPUS[0]: DeviceInfo("cuda NVIDIA 0", 1024.0),
        GPUS[1]: DeviceInfo("cuda NVIDIA 1", 2048.0),
    }
    assert apart == [(GPUS,)]
    assert measure_devices((torch.device("mps"),)) == {torch.device("mps"): DeviceInfo("mps", None)}
    assert len(apart) == 1


def test_the_memory_of_a_cells_gpu_is_limited_before_anything_is_allocated(monkeypatch):
    calls: list[object] = []
    properties = SimpleNamespace(total_memory=8 * 2**30)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: calls.append(device))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: calls.append(device) or properties)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda *given: calls.append(given))
    for limit_mib in (2048.0, 4096.0, 100_000.0):  # of one cell after another in a worker
        limit_memory(GPUS[1], limit_mib)
    assert calls[:3] == [GPUS[1], GPUS[1], (0.25, GPUS[1])]
    assert calls[5::3] == [(0.5, GPUS[1]), (1.0, GPUS[1])]


WITHOUT_CUDA = """
import torch, sys
def refuse(*_, **__):
    raise AssertionError("CUDA was started")
torch.cuda._lazy_init = torch._C._cuda_init = torch._C._cuda_getDeviceCount = refuse
torch.cuda._device_count_nvml = lambda: 2
"""


def run_without_cuda(code: str) -> None:
    """Run code in a process that seems to have two GPUs, and refuses to start CUDA."""
    line = [sys.executable, "-c", WITHOUT_CUDA + code]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.process
def test_what_the_fork_server_loads_starts_no_cuda():
    run_without_cuda("import ablations.engine.preload")


@pytest.mark.process
def test_a_plan_for_a_cpu_or_gpus_starts_no_cuda(tmp_path, cache):
    run_without_cuda(f"""
from pathlib import Path
from ablations.config.request import Request
from ablations.engine.devices import find_devices
from ablations.planning.plan import make_plan
from ablations.planning.summary import describe_plan
for device in "cpu", "cuda:1":
    request = Request(asked={{"norm": ["xnorm"], "data": ["digits"]}}, devices=(device,), out=Path({str(tmp_path)!r}))
    plan = make_plan(request)
    assert plan.num_jobs >= 1 and plan.num_workers >= 0
    assert not any("CUDA was started" in line for line in describe_plan(plan))
assert find_devices(("auto",)) == (torch.device("cuda:0"),)
assert not torch.cuda.is_initialized()
""")


class Generators:
    """Two GPUs of which CUDA has started on the second."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.states = {0: torch.tensor([0]), 1: torch.tensor([1])}
        self.used: set[int] = set()
        patch.setattr(torch.cuda, "is_initialized", lambda: True)
        patch.setattr(torch.cuda, "current_device", lambda: 1)
        patch.setattr(torch.cuda, "get_rng_state", self.get)
        patch.setattr(torch.cuda, "set_rng_state", self.set)

    def get(self, device: int) -> torch.Tensor:
        self.used.add(device)
        return self.states[device]

    def set(self, state: torch.Tensor, device: int) -> None:
        self.used.add(device)
        self.states[device] = state


def test_only_the_generator_of_the_cells_gpu_is_kept(monkeypatch):
    gpus = Generators(monkeypatch)
    state = streams.library_state()
    assert [int(of_gpu) for of_gpu in state["cuda"]] == [1]
    with streams.forked_library(0):
        gpus.states[1] = torch.tensor([5])
    assert int(gpus.states[1]) == 1
    streams.restore_library(state | {"cuda": [torch.tensor([7])]})
    assert int(gpus.states[1]) == 7
    streams.restore_library(state | {"cuda": [torch.tensor([8]), torch.tensor([9])]})  # of all GPUs, as before
    assert int(gpus.states[1]) == 9
    streams.restore_library(state | {"cuda": []})  # of a CPU
    assert int(gpus.states[1]) == 9
    assert gpus.used == {1}


def test_a_process_without_cuda_does_not_start_it_for_its_generators(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda *_: pytest.fail("CUDA was started"))
    with streams.forked_library(0):
        assert streams.library_state()["cuda"] == []
