"""Data sets are read whole or refused in one line; batches are what a plain loop would make."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import write_images
from PIL import Image

from ablations.config import UsageError
from ablations.data import EvalBatches, Scale, TrainBatches, find_source, load_splits, prepare
from ablations.data.augment import Draws, draw, gather
from ablations.data.location import VERSION, cache_root
from ablations.data.transforms import Augmentation
from ablations.data.tree import ImageTree
from ufo.init import keyed_generator

CPU = torch.device("cpu")


def source(spec: object, **options: object):
    return find_source(str(spec), **{"data_root": Path("nowhere"), "download": False, "image_size": None} | options)


def folder(path: Path, **options: object):
    return source(f"imagefolder:{path}", **options)


def test_digits_splits_are_disjoint_and_stratified():
    info = prepare(source("digits"))
    splits = load_splits(info, train_limit=None, device=CPU)
    assert [len(splits[name]) for name in ("train", "val", "test")] == [1293, 144, 360]
    rows = {name: set(splits[name].original_rows.tolist()) for name in ("train", "val")}
    assert not rows["train"] & rows["val"]
    assert len(rows["train"] | rows["val"]) == 1437
    for split in splits.values():
        counts = torch.bincount(split.labels, minlength=10)
        assert counts.max() - counts.min() <= 0.02 * len(split) + 1


def test_a_smaller_subset_lies_in_a_larger_one():
    info = prepare(source("digits"))
    small, large = (load_splits(info, train_limit=n, device=CPU)["train"].original_rows for n in (100, 300))
    assert len(small) == 100
    assert set(small.tolist()) < set(large.tolist())


def test_images_and_labels_of_a_folder_stay_together(images):
    info = prepare(folder(images))
    assert (info.name, info.classes, info.image_shape) == ("imagefolder:images", ["cat", "dog"], (16, 16, 3))
    splits = load_splits(info, train_limit=None, device=CPU)
    for name, expected in (("train", 72), ("val", 8), ("test", 20)):
        split = splits[name]
        assert len(split) == expected
        bright = split.images[split.rows].float().mean(dim=(1, 2, 3)) > 120
        assert torch.equal(bright.long(), split.labels)


def test_a_folder_with_val_and_test_keeps_both_and_one_without_test_cuts_validation_from_train(tmp_path):
    three = prepare(folder(write_images(tmp_path / "three", {"train": 20, "val": 5, "test": 6})))
    assert (three.num_train, three.num_val, three.num_test, three.notes) == (40, 10, 12, [])
    two = prepare(folder(write_images(tmp_path / "two", {"train": 20, "val": 5})))
    assert (two.num_train, two.num_val, two.num_test) == (36, 4, 10)
    assert "val/ is the test split" in two.notes[0]


def test_greyscale_images_among_colour_ones_are_converted_and_counted(images):
    Image.new("L", (16, 16), 7).save(images / "train" / "cat" / "000.png")
    info = prepare(folder(images))
    assert info.image_shape[2] == 3
    assert info.notes == ["1 greyscale images of 100 were converted to RGB"]


@pytest.mark.parametrize("mode", ["CMYK", "P", "RGBA"])
def test_images_in_another_mode_are_converted_and_counted(mode, images):
    path = images / "train" / "cat" / ("000.tif" if mode == "CMYK" else "000.png")
    Image.new("RGB", (16, 16), (255, 0, 0)).convert(mode).save(path)
    info = prepare(folder(images))
    assert f"1 {mode} images of {101 if mode == 'CMYK' else 100} were converted to RGB" in info.notes


@pytest.mark.parametrize("in_memory", ["on", "off"])
def test_what_pillow_warns_of_is_a_note(in_memory, images, recwarn):
    for path in images.rglob("*.png"):
        Image.open(path).quantize(8).save(path, transparency=bytes(range(8)))
    *_, note = prepare(folder(images), in_memory=in_memory).notes
    count = 100 if in_memory == "on" else 80
    assert note.startswith(f"warnings while images were read: {count}, such as 'Palette images with Transparency")
    assert not [each for each in recwarn if each.category is UserWarning]


def test_a_folder_of_greyscale_images_has_one_channel(images):
    for path in images.rglob("*.png"):
        Image.open(path).convert("L").save(path)
    assert prepare(folder(images)).image_shape == (16, 16, 1)


def test_files_that_are_no_images_are_named(images):
    (images / "train" / "cat" / "readme.txt").write_text("x")
    (note,) = prepare(folder(images)).notes
    assert note.startswith("train/: ignored files without an image extension: 1, first")
    assert note.endswith("cat/readme.txt")


def test_what_lies_in_no_class_folder_is_named(images):
    for name in ("b.png", "a.png"):
        shutil.copy(images / "train" / "cat" / "000.png", images / "train" / name)
    shutil.copytree(images / "test" / "cat", images / "test" / ".thumbnails")
    info = prepare(folder(images))
    assert [note.removesuffix(str(images)) for note in info.notes] == [
        f"train/: ignored files outside class folders: 2, first {images / 'train' / 'a.png'}",
        f"test/: ignored hidden and system folders: 1, first {images / 'test' / '.thumbnails'}",
    ]
    assert info.num_train + info.num_val == 80


def test_a_pipe_is_not_waited_for(images):
    os.mkfifo(images / "train" / "cat" / "pipe.png")
    with pytest.raises(UsageError, match=r"train/cat/pipe\.png cannot be read: it is not a regular file"):
        prepare(folder(images))


def test_a_folder_whose_name_is_no_text_is_refused(images):
    named = Path(os.fsdecode(os.fsencode(images) + b"\xff"))
    images.rename(named)
    with pytest.raises(UsageError, match="cannot be decoded as text; rename it"):
        folder(named)


def test_a_broken_link_is_named(images):
    (images / "train" / "cat" / "link.png").symlink_to(images / "nowhere.png")
    with pytest.raises(UsageError, match=r"train/cat/link\.png cannot be read: No such file or directory"):
        prepare(folder(images))


def test_a_corrupt_image_is_named_and_nothing_is_left_in_the_cache(images):
    broken = images / "train" / "dog" / "007.png"
    broken.write_bytes(broken.read_bytes()[:200])
    before = sorted(cache_root().iterdir())
    with pytest.raises(UsageError, match=r"dog/007\.png cannot be read"):
        prepare(folder(images))
    assert sorted(cache_root().iterdir()) == before


def test_images_of_several_sizes_need_a_size(images):
    Image.new("RGB", (20, 24)).save(images / "test" / "dog" / "003.png")
    with pytest.raises(UsageError, match=r"16 x 16 px, test/dog/003\.png 24 x 20 px; give --set image_size"):
        prepare(folder(images))
    assert prepare(folder(images, image_size=8)).image_shape == (8, 8, 3)


def damage_no_train(root: Path) -> None:
    shutil.rmtree(root / "train")


def damage_no_test(root: Path) -> None:
    shutil.rmtree(root / "test")


def damage_no_images(root: Path) -> None:
    for path in (root / "train" / "dog").iterdir():
        path.unlink()


def damage_no_classes(root: Path) -> None:
    shutil.rmtree(root / "train")
    (root / "train").mkdir()


def damage_class_only_in_train(root: Path) -> None:
    shutil.rmtree(root / "test" / "dog")


def damage_class_only_in_test(root: Path) -> None:
    shutil.rmtree(root / "train" / "dog")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (shutil.rmtree, "no folder"),
        (damage_no_train, "needs the folders train/"),
        (damage_no_test, "needs the folders train/"),
        (damage_no_images, r"no images in .*train/dog"),
        (damage_no_classes, r"no class folders with images in .*train"),
        (damage_class_only_in_train, r"class 'dog' is in .*train but not in .*test"),
        (damage_class_only_in_test, r"class 'dog' is in .*test but not in .*train"),
    ],
)
def test_a_damaged_folder_is_refused(images, damage, message):
    damage(images)
    with pytest.raises(UsageError, match=message):
        prepare(folder(images))


@pytest.mark.parametrize(
    ("spec", "options", "message"),
    [
        ("cifar", {}, "did you mean 'cifar1"),
        ("imagefolder", {}, "imagefolder needs a folder"),
        ("imagefolder:~nobody-of-this-name/x", {}, "no folder ~nobody-of-this-name/x"),
        ("digits:x", {}, "takes no folder"),
        ("digits", {"image_size": 4}, "image_size does not apply to .digits., only to imagefolder"),
        ("cifar10", {}, "no folder nowhere/cifar-10-batches-py; give --data-root DIR or --download"),
    ],
)
def test_a_data_set_that_is_not_there_is_refused(spec, options, message):
    with pytest.raises(UsageError, match=message):
        source(spec, **options)


@pytest.mark.parametrize("there", ["nothing", "a part"])
def test_a_download_completes_what_is_there(there, tmp_path, monkeypatch):
    from torchvision import datasets

    asked = []
    monkeypatch.setattr(datasets.CIFAR10, "download", lambda self: asked.append(self.root))
    if there == "a part":
        (tmp_path / "cifar-10-batches-py").mkdir()
    with pytest.raises(UsageError, match="not found or corrupted"):
        source("cifar10", data_root=tmp_path, download=True)
    assert asked == [tmp_path]


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar_is_read_from_torchvisions_files(name, tmp_path, monkeypatch):
    from torchvision import datasets

    cls = datasets.CIFAR10 if name == "cifar10" else datasets.CIFAR100
    monkeypatch.setattr(cls, "_check_integrity", lambda self: True)  # its checksums are of the real files
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)
    base = tmp_path / cls.base_folder
    base.mkdir()
    names = [f"class{i}" for i in range(10 if name == "cifar10" else 100)]
    (base / cls.meta["filename"]).write_bytes(pickle.dumps({cls.meta["key"]: names}))
    rng = np.random.default_rng(0)
    count = 20 if name == "cifar10" else 1000
    for file, _ in (*cls.train_list, *cls.test_list):
        labels = [i % len(names) for i in range(count)]
        pixels = rng.integers(0, 256, (count, 3072), dtype=np.uint8)
        (base / file).write_bytes(
            pickle.dumps({"data": pixels, "labels" if name == "cifar10" else "fine_labels": labels})
        )
    info = prepare(source(name, data_root=tmp_path))
    assert info.classes == names
    assert info.image_shape == (32, 32, 3)
    assert info.num_train + info.num_val == count * len(cls.train_list)


def test_a_second_preparation_reads_no_image(images, monkeypatch):
    first = prepare(folder(images))
    monkeypatch.setattr(ImageTree, "decode", lambda self: pytest.fail("decoded again"))
    assert prepare(folder(images)) == first


def test_the_fingerprint_knows_contents_of_equal_size(images):
    """A bitmap has as many bytes whatever it shows."""
    path = images / "train" / "cat" / "000.bmp"
    fingerprints = []
    for shade in (10, 20):
        Image.new("RGB", (16, 16), (shade, 0, 0)).save(path)
        fingerprints.append((path.stat().st_size, folder(images).fingerprint))
    (size, first), (other_size, second) = fingerprints
    assert size == other_size
    assert first != second


def test_a_name_that_is_no_unicode_is_read(images):
    place = os.fsencode(images / "train" / "cat")
    os.rename(os.path.join(place, b"000.png"), os.path.join(place, b"caf\xe9.png"))  # noqa: PTH104, PTH118  # bytes
    assert prepare(folder(images)).num_train == 72


def test_the_fingerprint_knows_names_and_not_the_place(images, tmp_path):
    moved = Path(shutil.copytree(images, tmp_path / "elsewhere"))
    assert folder(images).fingerprint == folder(moved).fingerprint
    (moved / "train" / "cat" / "000.png").rename(moved / "train" / "cat" / "zzz.png")
    assert folder(images).fingerprint != folder(moved).fingerprint


def test_the_cache_is_plain_files(images):
    info = prepare(folder(images))
    (place,) = cache_root().glob(f"imagefolder-{info.fingerprint}-v{VERSION}")
    assert json.loads((place / "info.json").read_text())["classes"] == ["cat", "dog"]
    assert np.load(place / "train_images.npy").shape == (80, 16, 16, 3)


def digest(place: Path) -> str:
    arrays = {path.name: np.load(path) for path in sorted(place.glob("*.npy"))}
    text = "".join(f"{name} {array.dtype} {array.shape} {array.tobytes().hex()}" for name, array in arrays.items())
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@pytest.mark.parametrize(("name", "expected"), [("digits", "65a0790299e2c75f"), ("images", "19966bd9818fc395")])
def test_what_is_decoded_is_golden_so_that_a_change_brings_a_new_version(name, expected, images):
    """Where this fails, decoding or the cut of validation has changed: raise VERSION with the digests."""
    info = prepare(source("digits") if name == "digits" else folder(images, image_size=8))
    assert VERSION == 2
    assert digest(cache_root() / f"{info.name.partition(':')[0]}-{info.fingerprint}-v{VERSION}") == expected


def test_statistics_are_the_training_images(images):
    info = prepare(folder(images))
    pixels = np.stack([np.asarray(Image.open(path)) for path in sorted((images / "train").rglob("*.png"))]) / 255
    np.testing.assert_allclose(info.mean, pixels.mean(axis=(0, 1, 2)), rtol=1e-9)
    np.testing.assert_allclose(info.std, pixels.std(axis=(0, 1, 2)), rtol=1e-9)


def naive(image: np.ndarray, down: int, right: int, flip: bool) -> np.ndarray:
    """Pad with black, crop, mirror: one image."""
    height, width, _ = image.shape
    padded = np.pad(image, ((height, height), (width, width), (0, 0)))
    crop = padded[height + down : 2 * height + down, width + right : 2 * width + right]
    return crop[:, ::-1] if flip else crop


def test_augmentation_is_what_a_loop_over_images_does():
    rng = np.random.default_rng(0)
    images = rng.integers(1, 256, (12, 5, 7, 3), dtype=np.uint8)
    down, right = rng.integers(-2, 3, (2, 8))
    flip, rows = rng.integers(0, 2, 8).astype(bool), rng.permutation(12)[:8]
    draws = Draws(*(torch.from_numpy(x) for x in (down, right, flip)))
    got = gather(torch.from_numpy(images), torch.from_numpy(rows), draws).numpy()
    expected = np.stack([naive(images[r], d, s, f) for r, d, s, f in zip(rows, down, right, flip, strict=True)])
    np.testing.assert_array_equal(got, expected)


def test_draws_have_the_range_and_the_shares_that_their_kind_says():
    n = 20_000
    crop = draw("crop_flip", n, image_side=32, generator=keyed_generator(0, "a"))
    assert sorted(crop.down.unique().tolist()) == list(range(-4, 5))
    assert abs(crop.flip.float().mean() - 0.5) < 0.02
    shift = draw("shift", n, image_side=8, generator=keyed_generator(0, "a"))
    assert not shift.flip.any()
    still = ((shift.down == 0) & (shift.right == 0)).float().mean()
    assert abs(still - (0.5 + 0.5 / 9)) < 0.02
    none = draw("none", n, image_side=8, generator=keyed_generator(0, "a"))
    assert not none.tobytes().strip(b"\0")
    with pytest.raises(ValueError, match="augment=cutmix: must be crop_flip"):
        draw("cutmix", 1, image_side=8, generator=keyed_generator(0, "a"))


def test_an_epoch_shows_each_image_once_and_another_epoch_another_order():
    info = prepare(source("digits"))
    split = load_splits(info, train_limit=130, device=CPU)["train"]
    batches = TrainBatches(
        split,
        scale=Scale(info.mean, info.std, device=CPU),
        batch_size=13,
        augmentation=Augmentation(augment="none"),
        seed=0,
    )
    batches.set_epoch(0)
    assert len(batches) == len(list(batches)) == 10
    seen = []
    for epoch in range(2):
        batches.set_epoch(epoch)
        seen.append(torch.cat([labels for _, labels in batches]))
    assert torch.equal(seen[0].sort().values, split.labels.sort().values)
    assert not torch.equal(seen[0], seen[1])


def test_evaluation_sees_every_image_normalised():
    info = prepare(source("digits"))
    split = load_splits(info, train_limit=None, device=CPU)["train"]
    batches = EvalBatches(split, scale=Scale(info.mean, info.std, device=CPU))
    images = torch.cat([batch for batch, _ in batches])
    assert len(list(batches)) == 3
    expected = (split.images[split.rows].permute(0, 3, 1, 2) / 255 - info.mean[0]) / info.std[0]
    torch.testing.assert_close(images, expected, atol=1e-5, rtol=0)
    assert torch.equal(torch.cat([labels for _, labels in batches]), split.labels)


def test_damaged_digests_are_said_and_made_anew(images, cache, caplog):
    before = folder(images).fingerprint
    for kept in (cache / "digests").glob("*.npz"):
        kept.unlink()
    source_ = folder(images)
    place = cache / "digests" / f"{hashlib.sha256(os.fsencode(images.resolve())).hexdigest()[:16]}.npz"
    place.parent.mkdir(exist_ok=True)
    place.write_bytes(b"PK\x03\x04 cut off")
    assert source_.fingerprint == before
    assert f"{place} cannot be read, so every image is read again" in caplog.text
