"""Benchmark of the streaming data loader against an upper bound, its decoding without transfer.

The bound is the rate of the same number of processes that read, crop and flip the same images and return nothing. The
loader is that of a streamed cell, batches included. With 0 workers both run in this process.
"""

from __future__ import annotations

import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from ablations.config import UsageError
from ablations.config.values import plural
from ablations.data import find_source, prepare
from ablations.data.splits import find_rows
from ablations.data.streaming import Images, ImageStream, Request
from ablations.data.transforms import Augmentation

CPU = torch.device("cpu")

SYNTHETIC_PX = (500, 375)
"""Width and height of the synthetic images: the most common size in ImageNet."""

NUM_SYNTHETIC = 800


class LoaderRow(NamedTuple):
    """A rate: images per second of the ``bound`` or the ``loader`` in a round, with a number of workers."""

    round: int
    workers: int
    quantity: str
    images_per_s: float


def bench_loader(
    spec: str | None,
    *,
    workers: Sequence[int],
    rounds: int,
    image_size: int,
    batch_size: int,
    num_images: int | None,
    on_row: Callable[[LoaderRow], None],
) -> list[LoaderRow]:
    """Measure the loader and its bound for each number of workers, once in each round.

    Args:
        spec: folder of images, as on the command line; None: synthetic JPEGs of 500 x 375 px.
        workers: numbers of workers to measure.
        rounds: number of measurements of each.
        image_size: side of the crops, px.
        batch_size: number of images per batch.
        num_images: number of training images in each measurement; None: all.
        on_row: callback, called with each rate.

    Raises:
        UsageError: the data set does not exist, cannot be streamed, or has fewer images than a batch.
    """
    with _synthetic_images() if spec is None else nullcontext() as folder:
        found = find_source(spec or f"imagefolder:{folder}", data_root=Path(), download=False, image_size=image_size)
        info = prepare(found, in_memory="off")
        rows = find_rows(info, train_limit=None)["train"].rows
        order = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))][:num_images]
        order = order[: len(order) // batch_size * batch_size]
        if not len(order):
            raise UsageError(f"--batch-size {batch_size} exceeds the {len(rows)} training images; give a smaller one")
        augmentation = Augmentation(augment="resized_crop_flip")
        images = Images(info, side=image_size, augmentation=augmentation, eval_crop=1.0, seed=0)
        measured = []
        for row in _measure(images, order, workers, rounds, batch_size):
            on_row(row)
            measured.append(row)
        return measured


def describe_loader(rows: list[LoaderRow]) -> list[str]:
    """Return a line per number of workers with the loader's share of the bound: median and range over rounds.

    >>> rows = [LoaderRow(1, 2, "bound", 200.0), LoaderRow(1, 2, "loader", 190.0)]
    >>> describe_loader(rows)
    ['2 workers: 190 images/s loaded, 95.0 % [95.0, 95.0] of the upper bound of 200 images/s; 1 round']
    """
    lines = []
    for workers in dict.fromkeys(row.workers for row in rows):
        own = [row for row in rows if row.workers == workers]
        loads, bounds = ([row.images_per_s for row in own if row.quantity == name] for name in ("loader", "bound"))
        shares = [100 * ours / most for ours, most in zip(loads, bounds, strict=True)]
        loaded, most = statistics.median(loads), statistics.median(bounds)
        lines.append(
            f"{plural(workers, 'worker')}: {loaded:.0f} images/s loaded, {statistics.median(shares):.1f} % "
            f"[{min(shares):.1f}, {max(shares):.1f}] of the upper bound of {most:.0f} images/s; "
            f"{plural(len(shares), 'round')}"
        )
    return lines


def _measure(
    images: Images, order: torch.Tensor, workers: Sequence[int], rounds: int, batch_size: int
) -> Iterator[LoaderRow]:
    streams = {
        count: ImageStream(images, workers=count, batch_size=batch_size, largest_batch=batch_size, device=CPU)
        for count in workers
    }
    try:
        for stream in streams.values():  # starts the workers, and fills the system's file cache
            _drain(stream, order[: 2 * batch_size], batch_size)
        rows: list[int] = order.tolist()
        for number in range(1, rounds + 1):
            for count, stream in streams.items():
                for quantity in ("bound", "loader"):
                    bound = quantity == "bound"
                    seconds = _decode(images, rows, count) if bound else _drain(stream, order, batch_size)
                    yield LoaderRow(number, count, quantity, len(order) / seconds)
    finally:
        for stream in streams.values():
            stream.close()


def _drain(stream: ImageStream, order: torch.Tensor, batch_size: int) -> float:
    """Return the seconds until every batch is loaded."""
    started = time.perf_counter()
    for _ in stream.batches("train", order, batch_size=batch_size, epoch=0, drop_last=True):
        pass
    return time.perf_counter() - started


def _decode(images: Images, rows: list[int], count: int) -> float:
    """Return the seconds until ``count`` processes, or this one if 0, have decoded all images."""
    # Single images in turn, so that all processes end at about the same time.
    requests = [Request("train", [row], 0, [position]) for position, row in enumerate(rows)]
    if not count:
        started = time.perf_counter()
        _answer(images, requests, None)
        return time.perf_counter() - started
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(count + 1)
    parts = [requests[i::count] for i in range(count)]
    processes = [context.Process(target=_answer, args=(images, part, barrier), daemon=True) for part in parts]
    for process in processes:
        process.start()
    barrier.wait()
    started = time.perf_counter()
    for process in processes:
        process.join()
    return time.perf_counter() - started


def _answer(images: Images, requests: list[Request], barrier: Barrier | None) -> None:
    if barrier is not None:
        torch.set_num_threads(1)  # as a loader's worker does
        barrier.wait()
    for request in requests:
        images.read(request)


@contextmanager
def _synthetic_images() -> Iterator[Path]:
    """Yield a folder of JPEGs in two classes, as large and detailed as photographs, with a fixed seed."""
    from PIL import Image

    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as name:
        for part, count in (("train", NUM_SYNTHETIC // 2), ("test", 1)):
            for label in ("a", "b"):
                folder = Path(name) / part / label
                folder.mkdir(parents=True)
                for i in range(count):
                    coarse = Image.fromarray(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)).resize(SYNTHETIC_PX)
                    grain = rng.integers(-12, 13, (SYNTHETIC_PX[1], SYNTHETIC_PX[0], 1))
                    pixels = np.clip(np.asarray(coarse).astype(int) + grain, 0, 255).astype(np.uint8)
                    Image.fromarray(pixels).save(folder / f"{i}.jpg", quality=90)
        yield Path(name)
