"""The batches of a cell that detects."""

from __future__ import annotations

import torch

from ablations.config import CellConfig
from ablations.config.types import JOINT
from ablations.data.epoch import Rank
from ablations.data.info import DataInfo
from ablations.data.load import CellData
from ablations.data.objects.batches import ObjectEvalBatches, ObjectTrainBatches
from ablations.data.objects.source import split_objects
from ablations.data.splits import split_hash

ObjectData = CellData[ObjectTrainBatches, ObjectEvalBatches]


def load_objects(config: CellConfig, info: DataInfo, *, workers: int, device: torch.device, rank: Rank) -> ObjectData:
    """Make the batches of a cell.

    Args:
        config: the cell.
        info: its data set, in the cache.
        workers: processes that decode; any number gives the same batches.
        device: of the batches.
        rank: whose part of each batch is given.

    Raises:
        ValueError: batches that the processes cannot share.
    """
    found = split_objects(info, train_limit=config.images.train_limit, with_test=config.run.scored_on == "test")
    annotations, pictures, rows = found["train"]
    train = ObjectTrainBatches(
        annotations=annotations,
        pictures=pictures,
        rows=rows,
        batch_size=config.optimisation.batch_size,
        sides=[int(side) for side in config.detection.train_sides.split(JOINT)],
        longest=config.detection.longest_side,
        mirrors=config.augmentation.augment == "flip",
        seed=config.seed,
        workers=workers,
        device=device,
        rank=rank,
    )
    looked_at = {
        split: ObjectEvalBatches(annotations=held, pictures=seen, rows=which, workers=workers, device=device, rank=rank)
        for split, (held, seen, which) in found.items()
        if split != "train"
    }
    return CellData(
        train=train,
        val=looked_at["val"],
        test=looked_at.get("test"),
        split_hash=split_hash({split: torch.from_numpy(which) for split, (_, _, which) in found.items()}),
    )
