"""Time of a training step of a cell, and of its kernels alone: the difference is time in which the GPU waits."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch
from torch._C._autograd import DeviceType
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile

from ablations.config import CellConfig
from ablations.data import DataInfo
from ablations.data.modules import make_data
from ablations.engine.threads import cpu_threads
from ablations.tasks.make import make_module
from ablations.training.cuda_settings import cuda_settings
from ablations.training.loop import LeanTrainer


class StepTimes(NamedTuple):
    """Seconds of a training step.

    Attributes:
        wall_s: from the start of a step to that of the next.
        kernel_s: sum over the step's kernels and copies on the GPU; NaN if the profiler saw none.
    """

    wall_s: float
    kernel_s: float


def time_steps(
    config: CellConfig,
    info: DataInfo,
    *,
    device: torch.device,
    warm_up: int = 20,
    timed: int = 50,
    profiled: int = 20,
) -> StepTimes:
    """Train a cell as a run does for some steps of its first epoch, without evaluation.

    Args:
        config: configuration of the cell.
        info: its data set, in the cache.
        device: device to train on.
        warm_up: number of steps before the clock starts.
        timed: number of steps that are timed.
        profiled: number of steps after them that are profiled.

    Raises:
        ValueError: an epoch has fewer steps.
    """
    clock = _Clock(device, warm_up=warm_up, timed=timed, profiled=profiled)
    data = make_data(config, info)
    _load_profiler(device)
    settings = cuda_settings(config.run, device, mps=False)
    with tempfile.TemporaryDirectory() as folder, cpu_threads(config.run.threads_per_cell), settings:
        trainer = LeanTrainer(config, device=device, callbacks=[clock], log_dir=Path(folder))
        try:
            trainer.fit(make_module(config, info), data)
        except _Enough:
            return clock.times
        finally:
            data.teardown("fit")
    raise ValueError(f"an epoch has fewer than {warm_up + timed + profiled} steps: take more images")


def _load_profiler(device: torch.device) -> None:
    """Start the profiler once before a step is captured, or it may not see the kernels of the graph."""
    if device.type == "cuda":
        with profile(activities=[ProfilerActivity.CUDA]):
            torch.zeros((), device=device)


class _Enough(Exception):
    """Every step has been measured."""


class _Clock(pl.Callback):
    """Callback that times steps, then profiles further ones, then ends the training."""

    times: StepTimes

    def __init__(self, device: torch.device, *, warm_up: int, timed: int, profiled: int) -> None:
        self.device = device
        self.first, self.last, self.end = warm_up, warm_up + timed, warm_up + timed + profiled
        self.num_steps, self.started, self.wall_s = 0, 0.0, 0.0
        self.profile = profile(activities=[ProfilerActivity.CUDA if device.type == "cuda" else ProfilerActivity.CPU])

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Start or stop what begins or ends after this step."""
        self.num_steps += 1
        if self.num_steps not in (self.first, self.last, self.end):
            return
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        if self.num_steps == self.first:
            self.started = time.perf_counter()
        elif self.num_steps == self.last:
            self.wall_s = (time.perf_counter() - self.started) / (self.last - self.first)
            self.profile.start()
        else:
            self.profile.stop()
            self.times = StepTimes(self.wall_s, _kernel_s(self.profile) / (self.end - self.last))
            raise _Enough

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """End the training, also if the epoch was too short."""
        trainer.max_epochs = 0


def _kernel_s(measured: profile) -> float:
    """Sum the seconds of kernels and copies; a user's annotation, which spans several of them, does not count."""
    events: Iterable[FunctionEvent] = measured.events() or ()  # type: ignore[no-untyped-call]
    on_gpu = [event for event in events if event.device_type == DeviceType.CUDA and not event.is_user_annotation]
    seconds = [event.device_time_total / 1e6 for event in on_gpu]
    return sum(seconds) if seconds else float("nan")
