"""Checkpoints at epoch ends, written whole or not at all; a cell that goes on from one gives the same numbers."""

from __future__ import annotations

import logging
import os
import pickle
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ablations.store import CHECKPOINT

LOG = logging.getLogger(__name__)

CHECKPOINT_S = 60.0
"""Seconds between two checkpoints where no number of epochs is given: a short cell writes none."""


class Checkpoints:
    """Saves what a training can be gone on from, with what tells whether it may be.

    Args:
        folder: the cell's.
        every: epochs between two checkpoints; 0: none; None: at the end of an epoch when `CHECKPOINT_S` have passed.
        made_by: what the cell is trained with, from `trained_with`.

    Attributes:
        resumed_after: the epochs after which earlier attempts were gone on from.
        seconds_before: what those attempts took up to there.
    """

    def __init__(self, folder: Path, *, every: int | None, made_by: dict[str, str]) -> None:
        self.folder = folder
        self.every = every
        self.made_by = made_by
        self.resumed_after: list[int] = []
        self.seconds_before = 0.0
        self._started = self._saved = time.monotonic()

    def save_when_due(self, num_epochs: int, state_dict: Callable[[], dict[str, Any]]) -> None:
        """Save, when it is time.

        Args:
            num_epochs: that are finished.
            state_dict: returns the training's.
        """
        is_due = num_epochs % self.every == 0 if self.every else time.monotonic() - self._saved >= CHECKPOINT_S
        if self.every == 0 or not is_due:
            return
        path = self.folder / CHECKPOINT
        scratch = path.with_suffix(".partial")
        with scratch.open("wb") as file:
            torch.save(
                {
                    "made_by": self.made_by,
                    "seconds": self.seconds_before + time.monotonic() - self._started,
                    "resumed_after": self.resumed_after,
                    "training": state_dict(),
                },
                file,
            )
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(path)
        self._saved = time.monotonic()

    def load(self) -> dict[str, Any] | None:
        """Return the training of an attempt that was cut short; None: there is none, or the log says why not."""
        checkpoint = load_checkpoint(self.folder, made_by=self.made_by)
        if checkpoint is None:
            return None
        training: dict[str, Any] = checkpoint["training"]
        self.seconds_before = checkpoint["seconds"]
        self.resumed_after = [*checkpoint["resumed_after"], training["num_epochs"]]
        LOG.info("going on after epoch %d", training["num_epochs"])
        return training


def load_checkpoint(folder: Path, *, made_by: dict[str, str]) -> dict[str, Any] | None:
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
        checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        was_made_by = checkpoint["made_by"]
    except (OSError, RuntimeError, KeyError, EOFError, pickle.UnpicklingError) as error:
        LOG.warning("the checkpoint cannot be read, so the cell starts anew: %s", error)
        return None
    if was_made_by != made_by:
        LOG.warning("the checkpoint is from other sources, torch or kind of device, so the cell starts anew")
        return None
    return checkpoint


def trained_with(*, source_hash: str, device: torch.device) -> dict[str, str]:
    """Return what a checkpoint must have in common with whoever goes on from it.

    Args:
        source_hash: of the sources that can change the cell's numbers.
        device: that it is trained on.
    """
    return {"source_hash": source_hash, "torch": str(torch.__version__), "device": device.type}
