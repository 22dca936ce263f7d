"""Per-image augmentation of training images that are decoded on demand.

torchvision's transforms draw from torch's global generator, so they run in a fork of it that is keyed by the sample.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from ablations.data.image import fit
from ablations.data.streams import forked_sample

if TYPE_CHECKING:
    from PIL.Image import Image

AUTO_AUGMENT = {"auto_augment": "IMAGENET", "auto_augment_cifar": "CIFAR10"}
"""Policy to torchvision's name of its table."""

MAGNITUDE_BINS = 1001
"""Number of magnitude levels from 0 to 10, in steps of a hundredth."""


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Per-image augmentation of training images.

    Args:
        augment: ``resized_crop_flip``: a random crop resized to the image size, and a mirror with probability 1/2; or
            a kind of `ablations.data.augment.draw`, which transforms whole batches later.
        policy: ``none``, ``rand_augment`` (arXiv 1909.13719), ``auto_augment`` (arXiv 1805.09501, ImageNet's table) or
            ``auto_augment_cifar`` (CIFAR-10's).
        policy_magnitude: mean magnitude of RandAugment's operations, from 0 to 10.
        policy_magnitude_std: its standard deviation over operations.
        policy_ops: number of RandAugment's operations per image.
        color_jitter: largest relative change of brightness, contrast and saturation; 0: none.
    """

    augment: str
    policy: str = "none"
    policy_magnitude: float = 9.0
    policy_magnitude_std: float = 0.5
    policy_ops: int = 2
    color_jitter: float = 0.0

    @property
    def move(self) -> str:
        """Kind of `ablations.data.augment.draw` that transforms whole batches."""
        return "none" if self.augment == "resized_crop_flip" else self.augment

    @property
    def is_drawn_by_sample(self) -> bool:
        """Whether any of it is drawn from a sample's own stream."""
        return self.augment == "resized_crop_flip" or self.policy != "none" or self.color_jitter > 0

    def __call__(self, image: Image, side: int | None, *, seed: int, epoch: int, position: int) -> Image:
        """Augment an image.

        Args:
            image: RGB image.
            side: side of the result, in pixels; None: size of the image.
            seed: seed of the cell.
            epoch: epoch, from 0.
            position: position of the sample in the epoch, from 0.
        """
        if not self.is_drawn_by_sample:
            return image if side is None else fit(image, side)
        with forked_sample(seed, "augment", epoch, position):
            return self._draw(image, side)

    def _draw(self, image: Image, side: int | None) -> Image:
        from torchvision.transforms import v2

        if self.augment == "resized_crop_flip":
            size = (image.height, image.width) if side is None else (side, side)
            image = v2.RandomResizedCrop(size, interpolation=v2.InterpolationMode.BICUBIC)(image)
            image = v2.RandomHorizontalFlip()(image)
        elif side is not None:
            image = fit(image, side)
        if self.policy in AUTO_AUGMENT:
            image = v2.AutoAugment(v2.AutoAugmentPolicy[AUTO_AUGMENT[self.policy]])(image)
        elif self.policy == "rand_augment":
            for _ in range(self.policy_ops):
                drawn = self.policy_magnitude + self.policy_magnitude_std * torch.randn(()).item()
                level = round(min(10.0, max(0.0, drawn)) / 10 * (MAGNITUDE_BINS - 1))
                image = v2.RandAugment(num_ops=1, magnitude=level, num_magnitude_bins=MAGNITUDE_BINS)(image)
        if self.color_jitter:
            image = v2.ColorJitter(self.color_jitter, self.color_jitter, self.color_jitter)(image)
        return image
