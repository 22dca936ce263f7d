"""Lightning's loggers beside our own files. What a logger does wrong is noted in the cell's log, and costs nothing."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from ablations.callbacks import Callback, Epoch
from ablations.study import CellConfig

LOG = logging.getLogger(__name__)


class Loggers(Callback):
    """Hands each epoch's metrics to Lightning's loggers; one that raises is dropped, and the cell goes on.

    Args:
        names: ``tensorboard`` or ``wandb``.
        folder: of this cell's logs.
        config: the cell, logged as hyperparameters.
    """

    def __init__(self, names: tuple[str, ...], *, folder: Path, config: CellConfig) -> None:
        self.folder = folder
        self.config = config
        self._loggers: dict[str, Any] = {}
        for name in names:
            self._guarded(name, partial(self._attach, name))

    def on_epoch_end(self, epoch: Epoch) -> None:
        """Log the epoch's metrics."""
        for name, logger in list(self._loggers.items()):
            self._guarded(name, partial(logger.log_metrics, epoch.means, step=epoch.number))

    def finish(self, metrics: dict[str, float], *, status: str) -> None:
        """Log what the test gave, and close every logger.

        Args:
            metrics: names to values; empty where the cell was not tested.
            status: ``success`` or ``failed``.
        """
        for name, logger in list(self._loggers.items()):
            if metrics:
                self._guarded(name, partial(logger.log_metrics, metrics, step=self.config.epochs))
            self._guarded(name, partial(logger.finalize, status))
            self._guarded(name, partial(_close, logger, failed=status == "failed"))

    def _attach(self, name: str) -> None:
        from pytorch_lightning import loggers

        self.folder.mkdir(parents=True, exist_ok=True)
        run = self.folder.name
        logger: Any
        if name == "tensorboard":
            logger = loggers.TensorBoardLogger(self.folder.parent, name=run, version="", default_hp_metric=False)
        else:
            logger = loggers.WandbLogger(name=run, save_dir=self.folder, project=self.folder.parent.parent.name)
        logger.log_hyperparams(self.config.model_dump(mode="json"))
        self._loggers[name] = logger

    def _guarded(self, name: str, call: Callable[[], object]) -> None:
        try:
            call()
        except Exception as error:
            LOG.warning("the logger %s is dropped: %s: %s", name, type(error).__name__, error)
            self._loggers.pop(name, None)


def _close(logger: Any, *, failed: bool) -> None:
    """End a run of wandb, of which there is one a process; other loggers are closed by now."""
    if finish := getattr(logger.experiment, "finish", None):
        finish(exit_code=int(failed))
