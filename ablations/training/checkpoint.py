"""Checkpoints, written atomically; a cell resumed from one gives the same numbers."""

from __future__ import annotations

import hashlib
import logging
import os
import pickle
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, BinaryIO

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint

from ablations.store import CHECKPOINT, RESUMED, write_json
from ablations.training.limits import is_oom

LOG = logging.getLogger(__name__)

EPOCH_END_S, WITHIN_EPOCH_S = 60.0, 600.0
"""Default seconds since the last checkpoint after which one is due at the end of an epoch, and within one: a short
cell writes none."""

DIGEST_BYTES, CHUNK_BYTES = hashlib.sha256().digest_size, 2**20

FORMAT = 2
"""Version of a checkpoint's content; a cell does not resume from another version."""

_ASKED = threading.Event()
_AFTER: list[Callable[[], None]] = []

OWN = "ablations"
"""Key of a checkpoint's content that is not the trainer's."""


class Checkpoints(Checkpoint):
    """Callback that saves checkpoints, with the environment that they can be resumed in.

    Args:
        folder: folder of the cell.
        every: epochs between two checkpoints, or time; 0: none; None: by `EPOCH_END_S` and `WITHIN_EPOCH_S`.
        made_by: environment of the training, from `trained_with`.

    Attributes:
        num_sharing: number of cells that share the time; if several, others decide when to save.
        diverged: kind and detail of the cell's divergence, for a checkpoint of a stack that goes on without it.
        resumed_after: number of finished epochs at each resumption of the cell.
        seconds_before: seconds that earlier attempts took up to the last resumption.
    """

    def __init__(self, folder: Path, *, every: int | timedelta | None, made_by: dict[str, str]) -> None:
        self.folder = folder
        self.made_by = made_by
        self.num_sharing = 1
        self.diverged: tuple[str, str] | None = None
        self.resumed_after: list[int] = []
        self.seconds_before = 0.0
        self._started = self._saved = time.monotonic()
        self._epochs = every if isinstance(every, int) else None
        seconds = every.total_seconds() if isinstance(every, timedelta) else None
        self._at_end_s = EPOCH_END_S if seconds is None else seconds
        self._within_s = WITHIN_EPOCH_S if seconds is None else seconds

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save within an epoch if a checkpoint is due."""
        if self.num_sharing == 1 and self.is_due_within(trainer):
            self.save(trainer)
            answer_asked()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save at the end of an epoch if a checkpoint is due."""
        if self.num_sharing == 1 and self.is_due_at_end(trainer):
            self.save(trainer)
            answer_asked()

    def is_due_within(self, trainer: pl.Trainer) -> bool:
        """Return whether a checkpoint is due within an epoch; never if processes have parts of its state each."""
        if trainer.is_last_batch or self._epochs == 0 or trainer.world_size > 1:
            return False
        return _ASKED.is_set() or (self._epochs is None and time.monotonic() - self._saved >= self._within_s)

    def is_due_at_end(self, trainer: pl.Trainer) -> bool:
        """Return whether a checkpoint is due at the end of an epoch."""
        if self._epochs is None:
            return _ASKED.is_set() or time.monotonic() - self._saved >= self._at_end_s
        return self._epochs > 0 and (_ASKED.is_set() or (trainer.current_epoch + 1) % self._epochs == 0)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add the environment that the checkpoint can be resumed in."""
        checkpoint[OWN] = {
            "made_by": self.made_by,
            "seconds": self.seconds_before + (time.monotonic() - self._started) / self.num_sharing,
            "resumed_after": self.resumed_after,
            "epochs": trainer.current_epoch + trainer.is_last_batch,
            "diverged": self.diverged,
        }

    def load(self) -> dict[str, Any] | None:
        """Load the checkpoint of an interrupted attempt; None: there is none, or the log says why it is unusable.

        Raises:
            OSError: read error of the system; the file is kept for another attempt, as after a lack of memory.
        """
        if not self.path.exists():
            return None
        try:
            checkpoint = _read(self.path)
        except DamagedError as reason:
            LOG.warning("the checkpoint cannot be read, so the cell starts from scratch: %s", reason)
            return None
        own = checkpoint.get(OWN, {})
        if own.get("made_by") != self.made_by:
            LOG.warning("the checkpoint has other numerics, torch or kind of device, so the cell starts from scratch")
            return None
        self.seconds_before = own["seconds"]
        self.resumed_after = [*own["resumed_after"], own["epochs"]]
        write_json(self.folder / RESUMED, {"resumed_after_epochs": self.resumed_after, "seconds": self.seconds_before})
        LOG.info("resuming after epoch %d, at step %d", own["epochs"], checkpoint["global_step"])
        return checkpoint

    def forget(self) -> None:
        """Start from scratch in spite of a checkpoint that was loaded."""
        self.seconds_before, self.resumed_after = 0.0, []
        (self.folder / RESUMED).unlink(missing_ok=True)

    @property
    def path(self) -> Path:
        """Path of the checkpoint."""
        return self.folder / CHECKPOINT

    def save(self, trainer: pl.Trainer) -> None:
        """Save a checkpoint, atomically."""
        scratch = self.path.with_suffix(".partial")
        trainer.save_checkpoint(scratch)
        with scratch.open("r+b") as file:
            digest = _digest(file, scratch.stat().st_size)
            file.write(digest)  # after torch's archive, where its reader does not look
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(self.path)
        self._saved = time.monotonic()


def ask_for_checkpoint(then: Callable[[], None] | None = None) -> None:
    """Let the cell or stack of this process save a checkpoint after its step, unless it saves none; for a signal.

    Args:
        then: is called when the checkpoint is saved; None: training goes on.
    """
    if then is not None:
        _AFTER.append(then)
    _ASKED.set()


def answer_asked() -> None:
    """Do what was to follow the checkpoints that were asked for, once all of them are saved."""
    _ASKED.clear()
    while _AFTER:
        _AFTER.pop()()


def trained_with(*, numerics: str, device: torch.device, trainer: str, num_processes: int = 1) -> dict[str, str]:
    """Return the environment that a training must share with a checkpoint to resume from it.

    Args:
        numerics: numerics version of the training code.
        device: device of the training.
        trainer: name of the trainer.
        num_processes: number of processes that share the cell.
    """
    own = {"processes": str(num_processes)} if num_processes > 1 else {}
    return {
        "format": str(FORMAT),
        "numerics": numerics,
        "torch": str(torch.__version__),
        "device": device.type,
        "trainer": trainer,
        **own,
    }


def load_alike(checkpoints: Sequence[Checkpoints]) -> list[dict[str, Any] | None]:
    """Load the checkpoints of cells that are trained together; none if they are not all of one step.

    That of a cell that has diverged may be of any step.

    Raises:
        OSError: read error of the system.
    """
    loaded = [each.load() for each in checkpoints]
    steps = {None if state is None else state["global_step"] for state in loaded if divergence_in(state) is None}
    if len(steps) > 1 or None in steps:
        if any(state is not None for state in loaded):
            LOG.warning("the checkpoints of the stack are not of one step, so its cells start from scratch")
        for each in checkpoints:
            each.forget()
        return [None] * len(loaded)
    return loaded


def divergence_in(state: Mapping[str, Any] | None) -> tuple[str, str] | None:
    """Return kind and detail of the divergence in a checkpoint; None: it has none, or there is no checkpoint."""
    return None if state is None else state[OWN].get("diverged")


class DamagedError(Exception):
    """Checkpoint whose content is not what was written."""


def _read(path: Path) -> dict[str, Any]:
    """Read a checkpoint and verify its checksum, which torch itself does not.

    Raises:
        DamagedError: damaged or foreign content.
        OSError: read error of the system.
    """
    with path.open("rb") as file:
        length = path.stat().st_size - DIGEST_BYTES
        if length <= 0 or _digest(file, length) != file.read():
            raise DamagedError("its checksum does not match")
        file.seek(0)
        try:
            return torch.load(file, map_location="cpu", weights_only=True)
        except (RuntimeError, pickle.UnpicklingError) as error:  # such as from another torch
            if isinstance(error, RuntimeError) and is_oom(error):
                raise
            raise DamagedError(str(error)) from error


def _digest(file: BinaryIO, length: int) -> bytes:
    """Hash the first bytes of a file, and leave the position behind them."""
    digest = hashlib.sha256()
    file.seek(0)
    while length > 0 and (chunk := file.read(min(length, CHUNK_BYTES))):
        digest.update(chunk)
        length -= len(chunk)
    return digest.digest()
