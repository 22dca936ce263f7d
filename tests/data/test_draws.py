"""An epoch's draws on the device: batches from an index or several seeds, in place, without a wait or a copy."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import pytest
import torch
from launches import Launches
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from ablations.data import (
    Batch,
    EvalBatches,
    Rank,
    Scale,
    Split,
    TrainBatches,
    eval_batch,
    find_source,
    load_splits,
    prepare,
)
from ablations.data.draws import joined, pick, refill
from ablations.data.mixing import Mixing, MixingDraws
from ablations.data.transforms import Augmentation
from ufo.init import keyed_generator

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
AUGMENTATIONS = [
    Augmentation(augment=augment, policy=policy, color_jitter=jitter)
    for augment, policy, jitter in itertools.product(
        ("none", "shift", "crop_flip", "resized_crop_flip"),
        ("none", "rand_augment", "auto_augment", "auto_augment_cifar"),
        (0.0, 0.4),
    )
]
ALL = Augmentation(augment="resized_crop_flip", policy="rand_augment", color_jitter=0.4)
MIXINGS = [
    Mixing(mixup=mixup, cutmix=cutmix, mix_probability=0.8, erasing=erasing)
    for mixup, cutmix, erasing in itertools.product((0.0, 0.8), (0.0, 1.0), (0.0, 0.5))
    if mixup or cutmix or erasing
]


def name_of(parameters: Augmentation | Mapping[str, float]) -> str:
    return " ".join(str(value) for value in vars(parameters).values())


def make_split(device: torch.device = CPU, *, channels: int = 3) -> Split:
    images = torch.randint(256, (30, 9, 9, channels), generator=keyed_generator(0, "images")).to(torch.uint8)
    rows = torch.arange(2, 30)
    return Split(images=images.to(device), labels=(rows % 5).to(device), rows=rows.to(device), original_rows=rows)


def make_batches(
    augmentation: Augmentation, *, seed: int = 0, split: Split | None = None, rank: Rank | None = None
) -> TrainBatches:
    split = make_split() if split is None else split
    channels, device = split.images.shape[3], split.images.device
    return TrainBatches(
        split,
        scale=Scale([0.4] * channels, [0.2] * channels, device=device),
        batch_size=8,
        augmentation=augmentation,
        seed=seed,
        rank=rank or Rank(),
    )


def make_mixing(mixing: Mixing, *, seed: int = 0, epoch: int = 0, own: Tensor | None = None) -> MixingDraws:
    draws = MixingDraws(mixing, batch_size=8, size=(9, 9), seed=seed)
    draws.draw(epoch, num_batches=3, device=CPU, own=own)
    return draws


def assert_equal(ours: Batch, theirs: Batch) -> None:
    assert torch.equal(ours[0], theirs[0])
    assert torch.equal(ours[1], theirs[1])


@pytest.mark.parametrize("augmentation", AUGMENTATIONS, ids=name_of)
def test_a_batch_is_a_function_of_its_draws(augmentation):
    both = [make_batches(augmentation, seed=seed) for seed in (0, 1)]
    made = [list(batches) for batches in both]
    for index in range(3):
        at = torch.tensor([index])
        assert_equal(both[0].make(pick(both[0].draws, at)), made[0][index])
        stacked = both[0].make(joined([pick(batches.draws, at) for batches in both]))
        assert_equal(stacked, tuple(torch.cat(parts) for parts in zip(*(each[index] for each in made), strict=True)))


def test_an_epoch_overwrites_the_draws_of_the_one_before_and_no_batch():
    batches, mixing = make_batches(ALL), make_mixing(Mixing(mixup=0.8, cutmix=1.0, mix_probability=1.0, erasing=0.5))
    batches.set_epoch(0)
    places = [{name: drawn.data_ptr() for name, drawn in each.draws.items()} for each in (batches, mixing)]
    generators, first = mixing.generators, list(batches)
    kept, former = [tuple(x.clone() for x in batch) for batch in first], mixing.draws["share"].clone()
    batches.set_epoch(1)
    mixing.draw(1, num_batches=3, device=CPU)
    assert [{name: drawn.data_ptr() for name, drawn in each.draws.items()} for each in (batches, mixing)] == places
    assert set(places[0]) == {"rows", "labels", "box", "mirror", "policy", "jitter"}
    assert set(places[1]) == {"mixed_box", "share", "erased_box", "hit"}
    assert mixing.generators[0] is generators[0]
    assert not torch.equal(mixing.draws["share"], former)
    for batch, copy in zip(first, kept, strict=True):
        assert_equal(batch, copy)
    again, other = make_batches(ALL), make_mixing(mixing.mixing, epoch=1)
    again.set_epoch(1)
    for ours, theirs in ((batches.draws, again.draws), (mixing.draws, other.draws)):
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert mixing.hash == other.hash


def test_draws_of_another_shape_are_moved():
    old = {"rows": torch.zeros(3, 2)}
    assert refill(old, {"rows": torch.ones(2, 2)}, CPU)["rows"].shape == (2, 2)
    assert old["rows"].sum() == 0
    assert refill(old, {"rows": torch.ones(3, 2)}, CPU)["rows"] is old["rows"]


def test_the_first_batch_is_whole_for_every_process():
    whole, shared = make_batches(ALL), make_batches(ALL, rank=Rank(1, 2))
    expected = list(whole)
    shared.set_epoch(0)
    assert_equal(shared.first(), expected[0])
    own = Rank(1, 2).mirrored(8)
    for (images, labels), batch in zip(expected, shared, strict=True):
        assert_equal((images[own], labels[own]), batch)


@pytest.mark.parametrize("mixing", MIXINGS, ids=name_of)
def test_batches_are_mixed_side_by_side_as_one_by_one(mixing):
    both = [make_mixing(mixing, seed=seed) for seed in (0, 1)]
    other = [make_mixing(mixing, seed=seed) for seed in (0, 1)]
    images = torch.randn(16, 3, 9, 9, generator=keyed_generator(0, "mixed")).to(memory_format=torch.channels_last)
    labels = torch.arange(16) % 5
    for index in range(3):  # the noise generators go on
        parts = zip(both, images.chunk(2), labels.chunk(2), strict=True)
        alone = [each.apply(x, y, pick(each.draws, index), num_classes=5) for each, x, y in parts]
        picked = joined([pick(each.draws, torch.tensor([index])) for each in other])
        generators = [generator for each in other for generator in each.generators]
        together = other[0].apply(images, labels, picked, num_classes=5, groups=2, generators=generators)
        assert_equal(together, tuple(torch.cat(part) for part in zip(*alone, strict=True)))
    assert len(generators) == (2 if mixing.erasing else 0)


def fake(mode: FakeTensorMode, draws: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the draws on a pretended GPU."""
    return {name: mode.from_tensor(drawn).to(CUDA) for name, drawn in draws.items() if name != "hit"}


