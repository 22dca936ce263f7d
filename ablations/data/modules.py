"""LightningDataModule of a cell, apart from the other modules: planning needs no Lightning."""

from __future__ import annotations

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


class CellDataModule(LightningDataModule):
    """Batches of a cell's training and evaluation, on the trainer's device.

    The order and augmentation of an epoch follow the trainer's epoch, and a run resumed within an epoch continues with
    its next batch (see `EpochBatches`). Each of several processes gets its own share of the same batches.

    Batches are plain tuples, for any module. To classify: images (B, C, H, W) and labels (B,). To detect: lists of
    images (3, H, W) and of targets; evaluation yields one image at a time, with its row in the split.

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
        return self._data.train

    def val_dataloader(self) -> Iterable[Any]:
        """Return the validation batches."""
        return self._data.val

    def test_dataloader(self) -> Iterable[Any]:
        """Return the test batches.

        Raises:
            UsageError: cell that is scored on validation, without test images.
        """
        if self._data.test is None:
            raise UsageError("this cell is scored on validation and has no test images; call validate instead")
        return self._data.test

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

    def _load(self, device: torch.device, rank: Rank) -> CellData[Any, Any]:
        if self.config.task == "detect":
            return load_objects(self.config, self.info, workers=self.workers, device=device, rank=rank)
        if self.info.streamed:
            return load_streamed(self.config, self.info, workers=self.workers, device=device, rank=rank)
        return load_in_memory(self.config, self.info, device=device, rank=rank)


def make_data(config: CellConfig, info: DataInfo, *, workers: int = 0) -> CellDataModule:
    """Make the data module of a cell.

    Args:
        config: configuration of the cell.
        info: data set of the cell, in the cache.
        workers: number of decoding processes of streamed images; the batches do not depend on it.
    """
    if config.task == "classify":
        assert config.images.streamed == info.streamed, "the cell and its data set disagree on streaming"
    return CellDataModule(config, info, workers=workers)
