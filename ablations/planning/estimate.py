"""Estimates of the time that a cell takes, before the first one has been run."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F

from ablations.config import CellConfig
from ablations.data import EVAL_BATCH, DataInfo, Rank, eval_batch, num_batches, time_images
from ablations.data.objects.load import load_objects
from ablations.data.streams import forked_library
from ablations.engine.server import call
from ablations.engine.threads import cpu_threads
from ablations.tasks.net import build_net, make_net

WARM_UP_S = 5.0
"""A first call shorter than this is repeated, since it may include a warm-up; the shortest call counts."""

MIN_TIMED_S, MAX_CALLS = 0.5, 4
"""Short calls are repeated until their sum reaches these seconds, or up to this number of calls."""

PHOTOGRAPH_PIXELS = 800 * 1333
"""Number of pixels of a photograph as detectors see it."""


@dataclass(frozen=True)
class StepTimes:
    """Times of a training step and an evaluation batch, decoding of streamed images included.

    Args:
        train_s: seconds of a training step.
        eval_s: seconds of an evaluation batch.
        eval_batch: number of images in an evaluation batch.
    """

    train_s: float
    eval_s: float
    eval_batch: int = EVAL_BATCH

    def cell_seconds(self, config: CellConfig, info: DataInfo) -> float:
        """Return the seconds of all steps and evaluations of a cell."""
        evaluated = info.num_evaluated(config.images.eval_limit)
        num_images = config.optimisation.epochs * evaluated["val"] + evaluated["test"]
        return num_steps(config, info) * self.train_s + num_images / self.eval_batch * self.eval_s


def num_steps(config: CellConfig, info: DataInfo) -> int:
    """Return the number of training steps of a cell."""
    optim, num_images = config.optimisation, config.images.train_limit or info.num_train
    return optim.epochs * num_batches(num_images, batch_size=optim.batch_size, repeats=config.augmentation.repeats)


def time_steps_apart(config: CellConfig, info: DataInfo, *, device: torch.device, workers: int) -> StepTimes:
    """Call `time_steps`, on a GPU in a process of its own, since CUDA keeps a context in a process that has used it."""
    timed = partial(time_steps, config, info, device=device, workers=workers)
    return call(timed) if device.type == "cuda" else timed()


def time_steps(config: CellConfig, info: DataInfo, *, device: torch.device, workers: int = 0) -> StepTimes:
    """Time a training step and an evaluation batch of a cell on noise, in float32.

    Args:
        config: cell to time.
        info: data set of the cell.
        device: device to train on.
        workers: number of processes that decode streamed images in parallel; 0: decoding between the steps.

    The optimiser's update, a few per cent of a step, is left out: the first optimiser makes torch load its compiler,
    which takes longer than the timing. So is augmentation and mixing of images in memory: with DeiT's recipe a fifth of
    a step of `ufo_vit_nano` at 64 px on one core, and a thirtieth for `ufo_vit_micro`.
    """
    if config.task == "detect":
        return _time_detector(config, info, device)
    height, width, channels = info.image_shape
    net = build_net(config, image_shape=info.image_shape, num_classes=len(info.classes)).to(device)
    largest = EVAL_BATCH if info.streamed else eval_batch(info.image_shape, device)
    num_evaluated = min(largest, max(info.num_evaluated(config.images.eval_limit).values()))
    labels = torch.zeros(config.optimisation.batch_size, dtype=torch.long, device=device)

    def train_step() -> None:
        images = torch.rand(config.optimisation.batch_size, channels, height, width, device=device)
        torch.autograd.backward(F.cross_entropy(net.train()(images), labels))
        net.zero_grad()

    def eval_step() -> None:
        with torch.no_grad():
            net.eval()(torch.rand(num_evaluated, channels, height, width, device=device))

    with cpu_threads(config.run.threads_per_cell), forked_library(config.seed):
        train_s, eval_s = (_time_call(step, device) for step in (train_step, eval_step))
    if info.streamed:
        image_s = time_images(config, info)
        train_s = _with_decoding(train_s, image_s * config.optimisation.batch_size, workers)
        eval_s = _with_decoding(eval_s, image_s * num_evaluated, workers)
    return StepTimes(train_s, eval_s, num_evaluated)


def _time_detector(config: CellConfig, info: DataInfo, device: torch.device) -> StepTimes:
    """Time a detector on images of its first batch and on its first validation image, decoded in this process.

    On a CPU, where the time of a batch is the sum over its images, it times only as many images as have together the
    pixels of one large photograph, since a full batch may exceed the memory.
    """
    with cpu_threads(config.run.threads_per_cell), forked_library(config.seed):
        from_seed = config.model_copy(update={"init": "none"})
        data = load_objects(config, info, workers=0, device=device, rank=Rank())
        net = make_net(from_seed, info).to(device)
        started = time.perf_counter()
        images, targets = data.train.first()
        loaded_s = time.perf_counter() - started
        largest = max(image[0].numel() for image in images)
        num_timed = min(len(images), max(1, PHOTOGRAPH_PIXELS // largest)) if device.type == "cpu" else len(images)

        def train_step() -> None:
            losses = net.train()(images[:num_timed], targets[:num_timed])
            torch.autograd.backward(list(losses.values()))
            net.zero_grad()

        def eval_step() -> None:
            _, image = next(iter(data.val))
            with torch.no_grad():
                net.eval()([image])

        train_s = loaded_s + _time_call(train_step, device) * len(images) / num_timed
        return StepTimes(train_s, _time_call(eval_step, device), eval_batch=1)


def _with_decoding(step_s: float, decode_s: float, workers: int) -> float:
    return max(step_s, decode_s / workers) if workers else step_s + decode_s


def _time_call(call: Callable[[], None], device: torch.device) -> float:
    def once() -> float:
        started = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - started

    seconds = [once()]
    if seconds[0] < WARM_UP_S:
        seconds.append(once())
    while sum(seconds) < MIN_TIMED_S and len(seconds) < MAX_CALLS:
        seconds.append(once())
    return min(seconds)
