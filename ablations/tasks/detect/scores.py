"""Average precision as in COCO: detections in its format, scored against annotations.

Lin et al., "Microsoft COCO" (arXiv 1405.0312), and its evaluation code; run by ``faster-coco-eval``.
"""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torchmetrics import Metric

from ablations.config.task import AP_METRICS
from ablations.data.objects.annotations import Annotations
from ablations.data.objects.batches import ObjectEvalBatches

Kind = Literal["bbox", "segm"]

KINDS: dict[Kind, str] = {"bbox": "box", "segm": "mask"}
"""COCO's name of the matched outline to its name in columns; detectors without masks have only the first."""

MASK_LEVEL = 0.5
"""Smallest probability of a pixel inside an object (torchvision's reference, ``coco_eval.py``)."""

IOUS = (0.5, 0.75)
"""Thresholds of intersection over union at which precision is kept for every recall."""


@dataclass(frozen=True)
class Scores:
    """Scores of detections.

    Args:
        metrics: values in per cent, by name: ``box_ap_pct``, ``mask_ap50_pct``, ...; None if there are no objects.
        precision: precision of ``box`` and, if masks are scored, ``mask``, (len(IOUS), 101): mean over categories at
            recalls 0, 0.01, ..., 1; NaN if there are no objects.
    """

    metrics: dict[str, float | None]
    precision: dict[str, npt.NDArray[np.float64]]


class AveragePrecision(Metric):
    """COCO's average precision, updated image by image; the detections of all processes are combined.

    Args:
        masks: whether masks are scored too, or only boxes.

    Attributes:
        found: detections of this process since `begin`, in COCO's format.
        every: those of all processes, in the order of the images, once they are scored.
    """

    full_state_update = False

    def __init__(self, *, masks: bool = True) -> None:
        super().__init__()
        self.masks = masks
        self.found: list[dict[str, Any]] = []
        self.every: list[dict[str, Any]] = []
        self._batches: ObjectEvalBatches | None = None
        self._scores: Scores | None = None

    def begin(self, batches: ObjectEvalBatches) -> None:
        """Remove all detections, and set the images to evaluate."""
        self.reset()
        self._batches = batches

    def update(self, found: dict[str, Tensor], row: int) -> None:
        """Add the detections in an image.

        Args:
            found: output of torchvision's detector, as in `detections_of`.
            row: row of the image.
        """
        annotations = self._truth.annotations
        categories = annotations.category_ids.tolist()
        self.found += detections_of(found, image_id=int(annotations.image_ids[row]), category_ids=categories)
        self._scores = None

    def compute(self) -> dict[str, float | None]:
        """Return the values of `Scores`."""
        return self.scores().metrics

    def scores(self) -> Scores:
        """Score the detections of all processes; each of them must call this."""
        if self._scores is None:
            gathered = [self.found]
            if torch.distributed.is_available() and torch.distributed.is_initialized():
                gathered = [[] for _ in range(torch.distributed.get_world_size())]
                torch.distributed.all_gather_object(gathered, self.found)
            annotations, rows = self._truth.annotations, self._truth.rows.tolist()
            place = {int(annotations.image_ids[row]): number for number, row in enumerate(rows)}
            detections = (detection for found in gathered for detection in found)
            self.every = sorted(detections, key=lambda detection: place[detection["image_id"]])
            self._scores = score(self.every, annotations, rows, masks=self.masks)
        return self._scores

    def reset(self) -> None:
        """Remove all detections."""
        super().reset()
        self.found, self.every, self._scores = [], [], None

    @property
    def _truth(self) -> ObjectEvalBatches:
        assert self._batches is not None, "call begin first"
        return self._batches


