"""Streamed images: what comes does not depend on who decodes it, and a file that cannot be read is named."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import cells, numbers, write_images
from PIL import Image

from ablations.bench.loader import LoaderRow, bench_loader, describe_loader
from ablations.config import CellConfig, UsageError, recipes
from ablations.config.make import make_config
from ablations.data import Rank, find_source, placement, prepare
from ablations.data.image import read_image
from ablations.data.info import DataInfo
from ablations.data.load import CellData, load_in_memory, load_streamed, time_images
from ablations.data.order import epoch_order
from ablations.data.splits import find_rows
from ablations.data.streaming import Images, ImageStream, Request
from ablations.data.transforms import Augmentation

CPU = torch.device("cpu")
BY_SAMPLE = {"augment": "resized_crop_flip", "policy": "rand_augment", "color_jitter": 0.3}
QUICK = (
    "--norm",
    "xnorm,l2",
    "--seeds",
    1,
    "--epochs",
    2,
    "--batch-size",
    16,
    "--set",
    "depth=1",
    "--set",
    "warmup_epochs=0",
)


def make_data(folder: Path, *, in_memory: str = "off", image_size: int | None = None) -> DataInfo:
    source = find_source(f"imagefolder:{folder}", data_root=folder, download=False, image_size=image_size)
    return prepare(source, in_memory=in_memory)


def make_cell(info: DataInfo, **fields: object) -> CellConfig:
    base = recipes.defaults(image_side=16, flips=True)
    base |= {"data": info.name, "data_fingerprint": info.fingerprint, "streamed": info.streamed, "batch_size": 16}
    return make_config(base | {"norm": "xnorm", "seed": 3} | fields)


@contextmanager
def loaded(info: DataInfo, *, workers: int = 0, **fields: object) -> Iterator[CellData]:
    cell, place = make_cell(info, **fields), {"device": CPU, "rank": Rank()}
    data = load_streamed(cell, info, workers=workers, **place) if info.streamed else load_in_memory(cell, info, **place)
    try:
        yield data
    finally:
        data.close()


def train_file(info: DataInfo, i: int) -> Path:
    """Return the file of a sample of the training split; others of train/ are validation."""
    images = Images(info, side=None, augmentation=Augmentation(augment="none"), eval_crop=1.0, seed=0)
    rows = find_rows(info, train_limit=None)["train"].rows
    return Path(info.root) / images.files["train"].path(int(rows[i]))


def epoch_of(data: CellData, epoch: int) -> tuple[torch.Tensor, torch.Tensor]:
    data.train.set_epoch(epoch)
    images, labels = zip(*data.train, strict=True)
    return torch.cat(images), torch.cat(labels)


@pytest.mark.process
@pytest.mark.parametrize("fields", [{}, BY_SAMPLE, {"augment": "resized_crop_flip", "policy": "auto_augment"}])
def test_any_number_of_workers_gives_the_same_batches(images, fields):
    info = make_data(images)
    epochs = {}
    for workers in (0, 1, 2):
        with loaded(info, workers=workers, **fields) as data:
            epochs[workers] = [*epoch_of(data, 0), *epoch_of(data, 1), *(x for batch in data.test for x in batch)]
    assert len(epochs[0][0]) == 64
    assert not torch.equal(epochs[0][0], epochs[0][2])
    for workers in (1, 2):
        assert all(torch.equal(x, y) for x, y in zip(epochs[0], epochs[workers], strict=True))


def test_an_epoch_can_be_replayed_by_itself(images):
    with loaded(make_data(images), **BY_SAMPLE) as first, loaded(make_data(images), **BY_SAMPLE) as second:
        epoch_of(first, 0)
        assert torch.equal(epoch_of(first, 1)[0], epoch_of(second, 1)[0])
        assert first.train.hash == second.train.hash


def test_the_global_generators_change_nothing_and_stay_as_they_are(images):
    info, epochs = make_data(images), []
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        with loaded(info, **BY_SAMPLE) as data:
            epochs.append(epoch_of(data, 0)[0])
        assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(*epochs)


@pytest.mark.process
@pytest.mark.parametrize("augment", ["crop_flip", "shift", "none"])
def test_images_in_memory_come_in_the_same_order_with_the_same_draws(images, augment):
    fields = {"augment": augment, "repeats": 2}
    with (
        loaded(make_data(images), workers=1, **fields) as streamed,
        loaded(make_data(images, in_memory="on"), **fields) as kept,
    ):
        assert streamed.split_hash == kept.split_hash
        for epoch in (0, 1):
            ours, theirs = epoch_of(streamed, epoch), epoch_of(kept, epoch)
            assert torch.equal(ours[1], theirs[1])
            torch.testing.assert_close(ours[0], theirs[0])  # the statistics of both are of all 72 images
            assert streamed.train.hash == kept.train.hash


def test_repeats_of_a_sample_lie_in_one_batch_and_are_augmented_otherwise(images):
    with loaded(make_data(images), augment="resized_crop_flip", repeats=4) as data:
        pictures, labels = epoch_of(data, 0)
    assert len(labels) == 64
    groups = pictures.unflatten(0, (-1, 4))
    assert torch.equal(labels.unflatten(0, (-1, 4)), labels[::4, None].expand(-1, 4))
    assert (groups[:, 0] != groups[:, 1]).flatten(1).any(dim=1).all()
    assert epoch_order(72, repeats=4, seed=3, epoch=0).tolist() != epoch_order(72, repeats=4, seed=3, epoch=1).tolist()


@pytest.mark.slow  # two studies, four cells
def test_a_study_gives_the_same_numbers_whatever_its_workers(cli, images, tmp_path):
    outs = [tmp_path / "none", tmp_path / "two"]
    for out, workers in zip(outs, (0, 2), strict=True):
        code, printed, error = cli(
            "run", "--data", f"imagefolder:{images}", "--in-memory", "off", "--workers", workers, *QUICK,
            "--set", "augment=resized_crop_flip", "--set", "policy=rand_augment", "--out", out,
        )  # fmt: skip
        assert code == 0, error
        assert "streamed, as requested: 100 images of 16 x 16 px" in printed
    names = {path.name for path in outs[0].iterdir()}
    (study,) = names
    assert numbers(outs[0], study) == numbers(outs[1], study)
    assert len(numbers(outs[0], study)) == 2


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.slow
def test_an_image_that_cannot_be_read_stops_its_cell_and_is_named(cli, images, tmp_path, workers):
    broken = train_file(make_data(images), 51)  # one that a plan does not read
    whole = broken.read_bytes()
    broken.write_bytes(whole[: len(whole) // 2] + bytes(len(whole) - len(whole) // 2))  # found by decoding alone
    code, printed, error = cli(
        "run", "--data", f"imagefolder:{images}", "--in-memory", "off", "--workers", workers, *QUICK, "--out", tmp_path
    )
    assert code == 3, error
    (study,) = (path for path in tmp_path.iterdir() if (path / "cells").is_dir())
    outcomes = [json.loads((cell / "outcome.json").read_text()) for cell in cells(tmp_path, study.name).values()]
    assert [(outcome["outcome"], outcome["kind"]) for outcome in outcomes] == [("failed", "error")] * 2
    for outcome in outcomes:
        assert f"{broken} cannot be read" in outcome["detail"]
    assert str(broken)[-12:] in printed


def test_a_size_that_differs_is_named_where_it_is_met(images):
    info = make_data(images)
    odd = train_file(info, 40)
    Image.new("RGB", (20, 24)).save(odd)
    with loaded(info) as data, pytest.raises(UsageError, match=rf"{odd} 24 x 20 px; give --set image_size=N"):
        epoch_of(data, 0)


def test_evaluation_sees_the_centre(tmp_path):
    folder = write_images(tmp_path / "wide", {"train": 12, "test": 2})
    pixels = np.zeros((40, 80, 3), dtype=np.uint8)
    pixels[:, 20:60] = 200  # the largest centred square
    pixels[8:32, 28:52] = 90  # its inner 60 %
    Image.fromarray(pixels).save(folder / "test" / "cat" / "000.png")
    info = make_data(folder, image_size=16)
    request = Request("test", [0], None, [0])
    square, inner = (
        Images(info, side=16, augmentation=Augmentation(augment="none"), eval_crop=crop, seed=0).read(request)
        for crop in (1.0, 0.5)
    )
    assert square[0, 0, 0, 0] > 170  # the wall of black beside it shines through at the border
    assert (square[0, 8, 8] - 90.0).abs().max() <= 2
    assert (inner[0].float() - 90).abs().max() <= 2


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_a_photograph_is_turned_as_its_camera_noted(tmp_path, orientation):
    upright = Image.fromarray(np.arange(8 * 8 * 3, dtype=np.uint8).reshape(8, 8, 3))
    back = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright.transpose(back[orientation]).save(tmp_path / "turned.png", exif=exif)
    image, _ = read_image(tmp_path / "turned.png")
    assert np.array_equal(np.asarray(image), np.asarray(upright))


def test_sixteen_bits_are_refused(images):
    Image.fromarray(np.full((16, 16), 40_000, dtype=np.uint16)).save(images / "train" / "cat" / "003.png")
    with pytest.raises(UsageError, match=r"cat/003\.png is in mode I(;16)?, which has no exact 8-bit form; convert it"):
        make_data(images, in_memory="on")


def test_size_alone_decides_what_is_streamed(images, monkeypatch):
    decoded = 100 * 16 * 16 * 3
    monkeypatch.setattr(placement, "IN_MEMORY_BYTES", decoded)
    kept = make_data(images, in_memory="auto")
    assert not kept.streamed
    assert kept.placement == "in memory: 100 images of 16 x 16 px are 0.1 MiB decoded, within the limit of 0.1 MiB"
    monkeypatch.setattr(placement, "IN_MEMORY_BYTES", decoded - 1)
    assert make_data(images, in_memory="auto").streamed
    with pytest.raises(UsageError, match="--in-memory off: digits cannot be streamed"):
        prepare(find_source("digits", data_root=images, download=False, image_size=None), in_memory="off")


def test_workers_without_streamed_data_are_refused(cli, tmp_path):
    code, _, error = cli("run", "--workers", 2, "--out", tmp_path, "--dry-run")
    assert code == 2
    assert "--workers 2: no data set is streamed, so there is nothing to decode; leave it out" in error


def test_a_change_of_size_makes_another_data_set(images):
    before = make_data(images)
    assert make_data(images).fingerprint == before.fingerprint
    Image.new("RGB", (16, 16)).save(images / "train" / "cat" / "001.png")
    assert make_data(images).fingerprint != before.fingerprint


def test_greyscale_files_are_streamed_as_colour(images):
    for path in images.rglob("*.png"):
        Image.open(path).convert("L").save(path)
    assert make_data(images).image_shape == (16, 16, 3)


def test_files_may_have_any_name(images):
    (images / "train" / "cat" / "000.png").rename(images / "train" / "cat" / "caf\udce9 ü.png")
    with loaded(make_data(images)) as data:
        assert len(epoch_of(data, 0)[0]) == 64


@pytest.mark.process
@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize("batch_size", [1, 7, 32])
def test_no_batch_is_overwritten_while_it_is_in_hand(images, workers, batch_size):
    info = make_data(images)
    reader = Images(info, side=None, augmentation=Augmentation(augment="none"), eval_crop=1.0, seed=0)
    stream = ImageStream(reader, workers=workers, batch_size=batch_size, largest_batch=33, device=CPU)
    rows = torch.arange(80)
    try:
        for epoch, size in ((0, batch_size), (None, 33), (1, batch_size), (None, 33), (2, batch_size)):
            expected = reader.read(Request("train", rows.tolist(), None, list(range(len(rows))))).split(size)
            given = stream.batches("train", rows, batch_size=size, epoch=epoch, drop_last=False)
            for batch, right in zip(given, expected, strict=True):
                time.sleep(0.002 if workers else 0)  # until the workers are as far ahead as they go
                assert torch.equal(batch, right)
    finally:
        stream.close()


def test_the_decoding_of_an_image_is_timed(images):
    info = make_data(images)
    assert time_images(make_cell(info), info) > 0
    train_file(info, 0).write_bytes(b"x")
    with pytest.raises(UsageError, match="cannot be read"):
        time_images(make_cell(info), info)


@pytest.mark.slow
def test_the_loader_is_measured_beside_its_bound(images, cli):
    rows: list[LoaderRow] = []
    options = {"workers": (0, 1), "rounds": 1, "image_size": 16, "batch_size": 16, "num_images": 32}
    made = bench_loader(f"imagefolder:{images}", **options, on_row=rows.append)
    assert made == rows
    assert [(row.workers, row.quantity) for row in rows] == [(n, q) for n in (0, 1) for q in ("bound", "loader")]
    assert all(row.images_per_s > 0 for row in rows)
    assert len(describe_loader(rows)) == 2
    code, _, error = cli("bench", "loader", "--data", f"imagefolder:{images}", "--batch-size", 500)
    assert code == 2
    assert "--batch-size 500 exceeds the 72 training images; give a smaller one" in error
