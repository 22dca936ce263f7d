"""How long a cell will take, before the first one has been run."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from ablations.config import CellConfig
from ablations.data import EVAL_BATCH, DataInfo, Rank, num_batches, time_images
from ablations.data.objects.load import load_objects
from ablations.data.streams import forked_library
from ablations.engine.threads import cpu_threads
from ablations.tasks.net import build_net, make_net

WARMING_S = 5.0
"""A call that takes less is made again, since the first may be warming up; the shortest counts."""

TIMED_S, MAX_TIMED = 0.5, 4
"""Short calls are repeated until so many seconds or calls are spent."""

PHOTOGRAPH = 800 * 1333
"""Pixels of an image as detectors see it."""


@dataclass(frozen=True)
class StepTimes:
    """What a training step and an evaluation batch take, with the decoding of what is streamed, in seconds.

    Args:
        train_s: of a step.
        eval_s: of a batch.
        eval_batch: images of one.
    """

    train_s: float
    eval_s: float
    eval_batch: int = EVAL_BATCH

    def cell_seconds(self, config: CellConfig, info: DataInfo) -> float:
        """Return the seconds of a cell's steps and evaluations."""
        num_evaluated = config.optimisation.epochs * info.num_val + info.num_test
        return num_steps(config, info) * self.train_s + num_evaluated / self.eval_batch * self.eval_s


def num_steps(config: CellConfig, info: DataInfo) -> int:
    """Return the training steps of a cell."""
    optim, num_images = config.optimisation, config.images.train_limit or info.num_train
    return optim.epochs * num_batches(num_images, batch_size=optim.batch_size, repeats=config.augmentation.repeats)


def time_steps(config: CellConfig, info: DataInfo, *, device: torch.device, workers: int = 0) -> StepTimes:
    """Time a training step and an evaluation batch of a cell on noise, in float32.

    Args:
        config: the cell.
        info: its data set.
        device: to train on.
        workers: processes that decode streamed images, beside the steps; 0: between them.

    The optimiser's update is left out, a few per cent of a step: torch's optimisers load its compiler when they are
    first made, which takes longer than all of this. So is what augments and mixes images in memory: under DeiT's recipe
    a fifth of a step of `ufo_vit_nano` at 64 px on one core, a thirtieth of `ufo_vit_micro`'s.
    """
    if config.task == "detect":
        return _time_detector(config, info, device)
    height, width, channels = info.image_shape
    net = build_net(config, image_shape=info.image_shape, num_classes=len(info.classes)).to(device)
    eval_batch = min(EVAL_BATCH, max(info.num_val, info.num_test))
    labels = torch.zeros(config.optimisation.batch_size, dtype=torch.long, device=device)

    def train_step() -> None:
        images = torch.rand(config.optimisation.batch_size, channels, height, width, device=device)
        torch.autograd.backward(F.cross_entropy(net.train()(images), labels))
        net.zero_grad()

    def eval_step() -> None:
        with torch.no_grad():
            net.eval()(torch.rand(eval_batch, channels, height, width, device=device))

    try:
        with cpu_threads(config.run.threads_per_cell), forked_library(config.seed):
            train_s, eval_s = (_seconds(step, device) for step in (train_step, eval_step))
    finally:
        if device.type == "cuda":
            torch.cuda.empty_cache()  # the cells need it
    if not info.streamed:
        return StepTimes(train_s, eval_s, eval_batch)
    image_s = time_images(config, info)
    return StepTimes(
        _with_decoding(train_s, image_s * config.optimisation.batch_size, workers),
        _with_decoding(eval_s, image_s * eval_batch, workers),
        eval_batch,
    )


def _time_detector(config: CellConfig, info: DataInfo, device: torch.device) -> StepTimes:
    """Time a detector on images of its first batch and on its first image of validation, which this process decodes.

    On a CPU, where a batch takes the time of its images one by one, it trains on as many as have the pixels of a large
    photograph: a batch may need more memory than there is, which is for the cells to find out.
    """
    with cpu_threads(config.run.threads_per_cell), forked_library(config.seed):
        from_seed = config.model_copy(update={"init": "none"})
        data = load_objects(config, info, workers=0, device=device, rank=Rank())
        net = make_net(from_seed, info).to(device)
        started = time.perf_counter()
        images, targets = data.train.first()
        loaded_s = time.perf_counter() - started
        largest = max(image[0].numel() for image in images)
        trained_on = min(len(images), max(1, PHOTOGRAPH // largest)) if device.type == "cpu" else len(images)

        def train_step() -> None:
            losses = net.train()(images[:trained_on], targets[:trained_on])
            torch.autograd.backward(list(losses.values()))
            net.zero_grad()

        def eval_step() -> None:
            _, image = next(iter(data.val))
            with torch.no_grad():
                net.eval()([image])

        train_s = loaded_s + _seconds(train_step, device) * len(images) / trained_on
        return StepTimes(train_s, _seconds(eval_step, device), eval_batch=1)


def _with_decoding(step_s: float, decode_s: float, workers: int) -> float:
    """Return the seconds of a step whose images take a core some seconds to decode."""
    return max(step_s, decode_s / workers) if workers else step_s + decode_s


def _seconds(call: Callable[[], None], device: torch.device) -> float:
    def once() -> float:
        started = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - started

    seconds = [once()]
    if seconds[0] < WARMING_S:
        seconds.append(once())
    while sum(seconds) < TIMED_S and len(seconds) < MAX_TIMED:
        seconds.append(once())
    return min(seconds)
