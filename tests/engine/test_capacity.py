"""Slots, limits, shards, and how their options are read."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import psutil
import pytest
import torch

from ablations.config import CellConfig, UsageError
from ablations.config.declare import read_options
from ablations.config.engine_flags import EngineFlags
from ablations.config.options import EngineOptions
from ablations.config.parsing import devices, shard
from ablations.config.recipes import defaults
from ablations.engine import capacity
from ablations.engine.capacity import Capacity
from ablations.engine.devices import CGROUP_FILES, DeviceInfo, find_devices, free_memory_mib
from ablations.planning.plan import shard_numbers

CPU = (torch.device("cpu"),)
GPUS = (torch.device("cuda:0"), torch.device("cuda:1"))
MEASURED = {
    CPU[0]: DeviceInfo("cpu", 64_000.0),
    GPUS[0]: DeviceInfo("cuda NVIDIA H100", 80_000.0),
    GPUS[1]: DeviceInfo("cuda NVIDIA A100", 40_000.0),
}


def slots(devices: tuple[torch.device, ...], *, threads: int = 1, **options: object) -> Capacity:
    return Capacity(devices, EngineOptions(**options), threads_per_cell=threads, measured=MEASURED)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with 16 cores."""
    monkeypatch.setattr(capacity.os, "sched_getaffinity", lambda _: set(range(16)), raising=False)


@pytest.mark.usefixtures("machine")
def test_a_cpu_has_a_slot_for_each_core_up_to_eight():
    assert len(slots(CPU).slots) == 8
    assert len(slots(CPU, threads=4).slots) == 4
    assert len(slots(CPU, threads=64).slots) == 1
    assert len(slots(CPU, jobs=11).slots) == 11


@pytest.mark.usefixtures("machine")
def test_memory_is_shared_out_and_a_cell_alone_has_all_of_it():
    of_eight = slots(CPU)
    assert of_eight.limit_mib(CPU[0], alone=False) == 8000
    assert of_eight.limit_mib(CPU[0], alone=True) == 64_000
    assert slots(CPU, memory_per_cell_mib=500.0).limit_mib(CPU[0], alone=True) == 500


@pytest.mark.usefixtures("machine")
def test_gpus_have_the_slots_asked_for_in_turn():
    of_two = slots(GPUS, jobs_per_gpu=2)
    assert [(str(slot.device), slot.number) for slot in of_two.slots] == [
        ("cuda:0", 0),
        ("cuda:1", 0),
        ("cuda:0", 1),
        ("cuda:1", 1),
    ]
    assert of_two.limit_mib(GPUS[1], alone=False) == 19_400  # a context beside it


@pytest.mark.usefixtures("machine")
def test_the_first_cell_on_a_gpu_shows_how_many_fit():
    learning = slots(GPUS)
    assert len(learning.slots) == 1
    assert learning.limit_mib(GPUS[0], alone=False) == 79_400
    learning.update({"peak_reserved_mib": 11_400.0})  # with its context 12,000: three in 36,000 of the smaller GPU
    assert len(learning.slots) == 6
    learning.update({"peak_reserved_mib": 100.0})
    assert len(learning.slots) == 6


@pytest.mark.usefixtures("machine")
def test_gpus_are_shared_if_several_cells_may_run_on_one():
    assert slots(GPUS).shares_gpus
    assert slots(GPUS, jobs_per_gpu=2).shares_gpus
    assert not slots(GPUS, jobs_per_gpu=1).shares_gpus
    assert not slots(GPUS, threads=16).shares_gpus  # the cores serve one cell a GPU at most
    assert not slots(CPU, jobs=4).shares_gpus


@pytest.mark.usefixtures("machine")
def test_a_plan_counts_slots_without_measuring_a_gpu():
    unmeasured = Capacity(GPUS, EngineOptions(jobs_per_gpu=2), threads_per_cell=1)
    assert (len(unmeasured.slots), unmeasured.workers) == (4, 4)
    assert unmeasured.limit_mib(GPUS[0], alone=False) is None


