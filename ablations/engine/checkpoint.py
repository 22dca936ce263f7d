"""Checkpoints at epoch ends, written whole or not at all; a cell that goes on from one gives the same numbers."""

from __future__ import annotations

import logging
import os
import pickle
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from ablations.store import CHECKPOINT

LOG = logging.getLogger(__name__)

CHECKPOINT_S = 60.0
"""Seconds between two checkpoints where no number of epochs is given: a short cell writes none."""


class Checkpoints(pl.Callback):
    """Saves Lightning's checkpoint, with what tells whether it may be gone on from. Must be the last callback.

    Args:
        folder: the cell's.
        every: epochs between two checkpoints; 0: none; None: at the end of an epoch when `CHECKPOINT_S` have passed.
        made_by: what the cell is trained with, from `trained_with`.

    Attributes:
        resumed_after: the epochs after which earlier attempts were gone on from.
        seconds_before: what those attempts took up to there.
    """

    def __init__(self, folder: Path, *, every: int | None, made_by: dict[str, str]) -> None:
        self.path = folder / CHECKPOINT
        self.every = every
        self.made_by = made_by
        self.resumed_after: list[int] = []
        self.seconds_before = 0.0
        self._started = self._saved = time.monotonic()
        self._num_epochs = 0

    def state_dict(self) -> dict[str, Any]:
        """Return what is known of the attempts so far, for a checkpoint."""
        seconds = self.seconds_before + time.monotonic() - self._started
        return {"seconds": seconds, "resumed_after": self.resumed_after, "num_epochs": self._num_epochs}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the attempts before."""
        self.seconds_before = state_dict["seconds"]
        self.resumed_after = [*state_dict["resumed_after"], state_dict["num_epochs"]]
        LOG.info("going on after epoch %d", state_dict["num_epochs"])

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Note what the cell was trained with."""
        checkpoint["made_by"] = self.made_by

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save, when it is time."""
        self._num_epochs = trainer.current_epoch + 1
        is_due = self._num_epochs % self.every == 0 if self.every else time.monotonic() - self._saved >= CHECKPOINT_S
        if self.every == 0 or not is_due:
            return
        scratch = self.path.with_suffix(".partial")
        trainer.save_checkpoint(scratch)
        with scratch.open("rb") as file:
            os.fsync(file.fileno())
        scratch.replace(self.path)
        self._saved = time.monotonic()


def find_checkpoint(folder: Path, *, made_by: dict[str, str]) -> Path | None:
    """Return the checkpoint of a cell that was cut short.

    None where there is none, or where one cannot be used: the log then says why.

    Args:
        folder: the cell's.
        made_by: what the cell would be gone on with, from `trained_with`.
    """
    path = folder / CHECKPOINT
    if not path.exists():
        return None
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        was_made_by = checkpoint["made_by"]
    except (OSError, RuntimeError, KeyError, EOFError, pickle.UnpicklingError) as error:
        LOG.warning("the checkpoint cannot be read, so the cell starts anew: %s", error)
        return None
    if was_made_by != made_by:
        LOG.warning("the checkpoint is from other sources, torch or kind of device, so the cell starts anew")
        return None
    return path


def trained_with(*, source_hash: str, device: torch.device) -> dict[str, str]:
    """Return what a checkpoint must have in common with whoever goes on from it.

    Args:
        source_hash: of the sources that can change the cell's numbers.
        device: that it is trained on.
    """
    return {"source_hash": source_hash, "torch": str(torch.__version__), "device": device.type}
