"""Checkpoints at epoch ends, written whole or not at all; a cell that goes on from one gives the same numbers."""

from __future__ import annotations

import hashlib
import logging
import os
import pickle
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import torch

from ablations.engine.limits import is_oom
from ablations.store import CHECKPOINT, RESUMED, write_json

LOG = logging.getLogger(__name__)

CHECKPOINT_S = 60.0
"""Seconds between two checkpoints where no number of epochs is given: a short cell writes none."""

DIGEST_BYTES, CHUNK_BYTES = hashlib.sha256().digest_size, 2**20


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
        with scratch.open("w+b") as file:
            torch.save(
                {
                    "made_by": self.made_by,
                    "seconds": self.seconds_before + time.monotonic() - self._started,
                    "resumed_after": self.resumed_after,
                    "training": state_dict(),
                },
                file,
            )
            file.write(_digest(file, file.tell()))  # behind torch's archive, where its reader does not look
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(path)
        self._saved = time.monotonic()

    def load(self) -> dict[str, Any] | None:
        """Return the training of an attempt that was cut short; None: there is none, or the log says why not.

        Raises:
            OSError: the system cannot read it now; it stays for another attempt, as with a want of memory.
        """
        path = self.folder / CHECKPOINT
        if not path.exists():
            return None
        try:
            checkpoint = _read(path)
        except DamagedError as reason:
            LOG.warning("the checkpoint cannot be read, so the cell starts anew: %s", reason)
            return None
        if checkpoint["made_by"] != self.made_by:
            LOG.warning("the checkpoint is from other sources, torch or kind of device, so the cell starts anew")
            return None
        training: dict[str, Any] = checkpoint["training"]
        self.seconds_before = checkpoint["seconds"]
        self.resumed_after = [*checkpoint["resumed_after"], training["num_epochs"]]
        write_json(self.folder / RESUMED, {"resumed_after_epochs": self.resumed_after, "seconds": self.seconds_before})
        LOG.info("going on after epoch %d", training["num_epochs"])
        return training


def trained_with(*, source_hash: str, device: torch.device) -> dict[str, str]:
    """Return what a checkpoint must have in common with whoever goes on from it.

    Args:
        source_hash: of the sources that can change the cell's numbers.
        device: that it is trained on.
    """
    return {"source_hash": source_hash, "torch": str(torch.__version__), "device": device.type}


class DamagedError(Exception):
    """A checkpoint is not what was written."""


def _read(path: Path) -> dict[str, Any]:
    """Read what `Checkpoints` has written, to the last bit: torch itself compares no checksum.

    Raises:
        DamagedError: it is something else.
        OSError: it cannot be read now.
    """
    with path.open("rb") as file:
        length = path.stat().st_size - DIGEST_BYTES
        if length <= 0 or _digest(file, length) != file.read():
            raise DamagedError("its checksum is another")
        file.seek(0)
        try:
            checkpoint: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
        except (RuntimeError, pickle.UnpicklingError) as error:  # of another torch
            if isinstance(error, RuntimeError) and is_oom(error):
                raise
            raise DamagedError(str(error)) from error
    return checkpoint


def _digest(file: BinaryIO, length: int) -> bytes:
    """Hash the first bytes of a file, and stop behind them."""
    digest = hashlib.sha256()
    file.seek(0)
    while length > 0 and (chunk := file.read(min(length, CHUNK_BYTES))):
        digest.update(chunk)
        length -= len(chunk)
    return digest.digest()
