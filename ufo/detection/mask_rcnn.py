"""R-CNNs from torchvision over a pyramid's maps, with seeded initial weights.

Mask R-CNN (arXiv 1703.06870), and Faster R-CNN (arXiv 1506.01497), which is the same without the mask head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torchvision.models.detection import FasterRCNN, MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.rpn import RPNHead
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from ufo.detection.backbone import STRIDES, PyramidBackbone, drawn_for

BOX_CROP = 7
"""Side of the box head's input crop, in pixels of a pyramid map (torchvision's MaskRCNN)."""

ASPECTS = (0.5, 1.0, 2.0)
"""Ratios of height to width of the anchors of every map (arXiv 1703.06870)."""


@dataclass(frozen=True, kw_only=True)
class Heads:
    """Sizes of the heads, with the defaults of torchvision and of the source (arXiv 1703.06870).

    Args:
        box_dim: width of the box head's two layers.
        mask_dim: width of the mask head's four convolutions; None: no masks.
        anchor_scale: side of an anchor as a multiple of its map's stride.
        proposals: number of proposals per image in evaluation; twice that number in training.
        rois: number of proposals per image that train the heads.
        detections: largest number of detections per image.
    """

    box_dim: int = 1024
    mask_dim: int | None = 256
    anchor_scale: float = 8.0
    proposals: int = 1000
    rois: int = 512
    detections: int = 100


def build_rcnn(
    backbone: PyramidBackbone,
    *,
    num_classes: int,
    sides: tuple[int, int],
    mean: Sequence[float],
    std: Sequence[float],
    seed: int,
    heads: Heads = Heads(),
) -> FasterRCNN:
    """Build a Mask R-CNN, or a Faster R-CNN with equal weights if the heads have no masks.

    It rescales images in evaluation, and takes them at their given scale in training.

    Args:
        backbone: initialised backbone.
        num_classes: number of object categories, without the background, which has label 0.
        sides: length of the shorter side and upper limit of the longer one in evaluation, in pixels.
        mean: mean of each channel, in [0, 1].
        std: standard deviation of each channel, in [0, 1].
        seed: seed of the heads' initial weights, keyed by name; the global generator's state is unchanged.
        heads: sizes of the heads.

    >>> import torch, ufo
    >>> from ufo.detection import PyramidBackbone, UFOBody
    >>> body = UFOBody(ufo.build("ufo_vit_pico", patch=8, class_attention=0, num_classes=0))
    >>> backbone = PyramidBackbone(body, fpn_dim=16, batch_norm="frozen", seed=0)
    >>> heads = Heads(box_dim=32, mask_dim=16)
    >>> rgb = [0.5] * 3
    >>> net = build_rcnn(backbone, num_classes=3, sides=(64, 96), mean=rgb, std=rgb, seed=0, heads=heads)
    >>> [sorted(found) for found in net.eval()([torch.zeros(3, 50, 70)])]
    [['boxes', 'labels', 'masks', 'scores']]
    """
    common = _common_parts(backbone, num_classes=num_classes, seed=seed, heads=heads)
    if heads.mask_dim is None:
        net = FasterRCNN(backbone, **common)
    else:
        with drawn_for(seed, "mask"):
            mask_head = MaskRCNNHeads(backbone.out_channels, (heads.mask_dim,) * 4, dilation=1)
            mask_predictor = MaskRCNNPredictor(heads.mask_dim, heads.mask_dim, num_classes + 1)
        net = MaskRCNN(backbone, **common, mask_head=mask_head, mask_predictor=mask_predictor)
    net.transform = ScaledTransform(sides[0], sides[1], list(mean), list(std))
    return net


def _common_parts(backbone: PyramidBackbone, *, num_classes: int, seed: int, heads: Heads) -> dict[str, Any]:
    """Return the arguments that torchvision's Faster R-CNN and Mask R-CNN share."""
    width = backbone.out_channels
    strides = (*STRIDES, 2 * STRIDES[-1])
    sizes = tuple((heads.anchor_scale * stride,) for stride in strides)
    anchors = AnchorGenerator(sizes=sizes, aspect_ratios=(ASPECTS,) * len(strides))
    with drawn_for(seed, "rpn"):
        rpn_head = RPNHead(width, len(ASPECTS))
    with drawn_for(seed, "box"):
        box_head = TwoMLPHead(width * BOX_CROP**2, heads.box_dim)
        box_predictor = FastRCNNPredictor(heads.box_dim, num_classes + 1)
    return {
        "rpn_anchor_generator": anchors,
        "rpn_head": rpn_head,
        "box_head": box_head,
        "box_predictor": box_predictor,
        "rpn_pre_nms_top_n_train": 2 * heads.proposals,
        "rpn_pre_nms_top_n_test": heads.proposals,
        "rpn_post_nms_top_n_train": 2 * heads.proposals,
        "rpn_post_nms_top_n_test": heads.proposals,
        "box_batch_size_per_image": heads.rois,
        "box_detections_per_img": heads.detections,
    }


class ScaledTransform(GeneralizedRCNNTransform):  # type: ignore[misc]  # torchvision has no types
    """Torchvision's transform without rescaling in training, where images and targets keep their scale."""

    def resize(self, image: Tensor, target: dict[str, Tensor] | None = None) -> tuple[Tensor, dict[str, Tensor] | None]:
        """Rescale an image in evaluation, and return it and its target unchanged in training."""
        return (image, target) if self.training else super().resize(image, target)
