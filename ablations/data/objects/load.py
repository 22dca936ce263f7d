"""Batches of a detection cell."""

from __future__ import annotations

import torch

from ablations.config import CellConfig
from ablations.config.types import JOINT
from ablations.data.epoch import Rank
from ablations.data.info import DataInfo
from ablations.data.load import CellData
from ablations.data.objects.batches import ObjectEvalBatches, ObjectTrainBatches
from ablations.data.objects.splits import split_objects
from ablations.data.splits import split_hash

ObjectData = CellData[ObjectTrainBatches, ObjectEvalBatches]


def load_objects(config: CellConfig, info: DataInfo, *, workers: int, device: torch.device, rank: Rank) -> ObjectData:
    """Make the batches of a detection cell.

    Args:
        config: configuration of the cell.
        info: data set of the cell, in the cache.
        workers: number of decoding processes; the batches do not depend on it.
        device: device of the batches.
        rank: process whose share of each batch is yielded.

    Raises:
        ValueError: batch size that the processes cannot share.
    """
    found = split_objects(
        info,
        train_limit=config.images.train_limit,
        eval_limit=config.images.eval_limit,
        with_test=config.run.scored_on == "test",
    )
    annotations, read_image, rows = found["train"]
    train = ObjectTrainBatches(
        annotations=annotations,
        read_image=read_image,
        rows=rows,
        batch_size=config.optimisation.batch_size,
        sides=[int(side) for side in config.detection.train_sides.split(JOINT)],
        longest=config.detection.longest_side,
        mirrors=config.augmentation.augment == "flip",
        seed=config.seed,
        workers=workers,
        device=device,
        rank=rank,
        masks=config.detection.masks,
    )
    evaluation = {
        split: ObjectEvalBatches(annotations=held, read_image=own, rows=rows, workers=workers, device=device, rank=rank)
        for split, (held, own, rows) in found.items()
        if split != "train"
    }
    return CellData(
        train=train,
        val=evaluation["val"],
        test=evaluation.get("test"),
        split_hash=split_hash({split: torch.from_numpy(rows) for split, (_, _, rows) in found.items()}),
    )
