"""Batches of a cell, from memory or streamed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch

from ablations.config import CellConfig
from ablations.data.batches import EVAL_BATCH, Batch, EvalBatches, Scale, TrainBatches
from ablations.data.epoch import EpochBatches, Rank
from ablations.data.info import DataInfo
from ablations.data.splits import find_rows, load_splits, split_hash
from ablations.data.streamed import StreamedEvalBatches, StreamedTrainBatches
from ablations.data.streaming import Images, ImageStream, Request
from ablations.data.transforms import Augmentation

TIMED_IMAGES = 32
"""Number of images whose decoding is timed for a plan."""


Train = TypeVar("Train", bound=EpochBatches[Any])
Eval = TypeVar("Eval", bound=Iterable[Any])


@dataclass(frozen=True, kw_only=True)
class CellData(Generic[Train, Eval]):
    """Batches of a cell's training and evaluation.

    Args:
        train: training batches, drawn again for each epoch.
        val: validation batches, evaluated after each epoch.
        test: test batches, evaluated once; None if the cell is scored on ``val``.
        split_hash: hash of the assignment of images to splits.
        close: function that ends the decoding processes, if any.
    """

    train: Train
    val: Eval
    test: Eval | None
    split_hash: str
    close: Callable[[], None] = lambda: None


ImageData = CellData[EpochBatches[Batch], Iterable[Batch]]


def make_images(config: CellConfig, info: DataInfo) -> Images:
    """Make the reader of a cell's streamed images."""
    return Images(
        info,
        side=config.images.image_size,
        augmentation=make_augmentation(config),
        eval_crop=config.augmentation.eval_crop,
        seed=config.seed,
    )


def time_images(config: CellConfig, info: DataInfo) -> float:
    """Measure the seconds that one core takes to decode and augment a training image of a streamed data set.

    Raises:
        UsageError: unreadable image among those timed.
    """
    splits = find_rows(info, train_limit=config.images.train_limit, with_test=False)
    images, rows = make_images(config, info), splits["train"].rows
    tried = rows[torch.linspace(0, len(rows) - 1, min(TIMED_IMAGES, len(rows))).long()].tolist()
    started = time.perf_counter()
    images.read(Request("train", tried, 0, list(range(len(tried)))))
    return (time.perf_counter() - started) / len(tried)


def make_augmentation(config: CellConfig) -> Augmentation:
    """Make the augmentation of a cell's training images."""
    return Augmentation(
        augment=config.augmentation.augment,
        policy=config.augmentation.policy,
        policy_magnitude=config.augmentation.policy_magnitude,
        policy_magnitude_std=config.augmentation.policy_magnitude_std,
        policy_ops=config.augmentation.policy_ops,
        color_jitter=config.augmentation.color_jitter,
    )


def load_in_memory(config: CellConfig, info: DataInfo, *, device: torch.device, rank: Rank) -> ImageData:
    """Make the batches of a cell with images in memory.

    Args:
        config: configuration of the cell.
        info: data set of the cell, decoded in the cache.
        device: device of the images and batches.
        rank: process whose share of each batch is yielded.

    Raises:
        ValueError: batch size that the processes cannot share.
    """
    with_test = config.run.scored_on == "test"
    scale = Scale(info.mean, info.std, device=device)
    splits = load_splits(
        info,
        train_limit=config.images.train_limit,
        eval_limit=config.images.eval_limit,
        device=device,
        with_test=with_test,
    )
    train = TrainBatches(
        splits["train"],
        scale=scale,
        batch_size=config.optimisation.batch_size,
        augmentation=make_augmentation(config),
        seed=config.seed,
        repeats=config.augmentation.repeats,
        rank=rank,
    )
    return CellData(
        train=train,
        val=EvalBatches(splits["val"], scale=scale, rank=rank),
        test=EvalBatches(splits["test"], scale=scale, rank=rank) if with_test else None,
        split_hash=split_hash({name: split.original_rows for name, split in splits.items()}),
    )


def load_streamed(config: CellConfig, info: DataInfo, *, workers: int, device: torch.device, rank: Rank) -> ImageData:
    """Make the batches of a cell with streamed images.

    Args:
        config: configuration of the cell.
        info: data set of the cell, listed in the cache.
        workers: number of decoding processes; the batches do not depend on it.
        device: device of the batches.
        rank: process whose share of each batch is yielded.

    Raises:
        ValueError: batch size that the processes cannot share.
    """
    with_test = config.run.scored_on == "test"
    scale = Scale(info.mean, info.std, device=device)
    splits = find_rows(
        info, train_limit=config.images.train_limit, eval_limit=config.images.eval_limit, with_test=with_test
    )
    stream = ImageStream(
        make_images(config, info),
        workers=workers,
        batch_size=config.optimisation.batch_size // rank.world_size,
        largest_batch=max(EVAL_BATCH, config.optimisation.batch_size),  # of `first`, whole in every process
        device=device,
    )
    train = StreamedTrainBatches(
        stream=stream,
        split=splits["train"],
        scale=scale,
        batch_size=config.optimisation.batch_size,
        augmentation=make_augmentation(config),
        image_side=min(info.image_shape[:2]),
        seed=config.seed,
        repeats=config.augmentation.repeats,
        rank=rank,
    )
    return CellData(
        train=train,
        val=StreamedEvalBatches(stream=stream, split=splits["val"], scale=scale, rank=rank),
        test=StreamedEvalBatches(stream=stream, split=splits["test"], scale=scale, rank=rank) if with_test else None,
        split_hash=split_hash({name: split.rows for name, split in splits.items()}),
        close=stream.close,
    )
