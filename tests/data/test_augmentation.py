"""Augmentation sample by sample in memory: torchvision's operations, and draws of a stream for each part."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torchvision.transforms import v2

from ablations.data import operations
from ablations.data.operations import OPERATIONS
from ablations.data.per_sample import SampleDraws, augment, crop, draw_boxes, jitter
from ablations.data.transforms import Augmentation
from ufo.init import keyed_generator

STEPS = 1001  # of a strength, in torchvision's tables


def pictures(m: int = 6, channels: int = 3, size: tuple[int, int] = (33, 40)) -> torch.Tensor:
    """Return smooth images, (m, C, H, W) uint8."""
    coarse = torch.rand(m, channels, 8, 8, generator=torch.Generator().manual_seed(0))
    return F.interpolate(coarse, size=size, mode="bicubic").clamp(0, 1).mul(255).to(torch.uint8)


def change(name: str, images: torch.Tensor, strength: torch.Tensor, sign: torch.Tensor) -> torch.Tensor:
    """Apply an operation to (m, C, H, W) uint8 at each sample's own strength and sign."""
    drawn = torch.full((len(images), 1), OPERATIONS.index(name)), strength[:, None], sign[:, None]
    rows = operations.coefficients(*drawn, size=tuple(images.shape[2:]), channels=images.shape[1])
    return operations.apply(images.float(), rows).to(torch.uint8)


def torchvisions(name: str, image: torch.Tensor, strength: float, sign: float) -> torch.Tensor:
    """Apply torchvision's own operation to one image."""
    whole = v2.AutoAugment()
    magnitudes, signed = whole._AUGMENTATION_SPACE[name]
    table = magnitudes(STEPS, *image.shape[-2:])
    magnitude = 0.0 if table is None else float(table[round(strength * (STEPS - 1))]) * (sign if signed else 1)
    return whole._apply_image_or_video_transform(
        image, name, magnitude, interpolation=v2.InterpolationMode.NEAREST, fill=whole._fill
    )


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", [name for name in OPERATIONS if name != "Identity"])
def test_an_operation_is_torchvisions_at_every_samples_own_strength(name, channels):
    images = pictures(channels=channels)
    strength = torch.tensor([0.0, 0.21, 0.5, 0.9, 1.0, 0.5])
    sign = torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0, -1.0])
    ours = change(name, images, strength, sign)
    theirs = [torchvisions(name, *sample) for sample in zip(images, strength.tolist(), sign.tolist(), strict=True)]
    assert (ours.int() - torch.stack(theirs).int()).abs().max() <= 1  # a blend may round the other way
    if (name, channels) != ("Color", 1):
        assert not torch.equal(ours, images)
    assert ours.shape == images.shape
    assert ours.dtype == torch.uint8


@pytest.mark.parametrize(
    ("place", "theirs"),
    [
        (None, v2.functional.adjust_brightness),
        (1, v2.functional.adjust_contrast),
        (2, v2.functional.adjust_saturation),
    ],
)
def test_colour_jitter_takes_torchvisions_changes(place, theirs):
    images, factors = pictures(4), torch.tensor([0.6, 0.9, 1.0, 1.4])
    expected = torch.stack([theirs(image, factor) for image, factor in zip(images, factors.tolist(), strict=True)])
    weights = torch.zeros(4, 1, 3)  # one blend: the image, its mean grey, its grey
    weights[:, 0, 0] = factors
    if place is not None:
        weights[:, 0, place] = 1 - factors
    assert (jitter(images.float(), weights).int() - expected.int()).abs().max() <= 1


def test_boxes_are_drawn_as_random_resized_crop_draws_them():
    boxes = draw_boxes(20_000, size=(48, 64), generator=keyed_generator(0, "boxes"))
    top, left, height, width = boxes.unbind(1)
    assert (boxes == boxes.round()).all()
    assert ((top >= 0) & (left >= 0) & (top + height <= 48) & (left + width <= 64)).all()
    area = height * width / (48 * 64)
    assert area.min() > 0.07
    theirs = torch.tensor([v2.RandomResizedCrop.make_params(v2.RandomResizedCrop(9), [torch.zeros(3, 48, 64)])["height"]
                           for _ in range(2000)], dtype=torch.float)  # fmt: skip
    assert height.mean() == pytest.approx(theirs.mean().item(), rel=0.04)
    assert height.std() == pytest.approx(theirs.std().item(), rel=0.08)
    wide = draw_boxes(500, size=(8, 800), generator=keyed_generator(0, "boxes"))
    assert (wide[:, 2] <= 8).all()
    assert (wide[:, 3] <= 800).all()