@pytest.mark.parametrize(("augmentation", "channels"), [*((each, 3) for each in AUGMENTATIONS), (ALL, 1)])
def test_on_a_gpu_a_batch_is_made_without_a_wait_or_a_copy(augmentation, channels):
    real = make_batches(augmentation, split=make_split(channels=channels))
    real.set_epoch(0)
    with FakeTensorMode() as mode:
        batches = make_batches(augmentation, split=make_split(CUDA, channels=channels))
        draws, at = fake(mode, real.draws), torch.zeros(1, dtype=torch.int64, device=CUDA)
        with Launches("cuda"):
            images, labels = batches.make(joined([pick(draws, 0), pick(draws, at)]))
        assert (images.shape, labels.shape) == ((16, channels, 9, 9), (16,))


@pytest.mark.parametrize("own", [None, Rank(1, 2).mirrored(8)], ids=["one process", "one of two"])
@pytest.mark.parametrize("mixing", MIXINGS, ids=name_of)
def test_on_a_gpu_a_batch_is_mixed_without_a_wait_or_a_copy(mixing, own):
    real = make_mixing(mixing, own=own)
    with FakeTensorMode() as mode:
        draws = fake(mode, real.draws)
        if real._own is not None:
            real._own = mode.from_tensor(real._own).to(CUDA)
        share = 8 if own is None else 4
        images = torch.empty(2 * share, 3, 9, 9, device=CUDA).to(memory_format=torch.channels_last)
        labels = torch.zeros(2 * share, dtype=torch.int64, device=CUDA)
        with Launches("cuda"):
            picked = joined([pick(draws, 0), pick(draws, 1)])
            mixed, targets = real.apply(images, labels, picked, num_classes=5, groups=2, generators=[None, None])
        assert mixed.stride() == images.stride()
        assert targets.shape == ((2 * share, 5) if mixing.mixes else (2 * share,))


def test_a_wait_and_a_copy_are_found():
    with FakeTensorMode():
        drawn = torch.ones(3, device=CUDA)
        with Launches("cuda"), pytest.raises(AssertionError, match="has tensors on"):
            drawn.to(CPU)
        with Launches("cuda"), pytest.raises(AssertionError, match="waits for the device"):
            drawn.nonzero()


def test_evaluation_batches_fill_a_gpu():
    assert eval_batch((9, 9, 3), CPU) == 500
    assert eval_batch((32, 32, 3), CUDA) == 2**24 // 3072
    assert eval_batch((512, 512, 3), CUDA) == 500
    with FakeTensorMode():
        batches = EvalBatches(make_split(CUDA), scale=Scale([0.4] * 3, [0.2] * 3, device=CUDA))
        assert (len(batches), [len(labels) for _, labels in batches]) == (1, [28])


def test_cells_in_a_process_share_the_images_on_a_gpu(cache):
    info = prepare(find_source("digits", data_root=cache, download=False, image_size=None))
    one, other = (load_splits(info, train_limit=64, device=torch.device("meta")) for _ in range(2))
    assert one["train"].images is other["train"].images
    assert one["train"].images is not one["val"].images
    more = load_splits(info, train_limit=65, device=torch.device("meta"))
    assert more["train"].images.shape[0] == 65


def test_deterministic_algorithms_stay_asked_for(monkeypatch):
    batches, modes = make_batches(ALL), []
    batches.set_epoch(0)
    plain = batches.batch(0)
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: True)
    monkeypatch.setattr(torch, "use_deterministic_algorithms", lambda mode, **_: modes.append(mode))
    assert_equal(batches.batch(0), plain)
    assert modes == [False, True] * ALL.policy_ops
