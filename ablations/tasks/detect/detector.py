"""Detection, with masks or without: the losses of a batch, and the metrics of an evaluation.

A cell's detections are ``detections.json.bz2``: COCO's results format, compressed by bzip2, which stores no timestamp.
"""

from __future__ import annotations

import bz2
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, cast

import torch
from PIL import Image
from torch import Tensor, nn
from torchmetrics import MeanMetric
from torchvision.models.detection import FasterRCNN

from ablations.config import CellConfig
from ablations.data.objects.batches import ObjectBatch, ObjectEvalBatches
from ablations.data.streams import reseed_library
from ablations.tasks.detect.net import build_detector, own_net
from ablations.tasks.detect.scores import IOUS, AveragePrecision, Scores
from ablations.training.module import CellModule, as_config
from ufo.scale import match_scale

NO_LEARNING_PCT = 0.5
"""Validation box AP50, in per cent, that a cell must exceed in some epoch after its warm-up to count as learning."""

PER_EPOCH = ("box_ap_pct", "box_ap50_pct", "mask_ap_pct", "mask_ap50_pct")
"""Validation metrics recorded after each epoch, of masks only if there are any."""

DETECTIONS = "detections.json.bz2"
"""Detections in the test images, in COCO's format, compressed."""

PRECISION = "precision.csv"
"""Precision by recall on the test images."""

EXAMPLES = "examples"
"""Folder of the first few test images with objects, as JPEG, and of their annotations."""

MASK_LOSS = "loss_mask"

LOSSES = ("loss_classifier", "loss_box_reg", MASK_LOSS, "loss_objectness", "loss_rpn_box_reg")
"""Losses of torchvision's Mask R-CNN, in its order; Faster R-CNN has all but that of masks."""

NUM_EXAMPLES, EXAMPLE_SIDE = 3, 480
"""Number of examples, and the longer side in pixels above which they are shrunk."""


