"""Mixup, CutMix and random erasing of a batch on its device, with separate draws for each sample.

Dimension letters: n samples of an epoch, B of a batch, C channels, H height, W width, K classes, S groups.

A sample's partner is as far from the batch's end as the sample is from its start. Draws for a whole epoch are made on
the CPU, from separate streams for mixing and erasing, and moved once; the erasing noise is drawn on the device.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ablations.data.boxes import draw_sides
from ablations.data.draws import EpochDraws, by_batch, is_on, refill
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
    """Draws of mixing and erasing for each sample of an epoch, drawn again for each epoch.

    Args:
        mixing: parameters of the draws.
        batch_size: number of samples in a batch over all processes.
        size: size of the images, (H, W).
        seed: seed of the cell.

    Attributes:
        hash: hash of the epoch's draws.
        draws: draws of the epoch on the device, for this process's share of each batch. An epoch's draws overwrite
            those of the one before.
    """

    def __init__(self, mixing: Mixing, *, batch_size: int, size: tuple[int, int], seed: int) -> None:
        self.mixing, self.batch_size, self.size, self.seed = mixing, batch_size, size, seed
        self.hash = ""
        self.draws: EpochDraws = {}
        self._noise: torch.Generator | None = None
        self._own: Tensor | None = None

    @property
    def generators(self) -> list[torch.Generator]:
        """Generators that `apply` draws from, the same objects in every epoch: a captured step must register them."""
        return [] if self._noise is None else [self._noise]

    def draw(self, epoch: int, *, num_batches: int, device: torch.device, own: slice | Tensor | None = None) -> None:
        """Draw an epoch.

        Args:
            epoch: epoch, from 0.
            num_batches: number of batches in the epoch.
            device: device of the batches.
            own: positions of this process's samples in a batch, as in `Rank.mirrored`; None: all.
        """
        n, digest = num_batches * self.batch_size, hashlib.sha256()
        drawn: dict[str, Tensor] = {}
        if self.mixing.mixes:
            boxes, shares = _draw_mix(self.mixing, n, self.size, epoch_generator(self.seed, "mixup", epoch))
            digest.update(boxes.numpy().tobytes() + shares.numpy().tobytes())
            drawn |= {"mixed_box": boxes, "share": shares}
        if self.mixing.erasing:
            erased = _draw_erased(self.mixing.erasing, n, self.size, epoch_generator(self.seed, "erasing", epoch))
            digest.update(erased.numpy().tobytes())
            drawn["erased_box"] = erased
        share = slice(0, self.batch_size) if own is None else own
        batches = by_batch(drawn, num_batches=num_batches, batch_size=self.batch_size, own=share)
        if self.mixing.erasing:
            self._own = own.to(device) if isinstance(own, Tensor) else None
            if device.type == "cpu":
                batches["hit"] = (erased[:, 2] > erased[:, 0]).view(num_batches, self.batch_size)
            if self._noise is None or not is_on(self._noise.device, device):
                self._noise = torch.Generator(device)
            self._noise.manual_seed(keyed_seed(self.seed, "erasing", epoch, "noise"))
        self.draws = refill(self.draws, batches, device)
        self.hash = digest.hexdigest()[:12]

    def apply(
        self,
        images: Tensor,
        labels: Tensor,
        picked: Mapping[str, Tensor],
        *,
        num_classes: int,
        groups: int = 1,
        generators: Sequence[torch.Generator | None] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Erase and mix a batch, or several side by side.

        On a CPU, erasing draws noise for the erased samples only. On any other device it draws noise for all samples,
        so that no shape depends on the draws, and selects it by the box, which is the same on every device.

        Args:
            images: (S B, C, H, W), normalised.
            labels: (S B,) class labels.
            picked: draws of these samples, as `pick` selects them from ``draws``; batches must come once each, in
                order, for the noise generator.
            num_classes: number of classes, K.
            groups: number of batches, S; a sample's partner is in its own batch.
            generators: noise generator of each batch; None: that of this epoch. An entry of None: torch's own.

        Returns:
            Images, and (S B, K) class probabilities if labels are mixed, else the labels.
        """
        if groups == 1:
            picked = {name: drawn if name == "hit" else drawn[: len(images)] for name, drawn in picked.items()}
        if self.mixing.erasing:  # before mixing, as timm's loader does
            images = self._erase(images, picked, groups, self.generators if generators is None else generators)
        if not self.mixing.mixes:
            return images, labels
        shares = picked["share"].to(images.dtype)
        partners = _mirrored(images, groups)
        blended = torch.lerp(partners, images, shares[:, 1, None, None, None])
        images = torch.where(inside(picked["mixed_box"], images.shape[2:]), partners, blended)
        classes = torch.nn.functional.one_hot(labels, num_classes).to(torch.float32)
        return images, torch.lerp(_mirrored(classes, groups), classes, shares[:, :1].float())

    def state_dict(self) -> dict[str, Tensor]:
        """Return the state of the noise generator."""
        return {} if self._noise is None else {"noise": self._noise.get_state()}

    def load_state_dict(self, state_dict: dict[str, Tensor]) -> None:
        """Restore the state of the noise generator."""
        if self._noise is not None:
            self._noise.set_state(state_dict["noise"])

    def _erase(
        self,
        images: Tensor,
        picked: Mapping[str, Tensor],
        groups: int,
        generators: Sequence[torch.Generator | None],
    ) -> Tensor:
        """Fill the boxes with noise, which is drawn for the samples of all processes, in order."""
        boxes = picked["erased_box"]
        if images.device.type != "cpu":
            noise = self._noise_of_all(images, groups, generators)
            return torch.where(~inside(boxes, images.shape[2:]), images, noise)  # in the images' order in memory
        parts = zip(images.chunk(groups), boxes.chunk(groups), picked["hit"].chunk(groups), generators, strict=True)
        erased = [self._erase_hit(part, box, hit, generator) for part, box, hit, generator in parts]
        return erased[0] if groups == 1 else torch.cat(erased)

    def _noise_of_all(self, images: Tensor, groups: int, generators: Sequence[torch.Generator | None]) -> Tensor:
        """Draw noise for every sample of each group: (S B, C, H, W)."""
        num_drawn = len(images) // groups if self._own is None else self.batch_size
        noise = images.new_empty(groups, num_drawn, *images.shape[1:])
        for part, generator in zip(noise, generators, strict=True):
            part.normal_(generator=generator)
        own = noise if self._own is None else noise.index_select(1, self._own)
        return own.flatten(0, 1)

    def _erase_hit(self, images: Tensor, boxes: Tensor, is_hit: Tensor, generator: torch.Generator | None) -> Tensor:
        if self._own is None:
            is_hit = is_hit[: len(images)]
        hit = is_hit.nonzero().flatten()  # in the batch of all processes
        noise = torch.empty_like(images[hit % len(images)]).normal_(generator=generator)
        rows = hit
        if self._own is not None:
            is_own = torch.isin(hit, self._own)
            rows, noise = torch.searchsorted(self._own, hit[is_own]), noise[is_own]
        kept = images[rows]
        return images.index_copy(0, rows, torch.where(inside(boxes[rows], kept.shape[2:]), noise, kept))


def _mirrored(samples: Tensor, groups: int) -> Tensor:
    """Return each sample's partner, in its own group."""
    if groups == 1:
        return samples.flip(0)
    return samples.view(groups, -1, *samples.shape[1:]).flip(1).flatten(0, 1)


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
