"""Image classification: the LightningModule that receives a cell's net."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from pytorch_lightning.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy

import ufo
from ablations.data import TrainBatches
from ablations.recipes import build_optimizer, lr_share
from ablations.streams import epoch_generator, reseed_library
from ablations.study import CellConfig


class Classifier(pl.LightningModule):
    """Cross-entropy with label smoothing, AdamW, warm-up and cosine; nothing is synchronised or logged in a step.

    Args:
        net: maps images (B, C, H, W) to logits (B, num_classes).
        config: the cell.
        num_classes: width of the output.
        train_batches: drawn anew for each epoch.
    """

    def __init__(self, net: ufo.UFOViT, *, config: CellConfig, num_classes: int, train_batches: TrainBatches) -> None:
        super().__init__()
        self.net = net
        self.config = config
        self.train_batches = train_batches
        # Without looking at values, which would wait for the device and drop NaN from the mean.
        self.train_loss = MeanMetric(nan_strategy="disable")
        self.val_loss = MeanMetric(nan_strategy="disable")
        self.val_accuracy = MulticlassAccuracy(num_classes, average="micro", validate_args=False)
        self.test_loss = MeanMetric(nan_strategy="disable")
        self.test_correct: list[Tensor] = []
        self.epoch_hashes: list[str] = []
        self._keep: Tensor | None = None

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the hashes of the epochs so far."""
        checkpoint["epoch_hashes"] = self.epoch_hashes

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the hashes of the epochs before."""
        self.epoch_hashes = checkpoint["epoch_hashes"]

    def on_train_epoch_start(self) -> None:
        """Draw what the epoch needs, and start its mean anew."""
        self.train_batches.set_epoch(self.current_epoch)
        self.epoch_hashes.append(self.train_batches.hash)
        reseed_library(self.config.seed, self.current_epoch)
        self._keep = self._draw_keep()
        self.train_loss.reset()

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the loss of a batch: scalar."""
        images, labels = batch
        logits = self.net(images, None if self._keep is None else self._keep[batch_idx])
        loss = F.cross_entropy(logits.float(), labels, label_smoothing=self.config.label_smoothing)
        self.train_loss.update(loss.detach())
        return loss

    def on_validation_epoch_start(self) -> None:
        """Start validation's means anew."""
        self.val_loss.reset()
        self.val_accuracy.reset()

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Take a batch into validation's means."""
        images, labels = batch
        logits = self.net(images).float()
        self.val_loss.update(F.cross_entropy(logits, labels), len(labels))
        self.val_accuracy.update(logits, labels)

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Note which images of a batch are right."""
        images, labels = batch
        logits = self.net(images).float()
        self.test_loss.update(F.cross_entropy(logits, labels), len(labels))
        self.test_correct.append(logits.argmax(dim=1) == labels)

    def epoch_metrics(self) -> dict[str, float]:
        """Return the means of the epoch that has just ended; the losses in nats."""
        return {
            "train_loss": self.train_loss.compute().item(),
            "val_loss": self.val_loss.compute().item(),
            "val_accuracy_pct": 100 * self.val_accuracy.compute().item(),
        }

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Return AdamW and its schedule, one step of it for each batch."""
        config, num_steps = self.config, self.config.epochs * len(self.train_batches)
        # Lightning refuses to clip the gradients of a fused optimiser under mixed precision.
        fused = config.precision == "32-true" and self.device.type != "mps"
        optimizer = build_optimizer(self.net, lr=config.lr, weight_decay=config.weight_decay, fused=fused)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer,
            lambda step: lr_share(
                step,
                num_steps=num_steps,
                num_warmup_steps=config.warmup_epochs * len(self.train_batches),
                min_share=config.min_lr_share,
            ),
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _draw_keep(self) -> Tensor | None:
        if not self.config.drop_path:
            return None
        shape = (len(self.train_batches), self.train_batches.batch_size)
        generators = (
            epoch_generator(self.config.seed, "drop_path", self.current_epoch, name) for name in self.net.branches
        )
        draws = [torch.rand(shape, generator=generator) for generator in generators]
        return (torch.stack(draws, dim=1) >= self.config.drop_path).to(self.device)  # (steps, branches, B)