class Detector(CellModule):
    """Losses of Mask R-CNN or Faster R-CNN, and detections scored against annotations; a step does not log.

    Library draws in a step, for proposals and drop path, come from a generator keyed by (seed, epoch, step): two arms
    draw alike while they draw from equally many, and again from the next step on.

    Batches are those of `ablations.data.modules.CellDataModule`. Logged once per epoch: ``train_loss``, its parts,
    and validation's average precisions.

    Args:
        config: configuration of the cell, or its fields.
        num_classes: number of categories.
        mean: mean of each channel, for pixels from 0 to 1.
        std: standard deviation of each channel, for pixels from 0 to 1.
        weights: file of classifier weights that the backbone starts from; empty: initialise from the seed.
        net: Mask R-CNN, or Faster R-CNN if the cell finds no masks, with torchvision's interface; None: the cell's own.

    Raises:
        ValueError: inconsistent sizes, or weights of another net.
    """

    losses: ClassVar[tuple[str, ...]] = ("train_loss",)

    def __init__(
        self,
        config: CellConfig | Mapping[str, Any],
        *,
        num_classes: int,
        mean: Sequence[float],
        std: Sequence[float],
        weights: str = "",
        net: nn.Module | None = None,
    ) -> None:
        config, means, stds = as_config(config), list(mean), list(std)
        if net is None:
            net = build_detector(config, num_classes=num_classes, mean=means, std=stds, weights=weights)
        masks = config.detection.masks
        # Guesses among classes and background, and 1/2 for each anchor and mask pixel; boxes are not counted.
        super().__init__(config, net, chance_loss=math.log(num_classes + 1) + (1 + masks) * math.log(2))
        # A checkpoint has the trained weights, so that loading it needs no classifier.
        held = config.model_copy(update={"init": "none"})
        self.save_hyperparameters(
            {"config": held.model_dump(mode="json"), "num_classes": num_classes, "mean": means, "std": stds}
        )
        self.num_classes, self._mean, self._std = num_classes, means, stds
        self.train_losses = nn.ModuleDict(
            {name: MeanMetric(nan_strategy="disable") for name in LOSSES if masks or name != MASK_LOSS}
        )
        for metric in self._means.values():
            metric.persistent(mode=True)  # part of checkpoints within an epoch
        self.val_precision, self.test_precision = AveragePrecision(masks=masks), AveragePrecision(masks=masks)
        self._per_epoch = tuple(name for name in PER_EPOCH if masks or name.startswith("box"))

    def training_step(self, batch: ObjectBatch, batch_idx: int) -> Tensor:
        """Return the sum of a batch's losses: proposals, boxes, classes and, if there are any, masks."""
        reseed_library(self.config.seed, self.trainer.current_epoch, batch_idx)
        losses: dict[str, Tensor] = self.train_net(*batch)
        means = self._means
        for name, loss in losses.items():
            means[name].update(loss.detach())
        return torch.stack([loss.float() for loss in losses.values()]).sum()

    def validation_step(self, batch: tuple[int, Tensor], batch_idx: int) -> None:
        """Update the validation metrics with an image."""
        self.val_precision.update(self.predict_step(batch, batch_idx), batch[0])

    def test_step(self, batch: tuple[int, Tensor], batch_idx: int) -> None:
        """Update the test metrics with an image."""
        self.test_precision.update(self.predict_step(batch, batch_idx), batch[0])

    def predict_step(self, batch: tuple[int, Tensor], batch_idx: int) -> dict[str, Tensor]:
        """Return the detections in an image: boxes, labels, scores and any masks, as torchvision's detectors do."""
        return self.net([batch[1]])[0]

    def train_metrics(self) -> dict[str, float]:
        """Return the means of the epoch's losses, and their sum as ``train_loss``."""
        means = {name: metric.compute().item() for name, metric in self._means.items() if metric.update_called}
        return {"train_loss": sum(means.values()), **{f"train_{name}": means[name] for name in sorted(means)}}

    def val_metrics(self) -> dict[str, float]:
        """Return validation's average precisions in per cent; NaN if there are no objects."""
        metrics = self.val_precision.compute()
        return {f"val_{name}": math.nan if (value := metrics[name]) is None else value for name in self._per_epoch}

    def test_metrics(self) -> dict[str, float]:
        """Return the test's average precisions in per cent, except those without objects."""
        metrics = self.test_precision.compute()
        return {f"test_{name}": value for name, value in metrics.items() if value is not None}

    def reset_train_metrics(self) -> None:
        """Reset the mean losses of the epoch."""
        for metric in self._means.values():
            metric.reset()

    def reset_val_metrics(self) -> None:
        """Reset the validation metrics."""
        self.val_precision.begin(_objects(self.trainer.val_dataloaders))

    def reset_test_metrics(self) -> None:
        """Reset the test metrics."""
        self.test_precision.begin(_objects(self.trainer.test_dataloaders))

    def write_test(self, folder: Path) -> None:
        """Write the detections, the precision at each recall, and a few images."""
        scores = self.test_precision.scores()
        (folder / DETECTIONS).write_bytes(bz2.compress(json.dumps(self.test_precision.every).encode()))
        write_examples(folder / EXAMPLES, _objects(self.trainer.test_dataloaders), masks=self.config.detection.masks)
        write_precision(folder / PRECISION, scores)

    def no_learning(self, rows: list[dict[str, Any]]) -> str:
        """Return a message if validation's box AP50 stayed near zero, else an empty string."""
        judged = [row["val_box_ap50_pct"] for row in rows if row["epoch"] > self.config.optimisation.warmup_epochs]
        if not judged or max(judged) > NO_LEARNING_PCT or all(map(math.isnan, judged)):
            return ""
        return f"validation box AP50 never passed {NO_LEARNING_PCT:g} %"

    def validated(self, last: dict[str, Any]) -> dict[str, float]:
        """Return the average precisions of the last epoch, except those without objects."""
        metrics = {f"val_{name}": last[f"val_{name}"] for name in self._per_epoch}
        return {name: value for name, value in metrics.items() if not math.isnan(value)}

    @property
    def _means(self) -> dict[str, MeanMetric]:
        return cast("dict[str, MeanMetric]", dict(self.train_losses.items()))

    def _match_to_xnorm(self, batch: ObjectBatch) -> dict[str, float]:
        twin = build_detector(
            self.config.model_copy(update={"norm": "xnorm", "init": "none"}),
            num_classes=self.num_classes,
            mean=self._mean,
            std=self._std,
        )
        net = self.net
        assert isinstance(net, FasterRCNN), "nets of other libraries have no scale to match"
        twin.load_state_dict(net.state_dict(), strict=False)  # including a classifier's weights
        images = net.transform(batch[0][:1])[0].tensors
        return match_scale(own_net(net), own_net(twin.to(images.device)), images)


def _objects(batches: Any) -> ObjectEvalBatches:
    """Return an evaluation's batches, after a check that they hold annotations."""
    if not isinstance(batches, ObjectEvalBatches):
        raise TypeError(f"a Detector is evaluated on ObjectEvalBatches, which hold annotations, not {type(batches)}")
    return batches


def write_examples(folder: Path, batches: ObjectEvalBatches, *, masks: bool = True) -> None:
    """Write a few evaluated images with objects, and their annotations as ``truth.json``, with or without outlines."""
    annotations = batches.annotations
    rows = [int(row) for row in batches.rows if len(annotations.objects(int(row)))][:NUM_EXAMPLES]
    folder.mkdir(exist_ok=True)
    for row in rows:
        image = Image.fromarray(batches.read_image(row))
        image.thumbnail((EXAMPLE_SIDE, EXAMPLE_SIDE))
        image.save(folder / f"{annotations.image_ids[row]}.jpg", quality=90)
    (folder / "truth.json").write_text(json.dumps(annotations.as_coco(rows, outlines=masks)))


def write_precision(path: Path, scores: Scores) -> None:
    """Write precision at each recall as CSV: kind, iou, recall, precision."""
    lines = ["kind,iou,recall,precision"]
    for kind, table in scores.precision.items():
        for iou, row in zip(IOUS, table, strict=True):
            lines += [f"{kind},{iou},{place / 100},{value}" for place, value in enumerate(row.tolist())]
    path.write_text("\n".join(lines) + "\n")
