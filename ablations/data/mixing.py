"""Mixup, CutMix and random erasing of a batch on its device, with separate draws for each sample.

Dimension letters: n samples of an epoch, B of a batch, C channels, H height, W width, K classes.

A sample's partner is as far from the batch's end as the sample is from its start. Draws for a whole epoch are made on
the CPU, from separate streams for mixing and erasing, and moved once; the erasing noise is drawn on the device.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ablations.data.boxes import draw_sides
from ablations.data.epoch import to_epoch
from ablations.data.streams import epoch_generator
from ufo.init import keyed_seed

ERASED_AREA, ERASED_LOG_ASPECT = (0.02, 1 / 3), math.log(1 / 0.3)
"""Range of the erased share of the image's area, and largest logarithm of height / width (timm 1.0, as in DeiT; the
source, arXiv 1708.04896, has 0.02 to 0.4)."""


@dataclass(frozen=True, kw_only=True)
class Mixing:
    """Parameters of the mixing and erasing of a batch.

    Args:
        mixup: alpha of the Beta(alpha, alpha) distribution of a sample's share (arXiv 1710.09412); 0: no mixup.
        cutmix: alpha of the Beta distribution of a pasted rectangle's area (arXiv 1905.04899); 0: no CutMix. With both,
            each sample gets one or the other with probability 1/2.
        mix_probability: probability that a sample is mixed.
        erasing: probability that a rectangle of a sample is replaced by noise (arXiv 1708.04896).
    """

    mixup: float
    cutmix: float
    mix_probability: float
    erasing: float

    @property
    def mixes(self) -> bool:
        """Whether labels are mixed."""
        return self.mixup > 0 or self.cutmix > 0

    def __bool__(self) -> bool:
        """Return whether batches are mixed or erased."""
        return self.mixes or self.erasing > 0


class MixingDraws:
    """Draws of mixing and erasing for each sample of an epoch.

    Args:
        mixing: parameters of the draws.
        num_batches: number of batches in the epoch.
        batch_size: number of samples in a batch, B.
        size: size of the images, (H, W).
        seed: seed of the cell.
        epoch: epoch, from 0.
        device: device of the batches.

    Attributes:
        hash: hash of the draws.
    """

    def __init__(
        self,
        mixing: Mixing,
        *,
        num_batches: int,
        batch_size: int,
        size: tuple[int, int],
        seed: int,
        epoch: int,
        device: torch.device,
    ) -> None:
        n = num_batches * batch_size
        self.mixing, self.batch_size = mixing, batch_size
        digest = hashlib.sha256()
        if mixing.mixes:
            boxes, shares = _draw_mix(mixing, n, size, epoch_generator(seed, "mixup", epoch))
            digest.update(boxes.numpy().tobytes() + shares.numpy().tobytes())
            self._boxes, self._shares = boxes.to(device), shares.to(device)
        if mixing.erasing:
            erased = _draw_erased(mixing.erasing, n, size, epoch_generator(seed, "erasing", epoch))
            digest.update(erased.numpy().tobytes())
            hit = (erased[:, 2] > erased[:, 0]).view(num_batches, batch_size)
            self._erased, self._hit = erased.to(device), [rows.nonzero().flatten().to(device) for rows in hit]
            self._noise = torch.Generator(device).manual_seed(keyed_seed(seed, "erasing", epoch, "noise"))
        self.hash = digest.hexdigest()[:12]

    def apply(
        self, images: Tensor, labels: Tensor, index: int, *, num_classes: int, own: slice | Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Erase and mix a batch.

        Args:
            images: (B, C, H, W), normalised.
            labels: (B,) class labels.
            index: index of the batch in the epoch; batches must come once each, in order, for the noise generator.
            num_classes: number of classes, K.
            own: positions of these samples in the batch, as in `Rank.mirrored`; None: the first ones, or all.

        Returns:
            Images, and (B, K) class probabilities if labels are mixed, else the labels.
        """
        part = to_epoch(slice(0, len(images)) if own is None else own, index * self.batch_size)
        if self.mixing.erasing:  # before mixing, as timm's loader does
            images = self._erase(images, self._hit[index], self._erased[part], own)
        if not self.mixing.mixes:
            return images, labels
        shares = self._shares[part].to(images.dtype)
        partners = images.flip(0)
        blended = torch.lerp(partners, images, shares[:, 1, None, None, None])
        images = torch.where(inside(self._boxes[part], images.shape[2:]), partners, blended)
        classes = torch.nn.functional.one_hot(labels, num_classes).to(torch.float32)
        return images, torch.lerp(classes.flip(0), classes, shares[:, :1].float())

    def state_dict(self) -> dict[str, Tensor]:
        """Return the state of the noise generator."""
        return {"noise": self._noise.get_state()} if self.mixing.erasing else {}

    def load_state_dict(self, state_dict: dict[str, Tensor]) -> None:
        """Restore the state of the noise generator."""
        if self.mixing.erasing:
            self._noise.set_state(state_dict["noise"])

    def _erase(self, images: Tensor, hit: Tensor, boxes: Tensor, own: slice | Tensor | None) -> Tensor:
        """Fill this process's boxes with noise, which is drawn for all ``hit`` samples of the whole batch, in order."""
        noise = torch.empty_like(images[hit % len(images)]).normal_(generator=self._noise)
        rows = hit
        if isinstance(own, Tensor):
            own = own.to(hit.device)
            is_own = torch.isin(hit, own)
            rows, noise = torch.searchsorted(own, hit[is_own]), noise[is_own]
        kept = images[rows]
        return images.index_copy(0, rows, torch.where(inside(boxes[rows], kept.shape[2:]), noise, kept))


