"""Detection and instance segmentation: the losses of a batch, and what an evaluation finds."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torchvision.models.detection import MaskRCNN

from ablations.data import DataInfo
from ablations.data.objects.batches import ObjectBatch, ObjectEvalBatches, ObjectTrainBatches
from ablations.data.objects.load import load_objects
from ablations.streams import reseed_library
from ablations.study import CellConfig
from ablations.tasks.detect.bodies import build_body
from ablations.tasks.detect.scores import IOUS, Scores, detections_of, score
from ablations.tasks.detect.start import start_body
from ablations.tasks.task import Evaluate
from ufo.detection import Heads, PyramidBackbone, UFOBody, build_mask_rcnn
from ufo.model import UFOViT
from ufo.scale import match_scale

NO_LEARNING_PCT = 0.5
"""Box AP50 on validation, in per cent, that a cell must pass in some epoch after its warm-up to count as learning."""

PER_EPOCH = ("box_ap_pct", "box_ap50_pct", "mask_ap_pct", "mask_ap50_pct")
"""What is noted of validation after each epoch."""

DETECTIONS = "detections.json"
"""What was found in the test images, in COCO's format."""

PRECISION = "precision.csv"
"""Precision by recall on the test images."""

EXAMPLES = "examples"
"""Folder of the first few test images with objects in them, as JPEG, and of what is annotated in them."""

NUM_EXAMPLES, EXAMPLE_SIDE = 3, 480
"""How many, and pixels of the longer side up to which they are kept as they are."""


class Detector:
    """The losses of Mask R-CNN, and detections against annotations.

    Each step's library draws, of proposals and of drop path, come from a generator keyed by (seed, epoch, step): two
    arms draw alike for as long as they have equally many to draw from, and from the next step on again.

    Args:
        net: maps images, each (3, H, W), to what is found in them, for evaluations.
        train_net: maps images and their objects to losses, for training steps.
        seed: the cell's.
        train_batches: drawn anew for each epoch.
        val: looked at after each epoch.
        test: looked at once; None: never.
        device: of the batches.
    """

    def __init__(
        self,
        net: Callable[..., list[dict[str, Tensor]]],
        *,
        train_net: Callable[..., dict[str, Tensor]],
        seed: int,
        train_batches: ObjectTrainBatches,
        val: ObjectEvalBatches,
        test: ObjectEvalBatches | None,
        device: torch.device,
    ) -> None:
        self.net, self.train_net = net, train_net
        self.seed, self.train_batches, self.val, self.test = seed, train_batches, val, test
        self.epoch_hashes: list[str] = []
        self._epoch = 0
        self._losses: dict[str, Tensor] = {}
        self._device = device
        self._found: list[dict[str, Any]] = []

    def start_epoch(self, epoch: int) -> None:
        """Draw an epoch (from 0), and start its means anew."""
        self._epoch = epoch
        self.train_batches.set_epoch(epoch)
        self.epoch_hashes.append(self.train_batches.hash)
        self._losses, self._found = {}, []

    def training_step(self, batch: ObjectBatch, index: int) -> Tensor:
        """Return the sum of a batch's losses: of the proposals, boxes, classes and masks."""
        reseed_library(self.seed, self._epoch, index)
        losses = self.train_net(*batch)
        for name, loss in losses.items():
            self._losses[name] = self._losses.get(name, torch.zeros((), device=self._device)) + loss.detach()
        return torch.stack([loss.float() for loss in losses.values()]).sum()

    def validation_step(self, batch: tuple[int, Tensor]) -> None:
        """Note what is found in an image of validation."""
        self._note(batch, self.val)

    def test_step(self, batch: tuple[int, Tensor]) -> None:
        """Note what is found in a test image."""
        assert self.test is not None, "a cell that is scored on validation sees no test image"
        self._note(batch, self.test)

    def epoch_metrics(self) -> dict[str, float]:
        """Return the means of the epoch's losses, their sum as ``train_loss``, and validation's average precisions."""
        means = {name: (total / len(self.train_batches)).item() for name, total in self._losses.items()}
        scores = self.scores(self.val)
        figures = {name: scores.figures[name] for name in PER_EPOCH}
        return {
            "train_loss": sum(means.values()),
            **{f"train_{name}": mean for name, mean in sorted(means.items())},
            **{f"val_{name}": math.nan if value is None else value for name, value in figures.items()},
        }

    def start_test(self) -> None:
        """Forget what was found in validation."""
        self._found = []

    @property
    def found(self) -> list[dict[str, Any]]:
        """What was found since the epoch or the test began, in COCO's format."""
        return self._found

    def scores(self, batches: ObjectEvalBatches) -> Scores:
        """Return what was found comes to."""
        return score(self._found, batches.annotations, batches.rows.tolist())

    def _note(self, batch: tuple[int, Tensor], batches: ObjectEvalBatches) -> None:
        row, image = batch
        (found,) = self.net([image])
        annotations = batches.annotations
        self._found += detections_of(
            found, image_id=int(annotations.image_ids[row]), category_ids=annotations.category_ids.tolist()
        )


