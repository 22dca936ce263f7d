"""Net of a detector, apart from its module, so that planning a study imports no Lightning."""

from __future__ import annotations

from pathlib import Path

from torchvision.models.detection import FasterRCNN

from ablations.config import CellConfig
from ablations.tasks.detect.bodies import build_body
from ablations.tasks.detect.start import start_body
from ufo.detection import Heads, PyramidBackbone, UFOBody, build_rcnn
from ufo.model import UFOViT


def build_detector(
    config: CellConfig, *, num_classes: int, mean: list[float], std: list[float], weights: str = ""
) -> FasterRCNN:
    """Build a cell's Mask R-CNN, or its Faster R-CNN if it finds no masks, from its seed.

    Args:
        config: configuration of the cell.
        num_classes: number of categories.
        mean: mean of each channel, for pixels from 0 to 1.
        std: standard deviation of each channel, for pixels from 0 to 1.
        weights: file of classifier weights that the backbone starts from; empty: initialise from the seed.

    Raises:
        ValueError: inconsistent sizes, or weights of another net.
    """
    detection = config.detection
    if (detection.init != "none") != bool(weights):
        raise ValueError(f"init is {detection.init}, and {'there are' if weights else 'no'} weights to start from")
    body = start_body(config, Path(weights)) if weights else build_body(config)
    backbone = PyramidBackbone(body, fpn_dim=detection.fpn_dim, batch_norm=detection.batch_norm, seed=config.seed)
    heads = Heads(
        box_dim=detection.box_dim,
        mask_dim=detection.mask_dim if detection.masks else None,
        anchor_scale=detection.anchor_scale,
        proposals=detection.proposals,
        rois=detection.rois,
        detections=detection.most_found,
    )
    return build_rcnn(
        backbone,
        num_classes=num_classes,
        sides=(detection.eval_side, detection.longest_side),
        mean=mean,
        std=std,
        seed=config.seed,
        heads=heads,
    )


def own_net(detector: FasterRCNN) -> UFOViT:
    """Return the UFO-ViT within a detector."""
    body = detector.backbone.body
    assert isinstance(body, UFOBody), "nets of other libraries have no scale to match"
    return body.net
