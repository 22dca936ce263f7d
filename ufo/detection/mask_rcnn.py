"""Mask R-CNN (arXiv 1703.06870) from torchvision over a pyramid's maps, with its first weights from a seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.rpn import RPNHead
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from ufo.detection.backbone import STRIDES, PyramidBackbone, drawn_for

BOX_CROP = 7
"""Side of the crop of the pyramid that the box head sees (torchvision's MaskRCNN)."""

ASPECTS = (0.5, 1.0, 2.0)
"""Height by width of the anchors of every map (arXiv 1703.06870)."""


@dataclass(frozen=True, kw_only=True)
class Heads:
    """Sizes of what stands on the pyramid; the defaults are torchvision's, and the source's (arXiv 1703.06870).

    Args:
        box_dim: width of the box head's two layers.
        mask_dim: width of the mask head's four convolutions.
        anchor_scale: side of an anchor as a multiple of its map's stride.
        proposals: kept of an image in evaluation; in training twice as many.
        rois: of these the ones that the heads are trained on.
        detections: of an image, at most.
    """

    box_dim: int = 1024
    mask_dim: int = 256
    anchor_scale: float = 8.0
    proposals: int = 1000
    rois: int = 512
    detections: int = 100


def build_mask_rcnn(
    backbone: PyramidBackbone,
    *,
    num_classes: int,
    sides: tuple[int, int],
    mean: Sequence[float],
    std: Sequence[float],
    seed: int,
    heads: Heads = Heads(),
) -> MaskRCNN:
    """Build Mask R-CNN. In evaluation it scales images itself; in training they come at the scale that was drawn.

    Args:
        backbone: with its first weights.
        num_classes: of objects; the background comes beside them, as label 0.
        sides: pixels to which evaluation scales an image: the shorter side, unless the longer would pass the second.
        mean: of each channel, of 0 to 1.
        std: of each channel, of 0 to 1.
        seed: of the first weights of each head, keyed by its name; the global generator is left alone.
        heads: their sizes.

    >>> import torch, ufo
    >>> from ufo.detection import PyramidBackbone, UFOBody
    >>> body = UFOBody(ufo.build("ufo_vit_pico", patch=8, class_attention=0, num_classes=0))
    >>> backbone = PyramidBackbone(body, fpn_dim=16, batch_norm="frozen", seed=0)
    >>> heads = Heads(box_dim=32, mask_dim=16)
    >>> rgb = [0.5] * 3
    >>> net = build_mask_rcnn(backbone, num_classes=3, sides=(64, 96), mean=rgb, std=rgb, seed=0, heads=heads)
    >>> [sorted(found) for found in net.eval()([torch.zeros(3, 50, 70)])]
    [['boxes', 'labels', 'masks', 'scores']]
    """
    width = backbone.out_channels
    strides = (*STRIDES, 2 * STRIDES[-1])
    sizes = tuple((heads.anchor_scale * stride,) for stride in strides)
    anchors = AnchorGenerator(sizes=sizes, aspect_ratios=(ASPECTS,) * len(strides))
    with drawn_for(seed, "rpn"):
        rpn_head = RPNHead(width, len(ASPECTS))
    with drawn_for(seed, "box"):
        box_head = TwoMLPHead(width * BOX_CROP**2, heads.box_dim)
        box_predictor = FastRCNNPredictor(heads.box_dim, num_classes + 1)
    with drawn_for(seed, "mask"):
        mask_head = MaskRCNNHeads(width, (heads.mask_dim,) * 4, dilation=1)
        mask_predictor = MaskRCNNPredictor(heads.mask_dim, heads.mask_dim, num_classes + 1)
    net = MaskRCNN(
        backbone,
        rpn_anchor_generator=anchors,
        rpn_head=rpn_head,
        box_head=box_head,
        box_predictor=box_predictor,
        rpn_pre_nms_top_n_train=2 * heads.proposals,
        rpn_pre_nms_top_n_test=heads.proposals,
        rpn_post_nms_top_n_train=2 * heads.proposals,
        rpn_post_nms_top_n_test=heads.proposals,
        box_batch_size_per_image=heads.rois,
        box_detections_per_img=heads.detections,
        mask_head=mask_head,
        mask_predictor=mask_predictor,
    )
    net.transform = ScaledTransform(sides[0], sides[1], list(mean), list(std))
    return net


class ScaledTransform(GeneralizedRCNNTransform):  # type: ignore[misc]  # torchvision has no types
    """Torchvision's transform, which draws no scale of its own in training: images and targets come at theirs."""

    def resize(self, image: Tensor, target: dict[str, Tensor] | None = None) -> tuple[Tensor, dict[str, Tensor] | None]:
        """Scale an image in evaluation; leave it and its target as they are in training."""
        return (image, target) if self.training else super().resize(image, target)
