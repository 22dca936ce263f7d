"""Average precision as COCO computes it: detections in its format, and what they come to against annotations.

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
"""COCO's name of what is matched to how columns name it."""

MASK_LEVEL = 0.5
"""Probability from which a pixel is of the object (torchvision's reference, ``coco_eval.py``)."""

IOUS = (0.5, 0.75)
"""Intersections over unions at which precision is kept for every recall."""


@dataclass(frozen=True)
class Scores:
    """What detections come to.

    Args:
        figures: per cent, by name: ``box_ap_pct``, ``mask_ap50_pct``, ...; None where there is no object to find.
        precision: of ``box`` and ``mask``, (len(IOUS), 101): at recalls 0, 0.01, ..., 1, the mean over categories; NaN
            where there is no object to find.
    """

    figures: dict[str, float | None]
    precision: dict[str, npt.NDArray[np.float64]]


class AveragePrecision(Metric):
    """COCO's average precision of what is found, image by image; of several processes what all have found counts.

    Attributes:
        found: since the beginning, in COCO's format, by this process.
    """

    full_state_update = False

    def __init__(self) -> None:
        super().__init__()
        self.found: list[dict[str, Any]] = []
        self._batches: ObjectEvalBatches | None = None
        self._scores: Scores | None = None

    def begin(self, batches: ObjectEvalBatches) -> None:
        """Forget what was found, and look at other images, or at the same again."""
        self.reset()
        self._batches = batches

    def update(self, found: dict[str, Tensor], row: int) -> None:
        """Take in what torchvision's detector found in an image.

        Args:
            found: as `detections_of` has it.
            row: of the image.
        """
        annotations = self._truth.annotations
        categories = annotations.category_ids.tolist()
        self.found += detections_of(found, image_id=int(annotations.image_ids[row]), category_ids=categories)
        self._scores = None

    def compute(self) -> dict[str, float | None]:
        """Return the figures of `Scores`."""
        return self.scores().figures

    def scores(self) -> Scores:
        """Return what all processes have found comes to; each of them must ask."""
        if self._scores is None:
            everyones = [self.found]
            if torch.distributed.is_available() and torch.distributed.is_initialized():
                everyones = [[] for _ in range(torch.distributed.get_world_size())]
                torch.distributed.all_gather_object(everyones, self.found)
            detections = [detection for found in everyones for detection in found]
            self._scores = score(detections, self._truth.annotations, self._truth.rows.tolist())
        return self._scores

    def reset(self) -> None:
        """Forget what was found."""
        super().reset()
        self.found, self._scores = [], None

    @property
    def _truth(self) -> ObjectEvalBatches:
        assert self._batches is not None, "begin comes first"
        return self._batches


def detections_of(found: dict[str, Tensor], *, image_id: int, category_ids: Sequence[int]) -> list[dict[str, Any]]:
    """Write what torchvision's detector found in an image in COCO's format.

    Args:
        found: ``boxes`` (m, 4) left, top, right, bottom; ``labels`` (m,) from 1; ``scores`` (m,); ``masks``
            (m, 1, H, W), probabilities.
        image_id: as the annotation file has it.
        category_ids: of label 1, 2, ...
    """
    from faster_coco_eval.core import mask

    if not len(found["scores"]):
        return []
    boxes = found["boxes"].double().cpu().numpy()
    boxes[:, 2:] -= boxes[:, :2]
    bits = (found["masks"][:, 0] >= MASK_LEVEL).byte().cpu().numpy()  # (m, H, W)
    runs = mask.encode(np.asfortranarray(bits.transpose(1, 2, 0)))
    rows = zip(found["labels"].tolist(), found["scores"].tolist(), boxes.tolist(), runs, strict=True)
    return [
        {
            "image_id": image_id,
            "category_id": int(category_ids[label - 1]),
            "bbox": box,
            "score": score,
            "segmentation": {"size": [int(side) for side in run["size"]], "counts": _text(run["counts"])},
        }
        for label, score, box, run in rows
    ]


def score(detections: list[dict[str, Any]], annotations: Annotations, images: Iterable[int]) -> Scores:
    """Compute the average precision of detections.

    Args:
        detections: in COCO's format.
        annotations: of the part.
        images: rows of the part that were looked at.
    """
    from faster_coco_eval import COCO, COCOeval_faster

    figures: dict[str, float | None] = {}
    precision: dict[str, npt.NDArray[np.float64]] = {}
    held = annotations.as_coco(images)
    with _quiet():
        truth = COCO(held)
        for kind, name in KINDS.items():
            found = truth.loadRes(_copied(detections, kind)) if detections else COCO({**held, "annotations": []})
            evaluation = COCOeval_faster(truth, found, kind)
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
            values = [float(value) for value in evaluation.stats[: len(AP_METRICS)]]
            figures |= {
                f"{name}_{figure}": None if value < 0 else 100 * value
                for figure, value in zip(AP_METRICS, values, strict=True)
            }
            precision[name] = _precision(evaluation)
    return Scores(figures, precision)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Let the evaluation not tell what it does, in print and in the cell's log."""
    log = logging.getLogger("faster_coco_eval")
    level = log.level
    log.setLevel(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        log.setLevel(level)


def _precision(evaluation: Any) -> npt.NDArray[np.float64]:
    """Return precision by recall, (len(IOUS), 101), of all sizes and up to 100 detections, meaned over categories."""
    every = np.asarray(evaluation.eval["precision"])  # (IoUs, recalls, categories, sizes, most detections)
    at = [int(np.argmin(np.abs(np.asarray(evaluation.params.iouThrs) - iou))) for iou in IOUS]
    chosen = every[at, :, :, 0, -1]  # (len(IOUS), 101, K)
    is_there = chosen > -1
    count = is_there.sum(axis=2)
    return np.where(count > 0, np.where(is_there, chosen, 0).sum(axis=2) / np.maximum(count, 1), np.nan)


def _copied(detections: list[dict[str, Any]], kind: Kind) -> list[dict[str, Any]]:
    """Copy detections, to which the evaluation adds fields of its own.

    Of masks without their boxes, by whose areas it would tell small objects from large ones (as Detectron2 does).
    """
    left_out = {"bbox"} if kind == "segm" else set[str]()
    return [{key: value for key, value in found.items() if key not in left_out} for found in detections]


def _text(counts: bytes | str) -> str:
    return counts.decode() if isinstance(counts, bytes) else counts
