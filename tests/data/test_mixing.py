"""Mixup, CutMix and erasing sample by sample, and the moving average of the weights."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from ablations.data.draws import pick
from ablations.data.mixing import Mixing, MixingDraws, inside
from ablations.training.average import MovingAverage

CPU = torch.device("cpu")
NONE = {"mixup": 0.0, "cutmix": 0.0, "mix_probability": 1.0, "erasing": 0.0}


def make_draws(*, n: int = 64, batch: int = 64, epoch: int = 0, seed: int = 0, **fields: float) -> MixingDraws:
    draws = MixingDraws(Mixing(**(NONE | fields)), batch_size=batch, size=(12, 16), seed=seed)
    draws.draw(epoch, num_batches=n // batch, device=CPU)
    return draws


def apply(draws: MixingDraws, images: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mix the first batch of an epoch, with a class for each sample."""
    return draws.apply(images, labels, pick(draws.draws, 0), num_classes=len(images))


def make_batch(size: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    """Return images whose every pixel is the sample's number, and its number as its label."""
    labels = torch.arange(size)
    return labels.float().view(-1, 1, 1, 1).expand(-1, 3, 12, 16).contiguous(), labels


def test_nothing_is_drawn_where_nothing_is_asked_for():
    assert not Mixing(**NONE)
    assert Mixing(**(NONE | {"erasing": 0.1}))


def test_mixup_blends_pixels_and_labels_by_one_share_for_each_sample():
    images, labels = make_batch()
    mixed, targets = apply(make_draws(mixup=0.8), images, labels)
    shares = targets[labels, labels]
    assert len(set(shares.tolist())) > 60
    torch.testing.assert_close(targets.sum(1), torch.ones(64))
    torch.testing.assert_close(targets[labels, 63 - labels], 1 - shares)
    expected = shares * labels + (1 - shares) * (63 - labels)
    torch.testing.assert_close(mixed, expected.view(-1, 1, 1, 1).expand_as(mixed))


def test_cutmix_pastes_a_box_and_counts_its_pixels():
    images, labels = make_batch()
    mixed, targets = apply(make_draws(cutmix=1.0), images, labels)
    own = mixed == labels.view(-1, 1, 1, 1)
    partner = mixed == (63 - labels).view(-1, 1, 1, 1)
    assert (own | partner).all()
    torch.testing.assert_close(targets[labels, labels], own[:, 0].float().mean(dim=(1, 2)))
    rows, columns = partner[:, 0].any(2), partner[:, 0].any(1)  # together they give back the box
    assert torch.equal(rows[:, :, None] & columns[:, None, :], partner[:, 0])
    assert len({tuple(box.flatten().tolist()) for box in partner[:, 0]}) > 30


def test_with_both_each_sample_has_one_or_the_other():
    images, labels = make_batch(4000)
    draws = make_draws(n=4000, batch=4000, mixup=0.8, cutmix=1.0)
    mixed, targets = apply(draws, images, labels)
    whole = (mixed == mixed[:, :1, :1, :1]).flatten(1).all(1)  # one value throughout: mixup, or a box of everything
    assert 0.45 < whole.float().mean() < 0.6
    torch.testing.assert_close(targets.sum(1), torch.ones(4000))


def test_a_share_of_the_samples_is_left_as_it_is():
    images, labels = make_batch(4000)
    draws = make_draws(n=4000, batch=4000, mixup=1.0, cutmix=1.0, mix_probability=0.25)
    mixed, targets = apply(draws, images, labels)
    left = (targets[labels, labels] == 1) & (mixed == images).flatten(1).all(1)
    assert left.float().mean() == pytest.approx(0.77, abs=0.03)  # and a few boxes are empty


def test_the_shares_are_beta_distributed():
    draws = make_draws(n=50_000, batch=50_000, mixup=0.8)
    shares = draws.draws["share"][0, :, 0]
    assert shares.mean() == pytest.approx(0.5, abs=0.005)
    assert shares.var() == pytest.approx(1 / (4 * (2 * 0.8 + 1)), rel=0.02)


def test_erasing_makes_noise_of_a_box_and_keeps_the_label():
    images, labels = make_batch(2000)
    erased, targets = apply(make_draws(n=2000, batch=2000, erasing=0.25), images + 100, labels)
    assert torch.equal(targets, labels)
    changed = (erased < 50).all(1)  # (B, H, W)
    hit = changed.flatten(1).any(1)
    assert hit.float().mean() == pytest.approx(0.25, abs=0.03)
    rows, columns = changed.any(2), changed.any(1)
    assert torch.equal(rows[:, :, None] & columns[:, None, :], changed)
    area = changed[hit].float().mean(dim=(1, 2))
    assert area.min() > 0.01
    assert area.max() < 0.37
    noise = erased[changed[:, None].expand_as(erased)]
    assert noise.mean().abs() < 0.05
    assert noise.std() == pytest.approx(1, abs=0.05)


def test_draws_are_keyed_by_seed_and_epoch_and_one_shifts_no_other():
    images, labels = make_batch()
    everything = {"mixup": 0.8, "cutmix": 1.0, "erasing": 0.25}

    def run(**options: int) -> torch.Tensor:
        return apply(make_draws(**everything, **options), images, labels)[0]

    before = torch.get_rng_state()
    assert torch.equal(run(), run())
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(run(), run(epoch=1))
    assert not torch.equal(run(), run(seed=1))
    both, alone = make_draws(**everything), make_draws(erasing=0.25)
    assert torch.equal(both.draws["erased_box"], alone.draws["erased_box"])
    assert both.hash != alone.hash == make_draws(erasing=0.25).hash


def test_a_box_holds_its_pixels():
    boxes = torch.tensor([[1, 2, 3, 5], [0, 0, 0, 0]])
    pixels = inside(boxes, (4, 6))
    assert pixels.shape == (2, 1, 4, 6)
    assert pixels[0, 0].nonzero().tolist() == [[y, x] for y in (1, 2) for x in (2, 3, 4)]
    assert not pixels[1].any()


class Net(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))


def test_the_average_follows_the_weights_and_the_statistics():
    module, average, trainer = Net(), MovingAverage(0.5), SimpleNamespace(global_step=0)
    net = module.net
    average.setup(trainer, module, "fit")
    average.on_train_start(trainer, module)
    first = net[0].weight.detach().clone()
    expected = first
    for step in range(1, 5):
        with torch.no_grad():
            net[0].weight.add_(1)
            net[1].running_mean.add_(2)
            net[1].num_batches_tracked.add_(1)
        trainer.global_step = step
        average.on_train_batch_end(trainer, module, {}, None, 0)
        weight = 1 - min(0.5, (1 + step) / (10 + step))
        expected = expected + weight * (first + step - expected)
    last = net[0].weight.detach().clone()
    average.on_validation_epoch_start(trainer, module)  # what is evaluated
    torch.testing.assert_close(net[0].weight, expected)
    assert net[1].running_mean[0] == pytest.approx(2 * (expected - first)[0, 0].item())
    assert net[1].num_batches_tracked == 0
    average.on_validation_epoch_end(trainer, module)
    assert torch.equal(net[0].weight, last)
    average.on_fit_end(trainer, module)
    torch.testing.assert_close(net[0].weight, expected)
