"""The pairing: same weights, same batches, same split for every arm, whatever runs beside it."""

from __future__ import annotations

import itertools
import random
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import run_here

from ablations.config import recipes
from ablations.config.make import make_config
from ablations.data import DataInfo, Scale, TrainBatches, find_source, load_splits, prepare
from ablations.data.streams import epoch_generator, forked_library, reseed_library
from ablations.data.transforms import Augmentation
from ablations.tasks.classify import Classifier
from ablations.tasks.net import build_net
from ufo.init import shared_weights_hash
from ufo.norms import NORMS, AttentionNorm

ARMS = [spec.name for spec in NORMS.values() if spec.group in ("paper", "control")]
CPU = torch.device("cpu")
CROP_FLIP, SHIFT, STILL = (Augmentation(augment=kind) for kind in ("crop_flip", "shift", "none"))
QUICK = ("--epochs", 2, "--set", "train_limit=128")


def make(**fields: object):
    base = recipes.defaults(image_side=8, flips=False) | {"data": "digits", "data_fingerprint": "f"}
    return make_config(base | {"norm": "xnorm", "seed": 0} | fields)


def net(norm: str, **fields: object):
    return build_net(make(norm=norm, **fields), image_shape=(8, 8, 1), num_classes=10)


@pytest.fixture(scope="module")
def digits(cache: Path) -> DataInfo:
    return prepare(find_source("digits", data_root=cache, download=False, image_size=None))


