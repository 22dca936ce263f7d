"""Per-sample augmentation of images in memory, drawn on the CPU for a whole epoch.

Dimension letters: n samples of an epoch, B of a batch, C channels, H height, W width, s operations of a policy.

Each kind has its own random stream, so that enabling one changes no draw of another. What a draw does to a sample is
computed for the whole epoch too, so that a batch is augmented in one pass without a branch, on the images' device.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from ablations.data import operations
from ablations.data.boxes import draw_sides
from ablations.data.operations import OPERATIONS
from ablations.data.streams import epoch_generator
from ablations.data.transforms import AUTO_AUGMENT, Augmentation

AREA, LOG_ASPECT = (0.08, 1.0), math.log(4 / 3)
"""Range of a crop's share of the image's area, and largest logarithm of width / height (torchvision's)."""

JITTER_ORDERS = list(itertools.permutations(("brightness", "contrast", "saturation")))

PolicyDraws = tuple[Tensor, Tensor]
"""(n, s) indices into `OPERATIONS`; (n, s) their strengths, 0 to 1."""


class SampleDraws:
    """Augmentation draws for each sample of an epoch.

    Args:
        augmentation: parameters of the draws.
        n: number of samples in the epoch.
        size: size of the images, (H, W).
        seed: seed of the cell.
        epoch: epoch, from 0.
    """

    def __init__(self, augmentation: Augmentation, n: int, *, size: tuple[int, int], seed: int, epoch: int) -> None:
        self._size = size
        self._boxes = self._flip = self._jitter = self._jitter_order = None
        if augmentation.augment == "resized_crop_flip":
            generator = epoch_generator(seed, "augment", epoch, "resized_crop")
            self._boxes, self._flip = draw_boxes(n, size=size, generator=generator), _coins(n, generator)
        self._operations: Tensor | None = None
        if augmentation.policy != "none":
            generator = epoch_generator(seed, "augment", epoch, "policy")
            draw = _draw_rand_augment if augmentation.policy == "rand_augment" else _draw_auto_augment
            self._operations, self._strengths = draw(augmentation, n, generator)
            self._signs = 1 - 2 * _coins(self._operations.numel(), generator).view_as(self._operations).float()
        if augmentation.color_jitter:
            generator = epoch_generator(seed, "augment", epoch, "color_jitter")
            reach = augmentation.color_jitter
            self._jitter = (1 + reach * (2 * torch.rand(n, 3, generator=generator) - 1)).clamp(min=0)
            self._jitter_order = torch.randint(len(JITTER_ORDERS), (n,), generator=generator)

    def tobytes(self) -> bytes:
        """Return the draws as bytes, for a hash."""
        drawn = [self._boxes, self._flip, self._operations, self._jitter, self._jitter_order]
        if self._operations is not None:
            drawn += [self._strengths, self._signs]
        return b"".join(part.numpy().tobytes() for part in drawn if part is not None)

    def tensors(self, *, channels: int) -> dict[str, Tensor]:
        """Return what `augment` needs of each sample.

        Args:
            channels: number of channels of the images.

        Returns:
            Those that are drawn of ``box`` (n, 4), ``mirror`` (n,), ``policy`` (n, s, 16) and ``jitter`` (n, 3, 3).
        """
        found: dict[str, Tensor] = {}
        if self._boxes is not None and self._flip is not None:
            found |= {"box": self._boxes, "mirror": self._flip}
        if self._operations is not None:
            found["policy"] = operations.coefficients(
                self._operations, self._strengths, self._signs, size=self._size, channels=channels
            )
        if self._jitter is not None and self._jitter_order is not None:
            found["jitter"] = jitter_weights(self._jitter, self._jitter_order, channels=channels)
        return found


def augment(images: Tensor, picked: Mapping[str, Tensor]) -> Tensor:
    """Augment a batch.

    Args:
        images: (B, H, W, C) uint8.
        picked: draws of the batch, as in `SampleDraws.tensors`.

    Returns:
        (B, H, W, C) float32, whole values from 0 to 255; channels last in memory, but first after a resized crop.
    """
    changed = images.permute(0, 3, 1, 2)  # (B, C, H, W)
    if "box" in picked:
        changed = crop(changed, picked["box"], picked["mirror"])
    changed = changed.float()
    if "policy" in picked:
        changed = operations.apply(changed, picked["policy"])
    if "jitter" in picked:
        changed = jitter(changed, picked["jitter"])
    changed = changed.permute(0, 2, 3, 1)
    return changed if "box" in picked else changed.clone(memory_format=torch.contiguous_format)


def draw_boxes(n: int, *, size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Draw crops like torchvision's RandomResizedCrop; if no try fits, the largest crop that the aspect allows.

    Args:
        n: number of samples.
        size: size of the images, (H, W).
        generator: CPU generator.

    Returns:
        (n, 4) top, left, height and width in pixels.
    """
    H, W = size
    height, width, fits = draw_sides(n, size=size, largest=size, area=AREA, log_aspect=LOG_ASPECT, generator=generator)
    fallback = ~fits
    narrow = min(max(W / H, math.exp(-LOG_ASPECT)), math.exp(LOG_ASPECT))
    height = torch.where(fallback, torch.tensor(float(min(H, round(W / narrow)))), height)
    width = torch.where(fallback, torch.tensor(float(min(W, round(H * narrow)))), width)
    places = torch.rand(n, 2, generator=generator)
    top = torch.where(fallback, ((H - height) / 2).floor(), (places[:, 0] * (H - height + 1)).floor())
    left = torch.where(fallback, ((W - width) / 2).floor(), (places[:, 1] * (W - width + 1)).floor())
    return torch.stack((top, left, height, width), dim=1)


def crop(images: Tensor, boxes: Tensor, flip: Tensor) -> Tensor:
    """Resize a box of each image, at most as large as the image, to its size (bicubic), and mirror some.

    Differs from Pillow's crop and resize: pixels just outside a box contribute to its border.

    Args:
        images: (B, C, H, W) uint8.
        boxes: (B, 4) top, left, height and width in pixels.
        flip: (B,) bool, whether an image is mirrored left to right.

    Returns:
        (B, C, H, W) float32, whole values from 0 to 255.
    """
    H, W = images.shape[2:]
    top, left, height, width = boxes[:, :, None].unbind(1)  # each (B, 1)
    y = (torch.arange(H, device=images.device) + 0.5) / H * height + top  # (B, H), in pixels from the edge
    x = (torch.arange(W, device=images.device) + 0.5) / W * width  # (B, W)
    x = torch.where(flip[:, None], width - x, x) + left
    shape = (len(images), H, W)
    grid_y, grid_x = (2 * y / H - 1)[:, :, None].expand(shape), (2 * x / W - 1)[:, None, :].expand(shape)
    grid = torch.stack((grid_x, grid_y), dim=-1)
    resized = F.grid_sample(images.float(), grid, mode="bicubic", padding_mode="border", align_corners=False)
    return resized.round_().clamp_(0, 255)


def jitter_weights(factors: Tensor, orders: Tensor, *, channels: int) -> Tensor:
    """Return the weights of colour jitter's three blends, in each sample's order.

    Args:
        factors: (n, 3) factors of brightness, contrast and saturation.
        orders: (n,) indices into `JITTER_ORDERS`.
        channels: number of channels of the images; saturation leaves one channel unchanged.

    Returns:
        (n, 3, 3) float32; for each blend the weights of the image, of its mean grey and of its grey.
    """
    names = ("brightness", "contrast", "saturation")
    order = torch.tensor([[names.index(name) for name in order] for order in JITTER_ORDERS])[orders]  # (n, 3)
    kept = factors.gather(1, order)
    saturates = order == names.index("saturation")
    if channels == 1:
        kept = kept.masked_fill(saturates, 1)
    mean = torch.where(order == names.index("contrast"), 1 - kept, 0)
    return torch.stack((kept, mean, torch.where(saturates, 1 - kept, 0)), dim=-1)


def jitter(images: Tensor, weights: Tensor) -> Tensor:
    """Change brightness, contrast and saturation of each image, in its own order.

    Args:
        images: (B, C, H, W) float32, whole values from 0 to 255.
        weights: (B, 3, 3) as in `jitter_weights`.

    Returns:
        The same, contiguous.
    """
    flat = images.flatten(2)  # (B, C, HW)
    for blend in weights[..., None, None].unbind(1):
        of_image, of_mean, of_grey = blend.unbind(1)  # each (B, 1, 1)
        grey = operations.grey(flat)  # (B, 1, HW)
        mean = grey.mean(dim=(1, 2), keepdim=True).floor_()
        flat = (flat * of_image).add_((grey * of_grey).add_(mean * of_mean)).clamp_(0, 255).floor_()
    return flat.view_as(images)


def _coins(n: int, generator: torch.Generator) -> Tensor:
    return torch.rand(n, generator=generator) < 0.5


def _draw_rand_augment(augmentation: Augmentation, n: int, generator: torch.Generator) -> PolicyDraws:
    shape = (n, augmentation.policy_ops)
    drawn = torch.randint(OPERATIONS.index("Invert"), shape, generator=generator)  # the last
    levels = augmentation.policy_magnitude + augmentation.policy_magnitude_std * torch.randn(shape, generator=generator)
    return drawn, levels.clamp(0, 10) / 10


def _draw_auto_augment(augmentation: Augmentation, n: int, generator: torch.Generator) -> PolicyDraws:
    from torchvision.transforms import AutoAugment, AutoAugmentPolicy

    policies = AutoAugment(AutoAugmentPolicy[AUTO_AUGMENT[augmentation.policy]]).policies
    table = torch.tensor(
        [[(OPERATIONS.index(name), share, (step or 0) / 9) for name, share, step in both] for both in policies]
    )  # (25, s, 3): operation, probability, strength
    drawn = table[torch.randint(len(table), (n,), generator=generator)]
    applied = torch.rand(n, table.shape[1], generator=generator) <= drawn[:, :, 1]
    return torch.where(applied, drawn[:, :, 0], OPERATIONS.index("Identity")).long(), drawn[:, :, 2]
