"""Per-sample augmentation of images in memory, drawn on the CPU for a whole epoch.

Dimension letters: n samples of an epoch, B of a batch, C channels, H height, W width, s operations of a policy.

Each kind has its own random stream, so that enabling one changes no draw of another. A batch is grouped by operation
on the CPU, where the draws are, and each group is transformed on the device of the images.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from ablations.data.boxes import draw_sides
from ablations.data.streams import epoch_generator
from ablations.data.transforms import AUTO_AUGMENT, Augmentation

AREA, LOG_ASPECT = (0.08, 1.0), math.log(4 / 3)
"""Range of a crop's share of the image's area, and largest logarithm of width / height (torchvision's)."""

JITTER_ORDERS = list(itertools.permutations(("brightness", "contrast", "saturation")))

PolicyDraws = tuple[list[str], Tensor, Tensor]
"""Names of operations; (n, s) indices of operations; (n, s) their strengths, 0 to 1."""


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
        self._boxes = self._flip = self._jitter = self._jitter_order = None
        if augmentation.augment == "resized_crop_flip":
            generator = epoch_generator(seed, "augment", epoch, "resized_crop")
            self._boxes, self._flip = draw_boxes(n, size=size, generator=generator), _coins(n, generator)
        self._operations: Tensor | None = None
        self._names: list[str] = []
        if augmentation.policy != "none":
            generator = epoch_generator(seed, "augment", epoch, "policy")
            draw = _draw_rand_augment if augmentation.policy == "rand_augment" else _draw_auto_augment
            self._names, self._operations, self._strengths = draw(augmentation, n, generator)
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

    def apply(self, images: Tensor, part: slice | Tensor) -> Tensor:
        """Augment a batch.

        Args:
            images: (B, H, W, C) uint8.
            part: positions of the samples in the epoch; a tensor must be on the CPU.

        Returns:
            (B, H, W, C) uint8.
        """
        changed = images.permute(0, 3, 1, 2)  # (B, C, H, W)
        if self._boxes is not None and self._flip is not None:
            changed = crop(changed, self._boxes[part].to(images.device), self._flip[part].to(images.device))
        if self._operations is not None:
            changed = self._apply_policy(changed, part)
        if self._jitter is not None and self._jitter_order is not None:
            changed = _apply_jitter(changed, self._jitter[part].to(images.device), self._jitter_order[part])
        return changed.permute(0, 2, 3, 1)

    def _apply_policy(self, images: Tensor, part: slice | Tensor) -> Tensor:
        from ablations.data.operations import OPERATIONS

        assert self._operations is not None
        changed = images.clone()
        operations = self._operations[part]
        strengths, signs = self._strengths[part].to(images.device), self._signs[part].to(images.device)
        for place in range(operations.shape[1]):
            for operation, rows in _groups(operations[:, place]):
                rows = rows.to(images.device)
                change = OPERATIONS[self._names[operation]]
                changed[rows] = change(changed[rows], strengths[rows, place], signs[rows, place])
        return changed


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
        (B, C, H, W) uint8.
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
    return resized.round_().clamp_(0, 255).to(torch.uint8)


def _coins(n: int, generator: torch.Generator) -> Tensor:
    return torch.rand(n, generator=generator) < 0.5


def _groups(kinds: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Yield each kind with the rows that have it; kinds are on the CPU, so no device is waited for."""
    for kind in sorted(set(kinds.tolist())):
        yield kind, (kinds == kind).nonzero().flatten()


def _draw_rand_augment(augmentation: Augmentation, n: int, generator: torch.Generator) -> PolicyDraws:
    from ablations.data.operations import OPERATIONS

    names = [name for name in OPERATIONS if name != "Invert"]
    shape = (n, augmentation.policy_ops)
    operations = torch.randint(len(names), shape, generator=generator)
    levels = augmentation.policy_magnitude + augmentation.policy_magnitude_std * torch.randn(shape, generator=generator)
    return names, operations, levels.clamp(0, 10) / 10


def _draw_auto_augment(augmentation: Augmentation, n: int, generator: torch.Generator) -> PolicyDraws:
    from torchvision.transforms import AutoAugment, AutoAugmentPolicy

    from ablations.data.operations import OPERATIONS

    names = list(OPERATIONS)
    policies = AutoAugment(AutoAugmentPolicy[AUTO_AUGMENT[augmentation.policy]]).policies
    table = torch.tensor(
        [[(names.index(name), share, (step or 0) / 9) for name, share, step in both] for both in policies]
    )  # (25, s, 3): operation, probability, strength
    drawn = table[torch.randint(len(table), (n,), generator=generator)]
    applied = torch.rand(n, table.shape[1], generator=generator) <= drawn[:, :, 1]
    return names, torch.where(applied, drawn[:, :, 0], names.index("Identity")).long(), drawn[:, :, 2]


def _apply_jitter(images: Tensor, factors: Tensor, orders: Tensor) -> Tensor:
    from ablations.data.operations import brightness, contrast, saturation

    changes = {"brightness": brightness, "contrast": contrast, "saturation": saturation}
    changed = images.clone()
    for order, rows in _groups(orders):
        rows = rows.to(images.device)
        for name in JITTER_ORDERS[order]:
            column = list(changes).index(name)
            changed[rows] = changes[name](changed[rows], factors[rows, column])
    return changed
