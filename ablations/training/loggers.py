"""Lightning's loggers, besides the cell's own files. A logger's error is logged and does not affect the cell."""

from __future__ import annotations

import contextlib
import logging
import socket
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from ablations.config import CellConfig

LOG = logging.getLogger(__name__)


class Loggers(pl.Callback):
    """Callback that passes each epoch's metrics to Lightning's loggers; one that raises is dropped.

    TensorBoard drops the epochs of an earlier attempt that are trained again. A resumed attempt continues its W&B run,
    which shows such epochs twice; an attempt that starts from scratch has a run of its own.

    Args:
        names: names of the loggers, ``tensorboard`` or ``wandb``.
        folder: folder of this cell's logs.
        config: configuration of the cell, logged as hyperparameters.
    """

    def __init__(self, names: tuple[str, ...], *, folder: Path, config: CellConfig) -> None:
        self.folder = folder
        self.config = config
        self.names = names
        self._loggers: dict[str, Any] = {}
        self._run_id = uuid.uuid4().hex[:8]

    def state_dict(self) -> dict[str, Any]:
        """Return the id of the W&B run."""
        return {"run_id": self._run_id}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the id of the W&B run."""
        self._run_id = state_dict["run_id"]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Create the loggers, which start to write at once."""
        for name in self.names:
            self._guarded(name, partial(self._attach, name, trainer.current_epoch))

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Log the epoch's metrics."""
        means, step = pl_module.epoch_metrics(), trainer.current_epoch + 1
        for name, logger in list(self._loggers.items()):
            self._guarded(name, partial(logger.log_metrics, means, step=step))

    def finish(self, metrics: dict[str, float], *, status: str) -> None:
        """Log the test metrics, and close every logger.

        Args:
            metrics: names to values; empty if the cell was not tested.
            status: ``success`` or ``failed``.
        """
        for name, logger in list(self._loggers.items()):
            if metrics:  # at a step of its own, which TensorBoard drops if a later attempt tests again
                self._guarded(name, partial(logger.log_metrics, metrics, step=self.config.optimisation.epochs + 1))
            self._guarded(name, partial(logger.finalize, status))
            self._guarded(name, partial(_close, logger, failed=status == "failed"))

    def _attach(self, name: str, num_epochs: int) -> None:
        """Create a logger, after a number of epochs that earlier attempts finished."""
        from pytorch_lightning import loggers

        self.folder.mkdir(parents=True, exist_ok=True)
        with _nameless():
            self._loggers[name] = self._made(name, num_epochs, loggers)

    def _made(self, name: str, num_epochs: int, loggers: Any) -> Any:
        run = self.folder.name
        logger: Any
        if name == "tensorboard":
            logger = loggers.TensorBoardLogger(
                self.folder.parent, name=run, version="", default_hp_metric=False, purge_step=num_epochs + 1
            )
        else:
            project = self.folder.parent.parent.name
            logger = loggers.WandbLogger(name=run, save_dir=self.folder, project=project, id=self._run_id)
        _ = logger.experiment  # opens its file
        logger.log_hyperparams(self.config.model_dump(mode="json"))
        return logger

    def _guarded(self, name: str, call: Callable[[], object]) -> None:
        try:
            call()
        except Exception as error:
            LOG.warning("the logger %s is dropped: %s: %s", name, type(error).__name__, error)
            self._loggers.pop(name, None)


@contextlib.contextmanager
def _nameless() -> Iterator[None]:
    """Hide the machine's name, which TensorBoard writes into the name of its file."""
    before = socket.gethostname
    socket.gethostname = lambda: "host"
    try:
        yield
    finally:
        socket.gethostname = before


def _close(logger: Any, *, failed: bool) -> None:
    """Finish a W&B run, of which a process has only one; other loggers are already closed."""
    if finish := getattr(logger.experiment, "finish", None):
        finish(exit_code=int(failed))