def outside_norms(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    norms = tuple(f"{name}." for name, module in model.named_modules() if isinstance(module, AttentionNorm))
    return {name: tensor for name, tensor in model.state_dict().items() if not name.startswith(norms)}


@pytest.mark.parametrize(("one", "other"), list(itertools.combinations(ARMS, 2)))
def test_every_two_arms_start_from_the_same_bits(one, other):
    first, second = net(one), net(other)
    a, b = outside_norms(first), outside_norms(second)
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert shared_weights_hash(first) == shared_weights_hash(second)


def test_another_seed_gives_other_weights_and_zero_is_a_seed():
    hashes = {shared_weights_hash(net("xnorm", seed=seed)) for seed in (0, 1, 2)}
    assert len(hashes) == 3
    assert shared_weights_hash(net("l2", seed=0)) in hashes


@pytest.mark.parametrize("fields", [{"lpi": False}, {"class_attention": 0}, {"depth": 1}, {"patch_embed": "linear"}])
def test_taking_a_part_away_leaves_the_other_weights(fields):
    whole, without = net("xnorm").state_dict(), net("xnorm", **fields).state_dict()
    common = [name for name in without if name in whole and not name.startswith("patch_embed")]
    assert len(common) > 20
    assert all(torch.equal(whole[name], without[name]) for name in common)


def epochs(seed: int, cache: Path) -> list[tuple[torch.Tensor, torch.Tensor]]:
    info = prepare(find_source("digits", data_root=cache, download=False, image_size=None))
    split = load_splits(info, train_limit=128, device=CPU)["train"]
    batches = TrainBatches(
        split,
        scale=Scale(info.mean, info.std, device=CPU),
        batch_size=32,
        augmentation=CROP_FLIP,
        seed=seed,
    )
    seen = []
    for epoch in range(2):
        batches.set_epoch(epoch)
        seen += list(batches)
    return seen


def test_a_seed_gives_the_same_augmented_images_whatever_else_draws(cache):
    first = epochs(0, cache)
    torch.manual_seed(123)
    torch.rand(17)
    second, other = epochs(0, cache), epochs(1, cache)
    assert all(torch.equal(a, b) for one, two in zip(first, second, strict=True) for a, b in zip(one, two, strict=True))
    assert not torch.equal(first[0][0], other[0][0])


def test_an_epoch_can_be_replayed_alone(cache):
    info = prepare(find_source("digits", data_root=cache, download=False, image_size=None))
    split = load_splits(info, train_limit=None, device=CPU)["train"]
    batches = TrainBatches(
        split,
        scale=Scale(info.mean, info.std, device=CPU),
        batch_size=64,
        augmentation=SHIFT,
        seed=3,
    )
    for epoch in range(4):
        batches.set_epoch(epoch)
    after_others = next(iter(batches))[0]
    batches.set_epoch(0)
    batches.set_epoch(3)
    assert torch.equal(after_others, next(iter(batches))[0])


def test_streams_are_apart():
    draws = {
        (stream, seed, epoch): torch.rand(1, generator=epoch_generator(seed, stream, epoch)).item()
        for stream in ("order", "augment", "drop_path", "library")
        for seed in (0, 1)
        for epoch in (0, 1)
    }
    assert len(set(draws.values())) == len(draws)


def dropped(digits, **options) -> dict[str, torch.Tensor]:
    """Return what each branch of a net keeps in the first epoch's second step."""
    config = make(drop_path=0.5, **options)
    net = build_net(config, image_shape=digits.image_shape, num_classes=10)
    split = load_splits(digits, train_limit=128, device=CPU)["train"]
    scale = Scale(digits.mean, digits.std, device=CPU)
    batches = TrainBatches(split, scale=scale, batch_size=32, augmentation=STILL, seed=0)
    task = Classifier(config, image_shape=digits.image_shape, num_classes=10, net=net)
    task.trainer = trainer = SimpleNamespace(current_epoch=0, train_dataloader=batches)
    seen = []
    net.register_forward_pre_hook(lambda _net, inputs: seen.append(inputs[1]))
    batches.set_epoch(trainer.current_epoch)
    task.on_train_epoch_start()
    task.training_step(next(iter(batches)), 1)
    return dict(zip(net.branches, seen[0], strict=True))


@pytest.mark.parametrize("off", [{"lpi": False}, {"class_attention": 0}, {"depth": 1}, {"norm": "l2"}])
def test_a_branch_is_dropped_for_the_same_samples_whatever_other_branches_there_are(digits, off):
    full, part = dropped(digits), dropped(digits, **off)
    assert set(part) <= set(full)
    assert all(torch.equal(keep, full[name]) for name, keep in part.items())
    assert len({tuple(keep.tolist()) for keep in full.values()}) == len(full)


def test_another_batch_size_is_another_sequence_of_batches(digits):
    split = load_splits(digits, train_limit=128, device=CPU)["train"]
    scale = Scale(digits.mean, digits.std, device=CPU)
    hashes = set()
    for size, seed in itertools.product((32, 64), (0, 1)):
        batches = TrainBatches(split, scale=scale, batch_size=size, augmentation=SHIFT, seed=seed)
        batches.set_epoch(0)
        hashes.add(batches.hash)
    assert len(hashes) == 4


@pytest.mark.parametrize(
    ("draw", "state_of"),
    [
        (lambda: torch.rand(1).item(), lambda: torch.get_rng_state().tolist()),
        (random.random, random.getstate),
        (np.random.rand, lambda: np.random.get_state(legacy=False)["state"]["key"].tolist()),  # noqa: NPY002
    ],
    ids=["torch", "python", "numpy"],
)
def test_library_code_runs_in_a_keyed_fork(draw, state_of):
    def drawn(seed: int, epoch: int) -> float:
        with forked_library(seed):
            reseed_library(seed, epoch)
            return draw()

    state = state_of()
    values = {(seed, epoch): drawn(seed, epoch) for seed in (0, 1) for epoch in (0, 1)}
    assert str(state) == str(state_of())
    assert len(set(values.values())) == 4
    assert drawn(1, 1) == values[1, 1]


def metrics(out: Path) -> dict[str, bytes]:
    folders = [path for path in (out / "norm-digits" / "cells").iterdir() if path.name != ".partial"]
    return {folder.name: (folder / "metrics.csv").read_bytes() for folder in folders}


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """A study of four arms."""
    out = tmp_path_factory.mktemp("together")
    code, _, error = run_here("run", "--norm", "softmax,l2,xnorm,layernorm", "--seeds", 2, *QUICK, "--out", out)
    assert code == 0, error
    return out


@pytest.mark.slow
def test_an_arm_alone_and_among_others_gives_the_same_numbers(together, cli, tmp_path):
    assert cli("run", "--norm", "l2", "--seed", 1, *QUICK, "--out", tmp_path)[0] == 0
    among, alone = metrics(together), metrics(tmp_path)
    assert len(among) == 8
    assert len(alone) == 1
    for name, content in alone.items():
        assert among[name] == content


@pytest.mark.slow
def test_the_record_says_that_the_pairing_held(together):
    cells = pd.read_csv(together / "norm-digits" / "results.csv")
    assert (cells.groupby("seed")["init_hash"].nunique() == 1).all()
    assert cells["init_hash"].nunique() == 2
    assert cells["split_hash"].nunique() == 1
    table = (together / "norm-digits" / "tables" / "main.md").read_text()
    assert "of 6 pairs: 6 share every initial weight outside the normaliser, 6 every batch" in table
