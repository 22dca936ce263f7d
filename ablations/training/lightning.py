"""Training of a cell with Lightning's own Trainer, to verify the lean loop and to support plug-ins."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from ablations.config import CellConfig
from ablations.data.modules import CellDataModule
from ablations.store import CHECKPOINT
from ablations.training.half import TrainerHalf
from ablations.training.module import CellModule
from ablations.training.parallel import placement


class LightningTrainer(pl.Trainer):
    """Trainer with a cell's settings, and the arguments of `ablations.training.loop.LeanTrainer`.

    Args:
        config: configuration of the cell.
        device: device to train on.
        callbacks: callbacks besides the module's; one of them saves checkpoints.
        log_dir: folder that callbacks write to.
    """

    def __init__(
        self, config: CellConfig, *, device: torch.device, callbacks: Sequence[pl.Callback], log_dir: Path
    ) -> None:
        super().__init__(
            **placement(config, device, half=TrainerHalf),
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
        """Train the remaining epochs.

        Args:
            module: module with its initial weights.
            data: data module of the cell.
            checkpoint: content of the checkpoint in the cell's folder, to resume from; None: start from scratch.
        """
        path = None if checkpoint is None else Path(self.default_root_dir) / CHECKPOINT
        super().fit(module, datamodule=data, ckpt_path=path, weights_only=True)

    def test(self, module: CellModule, data: CellDataModule) -> None:  # type: ignore[override]
        """Evaluate the module on every test batch, once."""
        super().test(module, datamodule=data, verbose=False)