def detections_of(found: dict[str, Tensor], *, image_id: int, category_ids: Sequence[int]) -> list[dict[str, Any]]:
    """Convert the output of torchvision's detector for an image to COCO's format.

    Args:
        found: ``boxes`` (m, 4) left, top, right and bottom; ``labels`` (m,) from 1; ``scores`` (m,); of a detector
            with masks, ``masks`` (m, 1, H, W) probabilities.
        image_id: id of the image, as in the annotation file.
        category_ids: ids of labels 1, 2, ....
    """
    from faster_coco_eval.core import mask

    if not len(found["scores"]):
        return []
    boxes = found["boxes"].double().cpu().numpy()
    boxes[:, 2:] -= boxes[:, :2]
    rows = zip(found["labels"].tolist(), found["scores"].tolist(), boxes.tolist(), strict=True)
    detections: list[dict[str, Any]] = [
        {"image_id": image_id, "category_id": int(category_ids[label - 1]), "bbox": box, "score": score}
        for label, score, box in rows
    ]
    if "masks" not in found:
        return detections
    bits = (found["masks"][:, 0] >= MASK_LEVEL).byte().cpu().numpy()  # (m, H, W)
    for detection, run in zip(detections, mask.encode(np.asfortranarray(bits.transpose(1, 2, 0))), strict=True):
        size = [int(side) for side in run["size"]]
        detection["segmentation"] = {"size": size, "counts": _text(run["counts"])}
    return detections


def score(
    detections: list[dict[str, Any]], annotations: Annotations, images: Iterable[int], *, masks: bool = True
) -> Scores:
    """Compute the average precision of detections.

    The evaluation takes an object of id 0 or below for one that is not found, and refuses images of negative ids.
    Images and objects are therefore numbered from 1.

    Args:
        detections: detections in COCO's format.
        annotations: annotations of the part.
        images: rows of the part that were evaluated.
        masks: whether masks are scored too, or only boxes.
    """
    from faster_coco_eval import COCO, COCOeval_faster

    metrics: dict[str, float | None] = {}
    precision: dict[str, npt.NDArray[np.float64]] = {}
    numbered = annotations.numbered()
    held = numbered.as_coco(images)
    number_of = dict(zip(annotations.image_ids.tolist(), numbered.image_ids.tolist(), strict=True))
    detections = [{**found, "image_id": number_of[found["image_id"]]} for found in detections]
    with _quiet():
        truth = COCO(held)
        for kind, name in KINDS.items():
            if kind == "segm" and not masks:
                continue
            found = truth.loadRes(_copied(detections, kind)) if detections else COCO({**held, "annotations": []})
            evaluation = COCOeval_faster(truth, found, kind)
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
            values = [float(value) for value in evaluation.stats[: len(AP_METRICS)]]
            metrics |= {
                f"{name}_{metric}": None if value < 0 else 100 * value
                for metric, value in zip(AP_METRICS, values, strict=True)
            }
            precision[name] = _precision(evaluation)
    return Scores(metrics, precision)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the evaluation's output, printed and logged."""
    log = logging.getLogger("faster_coco_eval")
    level = log.level
    log.setLevel(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        log.setLevel(level)


def _precision(evaluation: Any) -> npt.NDArray[np.float64]:
    """Return precision by recall, (len(IOUS), 101), for all sizes and 100 detections, averaged over categories."""
    every = np.asarray(evaluation.eval["precision"])  # (IoUs, recalls, categories, sizes, detection limits)
    at = [int(np.argmin(np.abs(np.asarray(evaluation.params.iouThrs) - iou))) for iou in IOUS]
    chosen = every[at, :, :, 0, -1]  # (len(IOUS), 101, K)
    is_there = chosen > -1
    count = is_there.sum(axis=2)
    return np.where(count > 0, np.where(is_there, chosen, 0).sum(axis=2) / np.maximum(count, 1), np.nan)


def _copied(detections: list[dict[str, Any]], kind: Kind) -> list[dict[str, Any]]:
    """Copy detections, since the evaluation adds fields to them.

    Masks are copied without boxes, whose areas would otherwise decide the objects' sizes (as in Detectron2).
    """
    left_out = {"bbox"} if kind == "segm" else set[str]()
    return [{key: value for key, value in found.items() if key not in left_out} for found in detections]


def _text(counts: bytes | str) -> str:
    return counts.decode() if isinstance(counts, bytes) else counts