def test_a_box_is_brought_to_the_images_size_and_mirrored():
    image = pictures(1, size=(32, 32)).expand(3, -1, -1, -1)
    boxes = torch.tensor([[0.0, 0.0, 32.0, 32.0], [0.0, 0.0, 32.0, 32.0], [8.0, 4.0, 16.0, 16.0]])
    whole, mirrored, part = crop(image, boxes, torch.tensor([False, True, False]))
    assert torch.equal(whole, image[0].float())
    assert torch.equal(mirrored, image[0].float().flip(-1))
    expected = F.interpolate(image[:1, :, 8:24, 4:20].float(), scale_factor=2, mode="bicubic", align_corners=False)[0]
    inner = (slice(None), slice(6, -6), slice(6, -6))  # at a box's border its neighbours shine through
    assert (part.float()[inner] - expected.clamp(0, 255)[inner]).abs().max() <= 1


ALL = Augmentation(augment="resized_crop_flip", policy="rand_augment", color_jitter=0.4)


def apply(augmentation: Augmentation, *, n: int = 64, seed: int = 0, epoch: int = 0) -> torch.Tensor:
    images = pictures(1, size=(16, 16)).permute(0, 2, 3, 1).expand(n, -1, -1, -1)
    draws = SampleDraws(augmentation, n, size=(16, 16), seed=seed, epoch=epoch).tensors(channels=3)
    parts = [slice(start, start + 16) for start in range(0, n, 16)]
    return torch.cat([augment(images[part], {name: drawn[part] for name, drawn in draws.items()}) for part in parts])


@pytest.mark.parametrize(
    "augmentation",
    [
        Augmentation(augment="resized_crop_flip"),
        Augmentation(augment="none", policy="rand_augment"),
        Augmentation(augment="none", policy="auto_augment"),
        Augmentation(augment="none", policy="auto_augment_cifar"),
        Augmentation(augment="none", color_jitter=0.4),
        ALL,
    ],
)
def test_each_sample_of_a_batch_has_a_draw_of_its_own(augmentation):
    images = apply(augmentation)
    assert len({image.numpy().tobytes() for image in images}) > 20  # a table has 25 rows
    assert torch.equal(images, apply(augmentation))
    assert not torch.equal(images, apply(augmentation, epoch=1))
    assert not torch.equal(images, apply(augmentation, seed=1))


def test_a_part_that_is_switched_on_shifts_no_draw_of_another():
    alone, all_ = (
        SampleDraws(augmentation, 100, size=(16, 16), seed=0, epoch=0)
        for augmentation in (Augmentation(augment="none", policy="rand_augment"), ALL)
    )
    assert torch.equal(alone._operations, all_._operations)
    assert torch.equal(alone._strengths, all_._strengths)
    assert alone.tobytes() != all_.tobytes()


def test_operations_are_drawn_alike_and_strengths_around_their_mean():
    draws = SampleDraws(Augmentation(augment="none", policy="rand_augment"), 20_000, size=(8, 8), seed=0, epoch=0)
    shares = torch.bincount(draws._operations.flatten()).float() / draws._operations.numel()
    assert len(shares) == 14
    assert shares.min() > 0.9 / 14
    assert shares.max() < 1.1 / 14
    assert draws._strengths.mean() == pytest.approx(0.9, abs=0.005)
    assert draws._strengths.std() == pytest.approx(0.05, abs=0.005)
    assert draws._strengths.max() <= 1
    assert draws._signs.mean().abs() < 0.02


def test_auto_augment_draws_from_its_own_table():
    cifar = SampleDraws(Augmentation(augment="none", policy="auto_augment_cifar"), 20_000, size=(8, 8), seed=0, epoch=0)
    names = OPERATIONS
    share = (cifar._operations[:, 0] == names.index("Equalize")).float().mean()
    expected = (0.6 + 0.3 + 0.2 + 0.2 + 0.8) / 25  # of the table of torchvision 0.29, where it comes first
    assert share == pytest.approx(expected, abs=0.01)
    imagenet = SampleDraws(Augmentation(augment="none", policy="auto_augment"), 20_000, size=(8, 8), seed=0, epoch=0)
    assert (imagenet._operations[:, 0] == names.index("TranslateX")).sum() == 0


def test_global_generators_are_left_alone():
    before = torch.get_rng_state()
    apply(ALL)
    assert torch.equal(torch.get_rng_state(), before)


def test_angles_turn_as_torchvisions_do():
    image = torch.zeros(1, 1, 9, 9, dtype=torch.uint8)
    image[0, 0, 4, 8] = 255  # right of the centre
    turned = change("Rotate", image, torch.ones(1), torch.ones(1))[0, 0]
    y, x = (turned == 255).nonzero()[0].tolist()
    assert math.degrees(math.atan2(4 - y, x - 4)) == pytest.approx(30, abs=8)  # counter-clockwise
