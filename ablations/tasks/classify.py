"""Image classification: the loss of a batch, and what an evaluation measures."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy

from ablations.data import Batch, DataInfo, EpochBatches, load_data
from ablations.data.mixing import Mixing, MixingDraws
from ablations.streams import epoch_generator, reseed_library
from ablations.study import CellConfig
from ablations.tasks.net import branches_of, build_net, match_to_xnorm
from ablations.tasks.task import Evaluate

NO_LEARNING = 0.95
"""Validation cross-entropy, as a share of ln(classes), that a cell must go below to count as learning."""


class Classification:
    """A cell that classifies images; see `ablations.tasks.task.Workload`.

    Args:
        config: the cell.
        info: its data set, in the cache.
        device: of the batches.
        workers: processes that decode streamed images.
    """

    losses: tuple[str, ...] = ("train_loss", "val_loss")

    def __init__(self, config: CellConfig, info: DataInfo, *, device: torch.device, workers: int) -> None:
        self.config, self.info, self.device = config, info, device
        self.num_classes = len(info.classes)
        self.chance_loss = math.log(self.num_classes)
        self.data = load_data(config, info, device=device, workers=workers)
        self.net = build_net(config, image_shape=info.image_shape, num_classes=self.num_classes)
        self.facts: dict[str, Any] = {} if config.classes is None else {"classes": info.classes}

    def steps(self, *, net: Callable[..., Tensor], train_net: Callable[..., Tensor]) -> Classifier:
        """Return the steps of its training."""
        return Classifier(
            net,
            train_net=train_net,
            branches=branches_of(self.net),
            config=self.config,
            num_classes=self.num_classes,
            image_size=self.info.image_shape[:2],
            train_batches=self.data.train,
            device=self.device,
        )

    def match_scale(self) -> None:
        """Match the attention outputs' scale to xnorm's; a checkpoint to go on from holds the same gains."""
        match_to_xnorm(self.net, self.config, self.info, self.data.train)

    def no_learning(self, rows: list[dict[str, Any]]) -> str:
        """Say whether validation cross-entropy stayed at chance."""
        at_chance = has_not_learned(rows, num_classes=self.num_classes, warmup_epochs=self.config.warmup_epochs)
        return "validation cross-entropy stayed at chance" if at_chance else ""

    def validated(self, last: dict[str, Any]) -> dict[str, float]:
        """Return accuracy and cross-entropy of the last epoch."""
        return {name: last[name] for name in ("val_accuracy_pct", "val_loss")}

    def test(self, steps: Classifier, evaluate: Evaluate, folder: Path) -> dict[str, float]:
        """Test once, and note in ``correct.npy`` which images are right."""
        if self.data.test is None:
            return {}
        reseed_library(self.config.seed, self.config.epochs)  # also where no epoch has been trained in this attempt
        evaluate(self.data.test, steps.test_step)
        correct = torch.cat(steps.test_correct).cpu().numpy()
        np.save(folder / "correct.npy", correct)
        return {"test_accuracy_pct": 100 * float(correct.mean()), "test_loss": steps.test_loss.compute().item()}


def has_not_learned(rows: list[dict[str, Any]], *, num_classes: int, warmup_epochs: int) -> bool:
    """Tell whether validation cross-entropy stayed at chance in every epoch after the warm-up; False if there is none.

    >>> has_not_learned([{"epoch": 1, "val_loss": 2.3}, {"epoch": 2, "val_loss": 2.2}], num_classes=10, warmup_epochs=1)
    True
    """
    judged = [row["val_loss"] for row in rows if row["epoch"] > warmup_epochs]
    return bool(judged) and min(judged) >= NO_LEARNING * math.log(num_classes)


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
        train_batches: EpochBatches[Batch],
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
