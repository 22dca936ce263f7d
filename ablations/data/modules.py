"""LightningDataModules, one for each kind of data. Apart from the rest of the room: planning needs no Lightning."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any

import torch
from pytorch_lightning import LightningDataModule

from ablations.config import CellConfig, UsageError
from ablations.data.epoch import EpochBatches, Rank
from ablations.data.info import DataInfo
from ablations.data.load import CellData, load_in_memory, load_streamed
from ablations.data.objects.load import load_objects

CPU = torch.device("cpu")


class CellDataModule(LightningDataModule, ABC):
    """What a cell trains and is measured on, in batches that lie on the trainer's device.

    The order and the augmentation of an epoch follow the trainer's epoch, and a run that is gone on with in the middle
    of one takes the next batch of it: `EpochBatches` tells how. Of several processes each gets its own part of the
    same batches. The batches are plain tuples, and serve any module.

    Args:
        config: the cell.
        info: its data set, in the cache.
        workers: processes that decode images that are not in memory; any number gives the same batches.
    """

    def __init__(self, config: CellConfig, info: DataInfo, *, workers: int = 0) -> None:
        super().__init__()
        self.config, self.info, self.workers = config, info, workers
        self._loaded: CellData[Any, Any] | None = None
        self._loaded_for: tuple[torch.device, Rank] | None = None

    def setup(self, stage: str | None = None) -> None:
        """Load what is not loaded yet, on the trainer's device; without a trainer, on the CPU.

        Raises:
            ValueError: batches that the trainer's processes cannot share.
        """
        trainer = self.trainer
        device = CPU if trainer is None else trainer.strategy.root_device
        rank = Rank() if trainer is None else Rank(trainer.global_rank, trainer.world_size)
        if self._loaded is None or self._loaded_for != (device, rank):
            self._loaded, self._loaded_for = self._load(device, rank), (device, rank)

    def train_dataloader(self) -> EpochBatches[Any]:
        """Return the batches of an epoch."""
        train: EpochBatches[Any] = self._data.train
        return train

    def val_dataloader(self) -> Iterable[Any]:
        """Return validation's batches."""
        val: Iterable[Any] = self._data.val
        return val

    def test_dataloader(self) -> Iterable[Any]:
        """Return the test's batches.

        Raises:
            UsageError: the cell is scored on validation, and sees no test image.
        """
        if self._data.test is None:
            raise UsageError("this cell is scored on validation: it has no test images")
        test: Iterable[Any] = self._data.test
        return test

    def predict_dataloader(self) -> Iterable[Any]:
        """Return the test's batches, of which a module takes the images alone."""
        return self.test_dataloader()

    def teardown(self, stage: str | None = None) -> None:
        """End the processes that decode."""
        if self._loaded is not None:
            self._loaded.close()

    def state_dict(self) -> dict[str, Any]:
        """Return the place in the epoch, for a checkpoint."""
        return {} if self._loaded is None else {"train": self._loaded.train.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a place in an epoch.

        Lightning's Trainer restores the place of a loader by itself, but not where a module has asked it for the number
        of steps (``estimated_stepping_batches``) before it has restored its loops.
        """
        if state_dict:
            self._data.train.load_state_dict(state_dict["train"])

    @property
    def split_hash(self) -> str:
        """Hash of which images are in which split."""
        return self._data.split_hash

    @property
    def _data(self) -> CellData[Any, Any]:
        if self._loaded is None:
            self.setup()
        assert self._loaded is not None
        return self._loaded

    @abstractmethod
    def _load(self, device: torch.device, rank: Rank) -> CellData[Any, Any]:
        """Make the batches."""


class ImagesInMemory(CellDataModule):
    """Images that are decoded once and lie on the device: batches (B, C, H, W) of them and labels (B,)."""

    def _load(self, device: torch.device, rank: Rank) -> CellData[Any, Any]:
        return load_in_memory(self.config, self.info, device=device, rank=rank)


class StreamedImages(CellDataModule):
    """Images that are decoded as they are needed: batches (B, C, H, W) of them and labels (B,)."""

    def _load(self, device: torch.device, rank: Rank) -> CellData[Any, Any]:
        return load_streamed(self.config, self.info, workers=self.workers, device=device, rank=rank)


class ImagesWithObjects(CellDataModule):
    """Images with the boxes, classes and masks of the objects in them: lists of images (3, H, W) and of targets.

    Evaluation gives one image at a time, with its row in the split.
    """

    def _load(self, device: torch.device, rank: Rank) -> CellData[Any, Any]:
        return load_objects(self.config, self.info, workers=self.workers, device=device, rank=rank)


def make_data(config: CellConfig, info: DataInfo, *, workers: int = 0) -> CellDataModule:
    """Make a cell's data, of its kind.

    Args:
        config: the cell.
        info: its data set, in the cache.
        workers: processes that decode images that are not in memory; any number gives the same batches.
    """
    if config.task == "detect":
        return ImagesWithObjects(config, info, workers=workers)
    assert config.images.streamed == info.streamed, "the cell and its data set differ in where images come from"
    return (StreamedImages if info.streamed else ImagesInMemory)(config, info, workers=workers)
