"""One cell as a separate script, as in torchvision's and Lightning's tutorials.

It has PIL images with transforms, a DataLoader, a LightningModule and a Trainer, and is run once for each cell:

    python -m ablations.bench.fresh --norm l2 --seed 0

Net, initial weights, recipe and split sizes are the harness's. The validation split is another, and order and
augmentation come from the global seed, so its results resemble the harness's but differ.
"""

from __future__ import annotations

import argparse
import json
from functools import partial
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from PIL import Image
from pytorch_lightning.utilities.types import OptimizerLRSchedulerConfig
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import VisionDataset

import ufo
from ablations.config import recipes
from ablations.training.optimizer import build_optimizer, lr_share

NUM_CLASSES = 10
EVAL_BATCH = 500
"""Batch size of evaluation, as in the harness."""

RECIPE = recipes.defaults(image_side=8, flips=False)


class DigitImages(VisionDataset):  # type: ignore[misc]  # torchvision has no types
    """A split of scikit-learn's digits as PIL images, in the form of torchvision's MNIST.

    Args:
        images: images, (n, 8, 8) uint8.
        labels: labels, (n,) int64.
        transform: function from a PIL image to (1, 8, 8) float32.
    """

    def __init__(self, images: np.ndarray[Any, Any], labels: np.ndarray[Any, Any], *, transform: Any) -> None:
        super().__init__(transform=transform)
        self.images = images
        self.labels = labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.images[index])), int(self.labels[index])


class DigitClassifier(pl.LightningModule):
    """UFO-ViT on digits.

    Args:
        norm: registry name of the normaliser.
        seed: seed of the initial weights.
        epochs: number of epochs.
        steps_per_epoch: number of steps per epoch.
    """

    def __init__(self, norm: str, *, seed: int, epochs: int, steps_per_epoch: int) -> None:
        super().__init__()
        size = {"in_chans": 1, "img_size": 8, "patch": RECIPE["patch"]}
        self.net = ufo.build(RECIPE["model"], norm=norm, num_classes=NUM_CLASSES, seed=seed, **size)
        self.epochs = epochs
        self.steps_per_epoch = steps_per_epoch

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the loss of a batch, a scalar."""
        images, labels = batch
        loss = F.cross_entropy(self.net(images), labels, label_smoothing=RECIPE["label_smoothing"])
        self.log("train_loss", loss, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Log validation loss and accuracy of a batch."""
        self._log_evaluation("val", batch)

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Log test loss and accuracy of a batch."""
        self._log_evaluation("test", batch)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Return AdamW and its schedule, which is updated after each batch."""
        optimizer = build_optimizer(self.net, lr=RECIPE["lr"], weight_decay=RECIPE["weight_decay"], fused=True)
        total, warmup = (epochs * self.steps_per_epoch for epochs in (self.epochs, RECIPE["warmup_epochs"]))
        share = partial(lr_share, num_steps=total, num_warmup_steps=warmup, min_share=RECIPE["min_lr_share"])
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, share)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _log_evaluation(self, part: str, batch: tuple[Tensor, Tensor]) -> None:
        images, labels = batch
        logits = self.net(images)
        self.log(f"{part}_loss", F.cross_entropy(logits, labels))
        self.log(f"{part}_accuracy", (logits.argmax(dim=1) == labels).float().mean())


def load_parts() -> dict[str, DigitImages]:
    """Return digits split into train, val and test; training images are shifted as in the recipe."""
    bunch = load_digits()
    images, labels = np.round(bunch.images * (255 / 16)).astype(np.uint8), bunch.target
    split = partial(train_test_split, random_state=0)
    images, test_images, labels, test_labels = split(images, labels, test_size=0.2, stratify=labels)
    images, val_images, labels, val_labels = split(images, labels, test_size=0.1, stratify=labels)
    scale = [transforms.ToTensor(), transforms.Normalize([images.mean() / 255], [images.std() / 255])]
    # The recipe's "shift" moves half of the images by up to one pixel.
    shift = transforms.RandomApply([transforms.RandomCrop(8, padding=1)], p=0.5)
    return {
        "train": DigitImages(images, labels, transform=transforms.Compose([shift, *scale])),
        "val": DigitImages(val_images, val_labels, transform=transforms.Compose(scale)),
        "test": DigitImages(test_images, test_labels, transform=transforms.Compose(scale)),
    }


def main() -> None:
    """Train and test one cell, and print its test accuracy."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--norm", required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--epochs", type=int, default=RECIPE["epochs"])
    parser.add_argument("--threads", type=int, help="number of torch threads; torch's default: all cores")
    arguments = parser.parse_args()
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    pl.seed_everything(arguments.seed)
    parts = load_parts()
    train: DataLoader[Any] = DataLoader(parts["train"], batch_size=RECIPE["batch_size"], shuffle=True, drop_last=True)
    val: DataLoader[Any] = DataLoader(parts["val"], batch_size=EVAL_BATCH)
    test: DataLoader[Any] = DataLoader(parts["test"], batch_size=EVAL_BATCH)
    module = DigitClassifier(arguments.norm, seed=arguments.seed, epochs=arguments.epochs, steps_per_epoch=len(train))
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=arguments.epochs,
        gradient_clip_val=RECIPE["grad_clip"],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, train, val)
    (tested,) = trainer.test(module, test, verbose=False)
    print(json.dumps({"norm": arguments.norm, "seed": arguments.seed, **tested}))


if __name__ == "__main__":
    main()
