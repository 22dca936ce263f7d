"""LightningDataModules, one per kind of data, apart from the other modules: planning needs no Lightning."""

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
    """Batches of a cell's training and evaluation, on the trainer's device.

    The order and augmentation of an epoch follow the trainer's epoch, and a run resumed within an epoch continues with
    its next batch (see `EpochBatches`). Each of several processes gets its own share of the same batches. Batches are
    plain tuples, for any module.

    Args:
        config: configuration of the cell.
        info: data set of the cell, in the cache.
        workers: number of decoding processes of streamed images; the batches do not depend on it.
    """

    def __init__(self, config: CellConfig, info: DataInfo, *, workers: int = 0) -> None:
        super().__init__()
        self.config, self.info, self.workers = config, info, workers
        self._loaded: CellData[Any, Any] | None = None
        self._loaded_for: tuple[torch.device, Rank] | None = None

    def setup(self, stage: str | None = None) -> None:
        """Load the batches on the trainer's device, unless loaded already; without a trainer, on the CPU.

        Raises:
            ValueError: batch size that the trainer's processes cannot share.
        """
        trainer = self.trainer
        device = CPU if trainer is None else trainer.strategy.root_device
        rank = Rank() if trainer is None else Rank(trainer.global_rank, trainer.world_size)
        if self._loaded is None or self._loaded_for != (device, rank):
            self._loaded, self._loaded_for = self._load(device, rank), (device, rank)

    def train_dataloader(self) -> EpochBatches[Any]:
        """Return the training batches."""
        train: EpochBatches[Any] = self._data.train
        return train

    def val_dataloader(self) -> Iterable[Any]:
        """Return the validation batches."""
        val: Iterable[Any] = self._data.val
        return val

    def test_dataloader(self) -> Iterable[Any]:
        """Return the test batches.

        Raises:
            UsageError: cell that is scored on validation, without test images.
        """
        if self._data.test is None:
            raise UsageError("this cell is scored on validation and has no test images; call validate instead")
        test: Iterable[Any] = self._data.test
        return test

    def predict_dataloader(self) -> Iterable[Any]:
        """Return the test batches; a module uses only their images."""
        return self.test_dataloader()

    def teardown(self, stage: str | None = None) -> None:
        """End the decoding processes."""
        if self._loaded is not None:
            self._loaded.close()

    def state_dict(self) -> dict[str, Any]:
        """Return the position in the epoch, for a checkpoint."""
        return {} if self._loaded is None else {"train": self._loaded.train.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the position in an epoch.

        Lightning's Trainer restores a loader's position itself, except if a module requests the number of steps
        (``estimated_stepping_batches``) before the loops are restored.
        """
        if state_dict:
            self._data.train.load_state_dict(state_dict["train"])

    @property
    def split_hash(self) -> str:
        """Hash of the assignment of images to splits."""
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
    """Images decoded once, on the device: batches of images (B, C, H, W) and labels (B,)."""

    def _load(self, device: torch.device, rank: Rank) -> CellData[Any, Any]:
        return load_in_memory(self.config, self.info, device=device, rank=rank)


class StreamedImages(CellDataModule):
    """Images decoded on demand: batches of images (B, C, H, W) and labels (B,)."""

    def _load(self, device: torch.device, rank: Rank) -> CellData[Any, Any]:
        return load_streamed(self.config, self.info, workers=self.workers, device=device, rank=rank)


class ImagesWithObjects(CellDataModule):
    """Images with boxes, classes and masks of their objects: lists of images (3, H, W) and of targets.

    Evaluation yields one image at a time, with its row in the split.
    """

    def _load(self, device: torch.device, rank: Rank) -> CellData[Any, Any]:
        return load_objects(self.config, self.info, workers=self.workers, device=device, rank=rank)


def make_data(config: CellConfig, info: DataInfo, *, workers: int = 0) -> CellDataModule:
    """Make the data module of a cell.

    Args:
        config: configuration of the cell.
        info: data set of the cell, in the cache.
        workers: number of decoding processes of streamed images; the batches do not depend on it.
    """
    if config.task == "detect":
        return ImagesWithObjects(config, info, workers=workers)
    assert config.images.streamed == info.streamed, "the cell and its data set disagree on streaming"
    return (StreamedImages if info.streamed else ImagesInMemory)(config, info, workers=workers)
