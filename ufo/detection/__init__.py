"""Mask R-CNN and Faster R-CNN from torchvision with a feature pyramid over UFO-ViT or another body."""

from ufo.detection.backbone import (
    BATCH_NORMS,
    STRIDES,
    Body,
    PyramidBackbone,
    UFOBody,
    replace_batch_norms,
    tap_blocks,
)
from ufo.detection.mask_rcnn import Heads, build_rcnn
from ufo.detection.weights import Loaded, load_classifier

__all__ = [
    "BATCH_NORMS",
    "STRIDES",
    "Body",
    "Heads",
    "Loaded",
    "PyramidBackbone",
    "UFOBody",
    "build_rcnn",
    "load_classifier",
    "replace_batch_norms",
    "tap_blocks",
]
