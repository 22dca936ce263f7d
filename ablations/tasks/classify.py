"""Image classification: the loss of a batch, and the metrics of an evaluation."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import CatMetric, MeanMetric
from torchmetrics.classification import MulticlassAccuracy

from ablations.config import CellConfig
from ablations.data import Batch, EpochBatches
from ablations.data.batches import EVAL_BATCH
from ablations.data.draws import joined, pick, refill
from ablations.data.mixing import Mixing, MixingDraws
from ablations.data.streams import epoch_generator, reseed_library
from ablations.tasks.mean import SampleMean
from ablations.tasks.net import branches_of, build_net, match_to_xnorm
from ablations.training.module import CellModule, as_config

NO_LEARNING = 0.95
"""Validation cross-entropy, as a share of ln(classes), below which a cell counts as learning."""


class Classifier(CellModule):
    """Cross-entropy with label smoothing, mixing and drop path; a step neither synchronises nor logs.

    Batches are images (B, C, H, W) and labels (B,). Logged once per epoch: ``train_loss`` and ``val_loss`` in nats,
    ``val_accuracy_pct``; after a test ``test_accuracy_pct`` and ``test_loss``.

    Args:
        config: configuration of the cell, or its fields.
        image_shape: height, width and channels of the images.
        num_classes: number of classes, the width of the output.
        net: net from images (B, C, H, W) to logits (B, num_classes); None: built from the cell's seed. In training, a
            net with ``branches`` also receives the samples that each branch keeps, (branches, B).

    Raises:
        ValueError: inconsistent sizes.
    """

    losses: ClassVar[tuple[str, ...]] = ("train_loss", "val_loss")

    def __init__(
        self,
        config: CellConfig | Mapping[str, Any],
        *,
        image_shape: tuple[int, int, int],
        num_classes: int,
        net: nn.Module | None = None,
    ) -> None:
        config = as_config(config)
        own = build_net(config, image_shape=image_shape, num_classes=num_classes) if net is None else net
        super().__init__(config, own, chance_loss=math.log(num_classes))
        given = {"config": config.model_dump(mode="json"), "image_shape": list(image_shape), "num_classes": num_classes}
        self.save_hyperparameters(given)
        self.image_shape, self.num_classes = image_shape, num_classes
        self.branches = branches_of(own)
        mixed = config.augmentation
        self.mixing = Mixing(
            mixup=mixed.mixup, cutmix=mixed.cutmix, mix_probability=mixed.mix_probability, erasing=mixed.erasing
        )
        # Checking for NaN would wait for the device and drop NaN from the mean.
        self.train_loss = MeanMetric(nan_strategy="disable")
        self.train_loss.persistent(mode=True)  # part of checkpoints within an epoch
        self.val_loss, self.test_loss = SampleMean(), SampleMean()
        self.val_accuracy = MulticlassAccuracy(num_classes, average="micro", validate_args=False)
        self.test_correct = CatMetric(nan_strategy="disable")
        self._keep: Tensor | None = None
        self._full_batch = 1
        self._mixing_draws: MixingDraws | None = None
        self._own: slice | Tensor | None = None

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of a batch: scalar, in nats."""
        loss = self.loss(batch, batch_idx)
        self.record_loss(loss)
        return loss

    def loss(self, batch: Batch, index: int | Tensor) -> Tensor:
        """Return the loss of a batch: scalar, in nats."""
        images, targets, keep = self.net_inputs(batch, index)
        return self.loss_of(self.train_net(images) if keep is None else self.train_net(images, keep), targets)

    def net_inputs(
        self, batch: Batch, index: int | Tensor, *, others: Sequence[CellModule] | None = None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return mixed images, labels or class probabilities, and the samples that each branch keeps, (branches, B).

        In a stack with S - 1 other modules the batch is those of all S in a row, and so are the first two results; the
        third is (S, branches, B).
        """
        images, targets = batch
        modules = [self, *(other for other in others or () if isinstance(other, Classifier))]
        if self._mixing_draws is not None:
            drawn = [module._mixing_draws for module in modules]
            images, targets = self._mixing_draws.apply(
                images,
                targets,
                joined([pick(each.draws, index) for each in drawn if each is not None]),
                num_classes=self.num_classes,
                groups=len(modules),
                generators=[generator for module in modules for generator in module.step_generators()],
            )
        if self._keep is None:
            return images, targets, None
        keeps = [pick({"keep": module._keep}, index)["keep"] for module in modules if module._keep is not None]
        keep = keeps[0] if others is None else torch.stack(keeps)
        return images, targets, keep[..., : len(images) // len(modules)]

    def loss_of(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the cross-entropy of logits (B, num_classes): scalar, in nats."""
        return F.cross_entropy(outputs.float(), targets, label_smoothing=self.config.optimisation.label_smoothing)

    def step_generators(self) -> list[torch.Generator]:
        """Return the generator of erasing's noise, if there is any."""
        return [] if self._mixing_draws is None else self._mixing_draws.generators

    def record_loss(self, loss: Tensor) -> None:
        """Add a step's loss to the mean of the epoch."""
        self.train_loss.update(loss.detach())

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Update the validation metrics with a batch."""
        images, labels = batch
        logits = self.net(images).float()
        self._add_loss(self.val_loss, logits, labels, batch_idx)
        self.val_accuracy.update(logits, labels)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Update the test metrics with a batch."""
        images, labels = batch
        logits = self.net(images).float()
        self._add_loss(self.test_loss, logits, labels, batch_idx)
        self.test_correct.update(logits.argmax(dim=1) == labels)

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the logits of a batch's images, (B, num_classes)."""
        return self.net(batch[0]).float()

    def train_metrics(self) -> dict[str, float]:
        """Return the mean loss of the epoch, in nats."""
        return {"train_loss": self.train_loss.compute().item()}

    def val_metrics(self) -> dict[str, float]:
        """Return cross-entropy in nats and accuracy in per cent."""
        return {
            "val_loss": self.val_loss.compute().item(),
            "val_accuracy_pct": 100 * self.val_accuracy.compute().item(),
        }

    def test_metrics(self) -> dict[str, float]:
        """Return accuracy in per cent and cross-entropy in nats."""
        return {"test_accuracy_pct": 100 * float(self._correct().mean()), "test_loss": self.test_loss.compute().item()}

    def reset_train_metrics(self) -> None:
        """Reset the mean loss of the epoch."""
        self.train_loss.reset()

    def reset_val_metrics(self) -> None:
        """Reset the validation metrics."""
        self.val_loss.reset()
        self.val_accuracy.reset()

    def reset_test_metrics(self) -> None:
        """Reset the test metrics."""
        self.test_loss.reset()
        self.test_correct.reset()

    def write_test(self, folder: Path) -> None:
        """Write to ``correct.npy`` which images are classified correctly, in the split's order."""
        np.save(folder / "correct.npy", self._correct())

    def no_learning(self, rows: list[dict[str, Any]]) -> str:
        """Return a message if validation cross-entropy stayed at chance, else an empty string."""
        at_chance = has_not_learned(
            rows, num_classes=self.num_classes, warmup_epochs=self.config.optimisation.warmup_epochs
        )
        return "validation cross-entropy stayed at chance" if at_chance else ""

    def validated(self, last: dict[str, Any]) -> dict[str, float]:
        """Return accuracy and cross-entropy of the last epoch."""
        return {name: last[name] for name in ("val_accuracy_pct", "val_loss")}

    def _add_loss(self, mean: SampleMean, logits: Tensor, labels: Tensor, batch_idx: int) -> None:
        """Add an evaluation batch, of which the first is full unless it is the only one, or processes share them."""
        if batch_idx == 0:
            self._full_batch = len(labels) if self.trainer.world_size == 1 else EVAL_BATCH
        mean.update(F.cross_entropy(logits, labels), num_samples=len(labels), of=self._full_batch)

    def _correct(self) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Return which test images are classified correctly, in the split's order: each W-th is of one process."""
        gathered = self.test_correct.compute().bool().cpu().numpy()
        world_size = self.trainer.world_size
        places = [np.arange(rank, len(gathered), world_size) for rank in range(world_size)]
        correct = np.empty_like(gathered)
        correct[np.concatenate(places)] = gathered
        return correct

    def _match_to_xnorm(self, batch: Batch) -> dict[str, float]:
        return match_to_xnorm(self.net, self.config, batch[0], num_classes=self.num_classes)

    def _draw(self, epoch: int) -> None:
        super()._draw(epoch)
        train: Any = self.trainer.train_dataloader
        num_batches = len(train)
        rank = train.rank if isinstance(train, EpochBatches) else None
        self._own = None if rank is None or rank.world_size == 1 else rank.mirrored(self.config.optimisation.batch_size)
        if self.mixing:
            self._draw_mixing(epoch, num_batches)
        own = (rank.number,) if rank is not None and rank.number else ()  # other samples than those of the first
        reseed_library(self.config.seed, epoch, *own)
        self._keep = self._draw_keep(epoch, num_batches)

    def _hash(self) -> str:
        batches = super()._hash()
        if self._mixing_draws is None or not batches:
            return batches
        return hashlib.sha256(f"{batches} {self._mixing_draws.hash}".encode()).hexdigest()[: len(batches)]

    def _draws_state(self) -> dict[str, Any]:
        return {} if self._mixing_draws is None else {"mixing": self._mixing_draws.state_dict()}

    def _restore_draws(self, state: dict[str, Any]) -> None:
        super()._restore_draws(state)
        if self._mixing_draws is not None:
            self._mixing_draws.load_state_dict(state["mixing"])

    def _draw_mixing(self, epoch: int, num_batches: int) -> None:
        if self._mixing_draws is None:
            size = (self.image_shape[0], self.image_shape[1])
            self._mixing_draws = MixingDraws(
                self.mixing, batch_size=self.config.optimisation.batch_size, size=size, seed=self.config.seed
            )
        self._mixing_draws.draw(epoch, num_batches=num_batches, device=self.device, own=self._own)

    def _draw_keep(self, epoch: int, num_batches: int) -> Tensor | None:
        if not (self.config.net.drop_path and self.branches):
            return None
        shape = (num_batches, self.config.optimisation.batch_size)
        generators = (epoch_generator(self.config.seed, "drop_path", epoch, name) for name in self.branches)
        draws = [torch.rand(shape, generator=generator) for generator in generators]
        keep = torch.stack(draws, dim=1) >= self.config.net.drop_path  # (steps, branches, B)
        before = {} if self._keep is None else {"keep": self._keep}
        return refill(before, {"keep": keep if self._own is None else keep[..., self._own]}, self.device)["keep"]


def has_not_learned(rows: list[dict[str, Any]], *, num_classes: int, warmup_epochs: int) -> bool:
    """Return whether validation cross-entropy stayed at chance in all epochs after the warm-up; False without any.

    >>> has_not_learned([{"epoch": 1, "val_loss": 2.3}, {"epoch": 2, "val_loss": 2.2}], num_classes=10, warmup_epochs=1)
    True
    """
    judged = [row["val_loss"] for row in rows if row["epoch"] > warmup_epochs]
    return bool(judged) and min(judged) >= NO_LEARNING * math.log(num_classes)