def test_a_gpu_has_a_number(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert find_devices(("auto",)) == find_devices(("cuda",)) == (torch.device("cuda:0"),)
    assert find_devices(("cuda:1",)) == (torch.device("cuda:1"),)
    with pytest.raises(UsageError, match="a device is given twice"):
        find_devices(("cuda", "cuda:0"))
    with pytest.raises(UsageError, match=r"^--devices cuda:0,cpu: devices of several kinds"):
        find_devices(("cuda:0", "cpu"))


def test_a_containers_limit_counts(tmp_path):
    machine_mib = psutil.virtual_memory().available / 2**20
    mount, groups = tmp_path / "cgroup", tmp_path / "self"
    ours = mount / "job" / "step"
    ours.mkdir(parents=True)

    def free(limit: str, *, group: str, folder: Path, version: int = 2) -> float:
        names = CGROUP_FILES[0 if version == 2 else 1]
        contents = (limit, str(160 * 2**20), f"anon 5\ninactive_file {60 * 2**20}\n")  # 60 are cached files
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in zip(names, contents, strict=True):
            (folder / name).write_text(content)
        groups.write_text(group)
        return free_memory_mib(groups=groups, mount=mount)

    assert free(str(300 * 2**20), group="0::/job/step\n", folder=ours) == 200
    assert free(str(50 * 2**20), group="0::/job/step\n", folder=ours) == 0
    assert free("max\n", group="0::/job/step\n", folder=ours) == pytest.approx(machine_mib, rel=0.2)
    assert free(str(260 * 2**20), group="0::/job/step\n", folder=mount / "job") == 160  # that of the whole job
    assert free(str(230 * 2**20), group="0::/job/step\n", folder=mount) == 130
    v1 = {"group": "3:cpu,memory:/slurm\n2:cpu:/x\n", "version": 1}
    assert free(str(200 * 2**20), folder=mount / "memory" / "slurm", **v1) == 100
    assert free(str(170 * 2**20), folder=mount / "memory", **v1) == 70
    none = tmp_path / "none"
    assert free_memory_mib(groups=none, mount=none) == pytest.approx(machine_mib, rel=0.2)


def test_a_shard_has_whole_seeds():
    fixed = {**defaults(image_side=8, flips=False), "data": "d", "data_fingerprint": ""}
    made = [CellConfig(**fixed, seed=seed, norm=norm) for seed in (4, 5, 6) for norm in "abc"]
    numbers = shard_numbers(made, 2)
    assert [numbers[cell.id] for cell in made] == [1, 1, 1, 2, 2, 2, 1, 1, 1]
    alone = shard_numbers(made[:3], 2)
    assert [alone[cell.id] for cell in made[:3]] == [1, 2, 1]


def engine(**options: object) -> EngineOptions:
    return read_options(EngineFlags, options, from_flags=True).engine_options(retry="failed")


def test_options_are_read():
    assert engine() == EngineOptions()
    assert engine(timeout="90").timeout_s == engine(timeout="1.5m").timeout_s == 90
    assert engine(timeout="2h").timeout_s == 7200
    assert engine(memory_per_cell="2GiB").memory_per_cell_mib == 2048
    assert engine(memory_per_cell="1GB").memory_per_cell_mib == pytest.approx(953.67, abs=0.01)
    assert engine(workers="3").workers == 3
    assert engine(fail_fast=True).max_failures == 1
    assert engine(checkpoint_every="0").checkpoint_every == 0
    assert engine(checkpoint_every="10m").checkpoint_every == timedelta(minutes=10)
    assert engine(trainer="lightning").trainer == "lightning"
    assert engine(log="tensorboard").loggers == ("tensorboard",)
    assert devices("0, 3") == devices(["cuda:0", 3]) == ("cuda:0", "cuda:3")
    assert shard("3/4") == shard((3, 4)) == (3, 4)


def test_python_values_are_read_as_the_text_is():
    written = {"timeout": "90m", "memory_per_cell": "1.5GiB", "checkpoint_every": "10m", "jobs": "2", "workers": "0"}
    values = {"timeout": timedelta(minutes=90), "memory_per_cell": 1536, "checkpoint_every": timedelta(minutes=10)}
    assert engine(**values, jobs=2, workers=0) == engine(**written)
    assert engine(timeout=5400).timeout_s == 5400
    assert engine(log=["tensorboard", "wandb"]) == engine(log="tensorboard,wandb")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"timeout": "soon"}, "--timeout soon: give 90s, 30m or 2h"),
        ({"timeout": "0"}, "--timeout 0: give 90s"),
        ({"memory_per_cell": "2TiB"}, "--memory-per-cell 2TiB: give 800MiB or 4GiB"),
        ({"checkpoint_every": "-1"}, "--checkpoint-every -1: give a number of epochs, or time as 90s, 10m or 2h"),
        ({"checkpoint_every": "1.5"}, "--checkpoint-every 1.5: give a number of epochs, or time as 90s, 10m or 2h"),
        ({"checkpoint_every": "0m"}, "--checkpoint-every 0m: give a number of epochs, or time as 90s, 10m or 2h"),
        ({"jobs_per_gpu": "0"}, "--jobs-per-gpu 0: give auto or a number from 1 up"),
        ({"save_weights": "best"}, "--save-weights best: must be 'none' or 'last'"),
        ({"fail_fast": True, "max_failures": 2}, "--fail-fast or --max-failures, not both"),
    ],
)
def test_options_that_are_none_are_refused(options, message):
    with pytest.raises(ValueError) as error:
        engine(**options)
    assert message in str(error.value)


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "1/", "a/b", "1/0", "-1/2"])
def test_a_shard_that_is_none_is_refused(text):
    with pytest.raises(ValueError, match=r"give I/N with I from 1 to N"):
        shard(text)


def test_devices_that_are_none_are_refused(cli):
    assert "give --device or --devices, not both" in cli("run", "--device", "cpu", "--devices", "0")[2]
    with pytest.raises(ValueError, match="numbers of GPUs"):
        devices("0,,1")