def inside(boxes: Tensor, size: tuple[int, ...] | torch.Size) -> Tensor:
    """Return a mask of the pixels inside each sample's box.

    Args:
        boxes: (B, 4) top, left, bottom and right in pixels, the last two exclusive.
        size: (H, W).

    Returns:
        (B, 1, H, W) bool.
    """
    H, W = size
    top, left, bottom, right = boxes[:, :, None].unbind(1)  # each (B, 1)
    y, x = torch.arange(H, device=boxes.device), torch.arange(W, device=boxes.device)
    rows, columns = (y >= top) & (y < bottom), (x >= left) & (x < right)
    return (rows[:, :, None] & columns[:, None, :])[:, None]


def _draw_mix(mixing: Mixing, n: int, size: tuple[int, int], generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return (n, 4) boxes taken from the partner, empty for mixup; (n, 2) own shares of the label and the pixels."""
    H, W = size
    mixed = torch.rand(n, generator=generator) < mixing.mix_probability
    coins = torch.rand(n, generator=generator) < 0.5
    cut = coins if mixing.mixup and mixing.cutmix else torch.full((n,), mixing.cutmix > 0)
    of_mixup = _draw_beta(mixing.mixup or 1.0, n, generator)
    of_cutmix = _draw_beta(mixing.cutmix or 1.0, n, generator)
    side = (1 - of_cutmix).sqrt()
    half_height, half_width = (H * side / 2).floor(), (W * side / 2).floor()
    centre_y, centre_x = torch.randint(H, (n,), generator=generator), torch.randint(W, (n,), generator=generator)
    top, bottom = (centre_y - half_height).clamp(0, H), (centre_y + half_height).clamp(0, H)
    left, right = (centre_x - half_width).clamp(0, W), (centre_x + half_width).clamp(0, W)
    boxes = torch.stack((top, left, bottom, right), dim=1) * (cut & mixed)[:, None]
    kept = 1 - (bottom - top) * (right - left) / (H * W)  # by the area inside the image
    label, pixels = torch.where(cut, kept, of_mixup), torch.where(cut, torch.ones(n), of_mixup)
    return boxes, torch.where(mixed[:, None], torch.stack((label, pixels), dim=1), 1.0)


def _draw_beta(alpha: float, n: int, generator: torch.Generator) -> Tensor:
    """Draw n shares from Beta(alpha, alpha); torch's own class takes no generator."""
    gammas = torch._standard_gamma(torch.full((2, n), alpha, dtype=torch.float64), generator=generator)
    return (gammas[0] / gammas.sum(0)).float()


def _draw_erased(probability: float, n: int, size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Return (n, 4) erased boxes, empty for samples that are not erased or for which no try fits."""
    H, W = size
    wanted = torch.rand(n, generator=generator) < probability
    height, width, fits = draw_sides(
        n, size=size, largest=(H - 1, W - 1), area=ERASED_AREA, log_aspect=ERASED_LOG_ASPECT, generator=generator
    )
    places = torch.rand(n, 2, generator=generator)
    top, left = (places[:, 0] * (H - height + 1)).floor(), (places[:, 1] * (W - width + 1)).floor()
    boxes = torch.stack((top, left, top + height, left + width), dim=1)
    return boxes * (wanted & fits)[:, None]
