"""One image and its objects as a training sample: at a drawn scale, mirrored or not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from ablations.config import UsageError
from ablations.data.image import opened
from ablations.data.objects.annotations import Annotations

Target = dict[str, Tensor]
"""Input of torchvision's detectors for an image with m objects: ``boxes`` (m, 4) left, top, right and bottom, in
pixels; ``labels`` (m,); ``masks`` (m, H, W) uint8, unless only boxes are trained."""

ImageReader = Callable[[int], npt.NDArray[np.uint8]]
"""Reader of a part's images: row to image (H, W, 3)."""


@dataclass(frozen=True)
class Files:
    """Image files in a folder.

    Args:
        folder: folder of the part.
        annotations: annotations of the part.
    """

    folder: Path
    annotations: Annotations

    def __call__(self, row: int) -> npt.NDArray[np.uint8]:
        """Decode an image without applying its EXIF orientation, since boxes refer to the pixels as stored.

        Raises:
            UsageError: unreadable image, no exact 8-bit form, or a size other than in its annotations.
        """
        path = self.folder / str(self.annotations.names[row])
        with opened(path) as image:
            pixels = np.asarray(image.convert("RGB"))
        wanted = int(self.annotations.heights[row]), int(self.annotations.widths[row])
        if pixels.shape[:2] != wanted:
            got = " x ".join(str(side) for side in pixels.shape[:2])
            raise UsageError(f"{path} has {got} pixels, but its annotations say {wanted[0]} x {wanted[1]}")
        return pixels


@dataclass(frozen=True)
class View:
    """Scale and mirroring of an image in a training step.

    Args:
        row: row of the part.
        side: shorter side in pixels, unless the longer side would exceed its limit.
        mirrored: whether the image is mirrored left to right.
    """

    row: int
    side: int
    mirrored: bool


def scaled_size(height: int, width: int, *, side: int, longest: int) -> tuple[int, int]:
    """Return the size of an image scaled to a shorter side of ``side`` and a longer side of at most ``longest``.

    >>> scaled_size(480, 640, side=800, longest=1333), scaled_size(100, 400, side=800, longest=1333)
    ((800, 1067), (333, 1333))
    """
    factor = min(side / min(height, width), longest / max(height, width))
    return max(1, round(height * factor)), max(1, round(width * factor))


def load_view(
    view: View, read_image: ImageReader, annotations: Annotations, *, longest: int, masks: bool = True
) -> tuple[Tensor, Target]:
    """Load an image and its objects, scaled and mirrored as in a view.

    Interpolation is bilinear, as in torchvision's detectors at evaluation. Crowds, and boxes without width or height in
    the image, are no examples.

    Args:
        view: scale and mirroring of the image.
        read_image: reader of the part's images.
        annotations: annotations of the part.
        longest: limit of the longer side, in pixels.
        masks: whether the objects have masks; each then needs an outline.

    Returns:
        Image (3, H, W) float32 from 0 to 1, and its objects.

    Raises:
        UsageError: unreadable image.
    """
    pixels = torch.from_numpy(read_image(view.row).copy()).permute(2, 0, 1)  # (3, H, W)
    old_height, old_width = pixels.shape[1:]
    height, width = scaled_size(old_height, old_width, side=view.side, longest=longest)
    # As uint8: in float32, the last bits would depend on the number of threads.
    image = F.interpolate(pixels[None], size=(height, width), mode="bilinear", align_corners=False)[0].float() / 255
    factors = width / old_width, height / old_height
    objects = annotations.objects(view.row)
    rows = [row for row in objects if not (annotations.is_crowd[row] or annotations.is_flat[row])]
    boxes = torch.from_numpy(annotations.boxes[rows]).reshape(-1, 4)  # (m, 4) float64
    boxes = torch.cat((boxes[:, :2], boxes[:, :2] + boxes[:, 2:]), dim=1) * torch.tensor(factors * 2)
    boxes = torch.minimum(boxes.clamp(min=0), torch.tensor((width, height) * 2)).float()
    target = {"boxes": boxes, "labels": torch.from_numpy(annotations.labels[rows])}
    if masks:
        bits = [_mask(annotations, row, (old_height, old_width), (height, width)) for row in rows]
        target["masks"] = torch.from_numpy(np.stack(bits) if bits else np.zeros((0, height, width), dtype=np.uint8))
    return _mirror(image, target) if view.mirrored else (image, target)


def _mask(annotations: Annotations, obj: int, size: tuple[int, int], scaled: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """Return an object's mask, (H, W), in a scaled image; polygons are scaled before they are filled."""
    from faster_coco_eval.core import mask

    outlines = annotations.outlines(obj)
    if annotations.is_mask[obj]:
        counts = [int(count) for count in outlines[0]]
        runs = mask.frPyObjects({"size": list(size), "counts": counts}, *size)
        whole = torch.from_numpy(np.ascontiguousarray(mask.decode(runs)))[None, None]
        return F.interpolate(whole, size=scaled, mode="nearest-exact")[0, 0].numpy()
    factors = np.array([scaled[1] / size[1], scaled[0] / size[0]])
    polygons = [(outline.reshape(-1, 2) * factors).flatten().tolist() for outline in outlines]
    bits: Any = mask.decode(mask.merge(mask.frPyObjects(polygons, *scaled)))
    return np.ascontiguousarray(bits)


def _mirror(image: Tensor, target: Target) -> tuple[Tensor, Target]:
    width = image.shape[2]
    left, top, right, bottom = target["boxes"].unbind(1)
    boxes = torch.stack((width - right, top, width - left, bottom), dim=1)
    masks = {"masks": target["masks"].flip(2)} if "masks" in target else {}
    return image.flip(2), {**target, "boxes": boxes, **masks}


def collate(samples: Sequence[tuple[Tensor, Target]]) -> tuple[list[Tensor], list[Target]]:
    """Collate samples into lists, since their images differ in size."""
    images, targets = zip(*samples, strict=True)
    return list(images), list(targets)
