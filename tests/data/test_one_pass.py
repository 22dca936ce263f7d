"""The operations of a policy and colour jitter in one pass: the pixels of their groups, in half of the kernels."""

from __future__ import annotations

import itertools

import grouped
import pytest
import torch
from launches import Launches

from ablations.data import operations
from ablations.data.operations import OPERATIONS
from ablations.data.per_sample import JITTER_ORDERS, SampleDraws, augment, jitter, jitter_weights
from ablations.data.transforms import Augmentation
from ufo.init import keyed_generator

SIZES = [(32, 32), (33, 40), (7, 5), (2, 9), (1, 4)]
KINDS = ["noise", "grey", "constant", "narrow"]


def pictures(kind: str, m: int, channels: int, size: tuple[int, int]) -> torch.Tensor:
    """Return images (m, C, H, W) uint8: noise, three equal channels, one value a channel, or few values a channel."""
    generator = keyed_generator(0, kind)
    noise = torch.randint(256, (m, channels, *size), generator=generator)
    base = torch.randint(200, (m, channels, 1, 1), generator=generator)
    made = {
        "noise": noise,
        "grey": noise[:, :1].expand_as(noise),
        "constant": base.expand_as(noise),
        "narrow": noise // 8 + base,
    }
    return made[kind].to(torch.uint8).contiguous()


def test_the_operations_are_those_of_the_groups():
    assert list(OPERATIONS) == list(grouped.OPERATIONS)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_every_operation_at_every_strength_has_the_groups_pixels(size, channels):
    names = torch.arange(len(OPERATIONS), dtype=torch.float32)
    grid = torch.cartesian_prod(names, torch.tensor([-1.0, 1.0]), torch.linspace(0, 1, 26))  # one batch of all of them
    drawn, signs, strengths = grid[:, :1].long(), grid[:, 1:2], grid[:, 2:]
    rows = operations.coefficients(drawn, strengths, signs, size=size, channels=channels)
    for kind in KINDS:
        images = pictures(kind, len(grid), channels, size)
        expected = grouped.apply_policy(images, drawn, strengths, signs)
        unequal = (operations.apply(images.float(), rows) != expected).flatten(1).any(1)
        assert not unequal.any(), (kind, sorted({OPERATIONS[i] for i in drawn[unequal, 0].tolist()}))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("policy", ["rand_augment", "auto_augment", "auto_augment_cifar"])
def test_a_policy_has_the_pixels_of_its_groups(policy, channels):
    images = pictures("narrow", 200, channels, (15, 20))
    draws = SampleDraws(Augmentation(augment="none", policy=policy, policy_ops=3), 200, size=(15, 20), seed=0, epoch=0)
    expected = grouped.apply_policy(images, draws._operations, draws._strengths, draws._signs)
    result = augment(images.permute(0, 2, 3, 1), draws.tensors(channels=channels))
    assert torch.equal(result.permute(0, 3, 1, 2).to(torch.uint8), expected)
    assert result.is_contiguous()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_colour_jitter_in_every_order_has_the_groups_pixels(kind, channels):
    orders = torch.arange(len(JITTER_ORDERS)).repeat(40)
    images = pictures(kind, len(orders), channels, (9, 14))
    factors = 2 * torch.rand(len(orders), 3, generator=keyed_generator(0, "factors"))
    result = jitter(images.float(), jitter_weights(factors, orders, channels=channels))
    assert torch.equal(result.to(torch.uint8), grouped.apply_jitter(images, factors, orders))


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_sample_does_not_depend_on_the_rest_of_its_batch(name):
    images = pictures("noise", 2, 3, (8, 8)).float()
    drawn = torch.tensor([[OPERATIONS.index(name)], [OPERATIONS.index("Equalize")]])
    rows = operations.coefficients(drawn, torch.full((2, 1), 0.7), torch.ones(2, 1), size=(8, 8), channels=3)
    assert torch.equal(operations.apply(images, rows)[:1], operations.apply(images[:1], rows[:1]))


@pytest.mark.parametrize("policy", ["rand_augment", "auto_augment", "auto_augment_cifar", "none"])
def test_a_batch_takes_at_most_half_of_the_kernels_of_its_groups(policy):
    images = pictures("noise", 128, 3, (8, 8))
    augmentation = Augmentation(augment="none", policy=policy, color_jitter=0.4 if policy == "none" else 0.0)
    draws = SampleDraws(augmentation, 128, size=(8, 8), seed=0, epoch=0)
    picked = draws.tensors(channels=3)
    with Launches() as now:
        augment(images.permute(0, 2, 3, 1), picked)
    with Launches() as before:
        if policy == "none":
            grouped.apply_jitter(images, draws._jitter, draws._jitter_order)
        else:
            grouped.apply_policy(images, draws._operations, draws._strengths, draws._signs)
    assert now.total() <= before.total() / 2, (now.counts, before.counts)


def test_the_number_of_kernels_does_not_depend_on_the_draws():
    images, totals = pictures("noise", 16, 3, (8, 8)), set()
    augmentation = Augmentation(augment="none", policy="rand_augment", color_jitter=0.4)
    for seed, n in itertools.product(range(3), (16, 4)):
        picked = SampleDraws(augmentation, n, size=(8, 8), seed=seed, epoch=0).tensors(channels=3)
        with Launches() as now:
            augment(images[:n].permute(0, 2, 3, 1), picked)
        totals.add(now.total())
    assert len(totals) == 1