class Detection:
    """A cell that detects objects; see `ablations.tasks.task.Workload`.

    Args:
        config: the cell.
        info: its data set, in the cache.
        device: of the batches.
        workers: processes that decode.
        weights: file of a classifier's, from which the backbone starts; empty: from its seed's.
    """

    losses: tuple[str, ...] = ("train_loss",)

    def __init__(self, config: CellConfig, info: DataInfo, *, device: torch.device, workers: int, weights: str) -> None:
        self.config, self.info, self.device = config, info, device
        num_classes = len(info.classes)
        # A class and a background at chance, and a coin tossed for each anchor and pixel of a mask; boxes left out.
        self.chance_loss = math.log(num_classes + 1) + 2 * math.log(2)
        self.data = load_objects(config, info, device=device, workers=workers)
        self.net = build_detector(config, info, weights=weights)
        self.facts: dict[str, Any] = {}

    def steps(self, *, net: Callable[..., Any], train_net: Callable[..., Any]) -> Detector:
        """Return the steps of its training."""
        return Detector(
            net,
            train_net=train_net,
            seed=self.config.seed,
            train_batches=self.data.train,
            val=self.data.val,
            test=self.data.test,
            device=self.device,
        )

    def match_scale(self) -> None:
        """Match the scale of the attention outputs to that of a twin with xnorm, on the first image of training."""
        twin = build_detector(self.config.model_copy(update={"norm": "xnorm"}), self.info).to(self.device)
        self.data.train.set_epoch(0)
        images, _ = next(iter(self.data.train))
        batch = self.net.transform(images[:1])[0].tensors
        match_scale(_own_net(self.net), _own_net(twin), batch)

    def no_learning(self, rows: list[dict[str, Any]]) -> str:
        """Say whether validation's box AP50 stayed at nothing."""
        judged = [row["val_box_ap50_pct"] for row in rows if row["epoch"] > self.config.warmup_epochs]
        if not judged or max(judged) > NO_LEARNING_PCT or all(map(math.isnan, judged)):
            return ""
        return f"validation box AP50 never passed {NO_LEARNING_PCT:g} %"

    def validated(self, last: dict[str, Any]) -> dict[str, float]:
        """Return the average precisions of the last epoch, where there is anything to be found."""
        figures = {f"val_{name}": last[f"val_{name}"] for name in PER_EPOCH}
        return {name: value for name, value in figures.items() if not math.isnan(value)}

    def test(self, steps: Detector, evaluate: Evaluate, folder: Path) -> dict[str, float]:
        """Test once; write what was found, and the precision at each recall."""
        if self.data.test is None:
            return {}
        steps.start_test()
        evaluate(self.data.test, steps.test_step)
        (folder / DETECTIONS).write_text(json.dumps(steps.found))
        write_examples(folder / EXAMPLES, self.data.test)
        scores = steps.scores(self.data.test)
        write_precision(folder / PRECISION, scores)
        return {f"test_{name}": value for name, value in scores.figures.items() if value is not None}


def build_detector(config: CellConfig, info: DataInfo, *, weights: str = "") -> MaskRCNN:
    """Build a cell's Mask R-CNN from its own seed.

    Args:
        config: the cell.
        info: its data set.
        weights: file of a classifier's, from which the backbone starts; empty: from its seed's.

    Raises:
        ValueError: sizes that do not fit each other, or weights that do not fit.
    """
    if (config.init != "none") != bool(weights):
        raise ValueError(f"init is {config.init}, and {'there are' if weights else 'no'} weights to start from")
    body = start_body(config, Path(weights)) if weights else build_body(config)
    backbone = PyramidBackbone(body, fpn_dim=config.fpn_dim, batch_norm=config.batch_norm, seed=config.seed)
    heads = Heads(
        box_dim=config.box_dim,
        mask_dim=config.mask_dim,
        anchor_scale=config.anchor_scale,
        proposals=config.proposals,
        rois=config.rois,
        detections=config.most_found,
    )
    return build_mask_rcnn(
        backbone,
        num_classes=len(info.classes),
        sides=(config.eval_side, config.longest_side),
        mean=info.mean,
        std=info.std,
        seed=config.seed,
        heads=heads,
    )


def _own_net(detector: MaskRCNN) -> UFOViT:
    body = detector.backbone.body
    assert isinstance(body, UFOBody), "nets of other libraries have no scale to match"
    return body.net


def write_examples(folder: Path, batches: ObjectEvalBatches) -> None:
    """Write a few images that objects were looked for in, and ``truth.json``, what is annotated in them."""
    annotations = batches.annotations
    rows = [int(row) for row in batches.rows if len(annotations.objects(int(row)))][:NUM_EXAMPLES]
    folder.mkdir(exist_ok=True)
    for row in rows:
        image = Image.fromarray(batches.pictures(row))
        image.thumbnail((EXAMPLE_SIDE, EXAMPLE_SIDE))
        image.save(folder / f"{annotations.image_ids[row]}.jpg", quality=90)
    (folder / "truth.json").write_text(json.dumps(annotations.as_coco(rows)))


def write_precision(path: Path, scores: Scores) -> None:
    """Write precision at each recall as CSV: kind, iou, recall, precision."""
    lines = ["kind,iou,recall,precision"]
    for kind, table in scores.precision.items():
        for iou, row in zip(IOUS, table, strict=True):
            lines += [f"{kind},{iou},{place / 100},{value}" for place, value in enumerate(row.tolist())]
    path.write_text("\n".join(lines) + "\n")
