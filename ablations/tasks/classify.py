"""Image classification: the loss of a batch, and what an evaluation measures."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy

from ablations.data import Batch, EpochBatches
from ablations.data.mixing import Mixing, MixingDraws
from ablations.streams import epoch_generator, reseed_library
from ablations.study import CellConfig


class Classifier:
    """Cross-entropy with label smoothing, mixing and drop path; nothing is synchronised or logged in a step.

    Args:
        net: maps images (B, C, H, W) to logits (B, num_classes), for evaluations.
        train_net: for training steps, with the weights that are trained; maps images, and what each branch keeps
            (branches, B) where there are branches. It may be compiled; evaluation is not, so that probes can listen.
        branches: of the net, by name, which drop path can leave out; none: the net draws its drop path itself.
        config: the cell.
        num_classes: width of the output.
        image_size: height and width of the batches' images.
        train_batches: drawn anew for each epoch.
        device: of the batches.
    """

    def __init__(
        self,
        net: Callable[..., Tensor],
        *,
        train_net: Callable[..., Tensor],
        branches: Sequence[str],
        config: CellConfig,
        num_classes: int,
        image_size: tuple[int, int],
        train_batches: EpochBatches,
        device: torch.device,
    ) -> None:
        self.net, self.train_net = net, train_net
        self.branches = branches
        self.config = config
        self.num_classes, self.image_size = num_classes, image_size
        self.mixing = Mixing(
            mixup=config.mixup, cutmix=config.cutmix, mix_probability=config.mix_probability, erasing=config.erasing
        )
        self.train_batches = train_batches
        self.device = device
        # Without looking at values, which would wait for the device and drop NaN from the mean.
        self.val_loss = MeanMetric(nan_strategy="disable").to(device)
        self.val_accuracy = MulticlassAccuracy(num_classes, average="micro", validate_args=False).to(device)
        self.test_loss = MeanMetric(nan_strategy="disable").to(device)
        self.test_correct: list[Tensor] = []
        self.epoch_hashes: list[str] = []
        self._train_loss = torch.zeros((), device=device)  # a sum: nothing of a metric's is needed
        self._keep: Tensor | None = None
        self._mixing_draws: MixingDraws | None = None

    def start_epoch(self, epoch: int) -> None:
        """Draw what an epoch (from 0) needs, and start its means anew."""
        self.train_batches.set_epoch(epoch)
        self._mixing_draws = self._draw_mixing(epoch) if self.mixing else None
        self.epoch_hashes.append(self._hash())
        reseed_library(self.config.seed, epoch)
        self._keep = self._draw_keep(epoch)
        self._train_loss.zero_()
        self.val_loss.reset()
        self.val_accuracy.reset()

    def training_step(self, batch: Batch, index: int) -> Tensor:
        """Return the loss of the epoch's batch number ``index``: scalar, nats."""
        images, targets = batch
        if self._mixing_draws is not None:
            images, targets = self._mixing_draws.apply(images, targets, index, num_classes=self.num_classes)
        logits = self.train_net(images) if self._keep is None else self.train_net(images, self._keep[index])
        loss = F.cross_entropy(logits.float(), targets, label_smoothing=self.config.label_smoothing)
        self._train_loss += loss.detach()
        return loss

    def validation_step(self, batch: Batch) -> None:
        """Take a batch into validation's means."""
        images, labels = batch
        logits = self.net(images).float()
        self.val_loss.update(F.cross_entropy(logits, labels), len(labels))
        self.val_accuracy.update(logits, labels)

    def test_step(self, batch: Batch) -> None:
        """Note which images of a batch are right."""
        images, labels = batch
        logits = self.net(images).float()
        self.test_loss.update(F.cross_entropy(logits, labels), len(labels))
        self.test_correct.append(logits.argmax(dim=1) == labels)

    def epoch_metrics(self) -> dict[str, float]:
        """Return the means of the epoch that has just ended; the losses in nats."""
        return {
            "train_loss": (self._train_loss / len(self.train_batches)).item(),
            "val_loss": self.val_loss.compute().item(),
            "val_accuracy_pct": 100 * self.val_accuracy.compute().item(),
        }

    def _hash(self) -> str:
        """Hash what the epoch's steps see."""
        if self._mixing_draws is None:
            return self.train_batches.hash
        text = f"{self.train_batches.hash} {self._mixing_draws.hash}"
        return hashlib.sha256(text.encode()).hexdigest()[: len(self.train_batches.hash)]

    def _draw_mixing(self, epoch: int) -> MixingDraws:
        return MixingDraws(
            self.mixing,
            num_batches=len(self.train_batches),
            batch_size=self.train_batches.batch_size,
            size=self.image_size,
            seed=self.config.seed,
            epoch=epoch,
            device=self.device,
        )

    def _draw_keep(self, epoch: int) -> Tensor | None:
        if not (self.config.drop_path and self.branches):
            return None
        shape = (len(self.train_batches), self.train_batches.batch_size)
        generators = (epoch_generator(self.config.seed, "drop_path", epoch, name) for name in self.branches)
        draws = [torch.rand(shape, generator=generator) for generator in generators]
        return (torch.stack(draws, dim=1) >= self.config.drop_path).to(self.device)  # (steps, branches, B)
