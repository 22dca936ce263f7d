"""A cell by Lightning's own Trainer, as the proof that the lean loop agrees, and for its plug-ins."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from ablations.config import CellConfig
from ablations.data.modules import CellDataModule
from ablations.store import CHECKPOINT
from ablations.training.loop import placement
from ablations.training.module import CellModule


class LightningTrainer(pl.Trainer):
    """A Trainer with a cell's settings, and the arguments of `ablations.training.loop.LeanTrainer`.

    Args:
        config: the cell.
        device: to train on.
        callbacks: beside those that the module brings; one of them saves checkpoints.
        log_dir: where callbacks write.
    """

    def __init__(
        self, config: CellConfig, *, device: torch.device, callbacks: Sequence[pl.Callback], log_dir: Path
    ) -> None:
        super().__init__(
            **placement(config, device),
            max_epochs=config.optimisation.epochs,
            callbacks=list(callbacks),
            default_root_dir=log_dir,
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
        )

    def fit(  # type: ignore[override]
        self, module: CellModule, data: CellDataModule, *, checkpoint: dict[str, Any] | None = None
    ) -> None:
        """Train the epochs that are missing.

        Args:
            module: with its first weights.
            data: its batches.
            checkpoint: what was read of the one in the cell's folder, from which to go on; None: from the start.
        """
        path = None if checkpoint is None else Path(self.default_root_dir) / CHECKPOINT
        super().fit(module, datamodule=data, ckpt_path=path, weights_only=True)

    def test(self, module: CellModule, data: CellDataModule) -> None:  # type: ignore[override]
        """Take every test batch through the module, once."""
        super().test(module, datamodule=data, verbose=False)
