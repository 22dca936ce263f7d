"""Data sets of objects: where they lie, and how they are read into the cache."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from ablations.config import UsageError
from ablations.data.info import DataInfo
from ablations.data.location import data_folder, filled
from ablations.data.objects.annotations import Annotations, Ints
from ablations.data.objects.coco import notes_on, read_coco
from ablations.data.objects.sample import Files, Pictures
from ablations.data.objects.shapes import DrawnShapes, Shapes
from ablations.data.streams import SPLIT_SEED
from ufo.init import keyed_generator

VAL_SHARE, MOST_VAL = 0.1, 5000
"""Share of train that is cut off as validation, and its most images: as many as COCO's own validation has, which is the
test split here."""

VAL_ROWS = "val_rows.npy"

IMAGENET_MEAN, IMAGENET_STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
"""Of ImageNet-1k's training images, which detectors scale by (torchvision 0.29, ``transforms/_presets.py``)."""

PREFIX = "instances_"
"""Of the names of COCO's files of instances."""


class ObjectSource(Protocol):
    """Where images with objects in them lie, and how they are read."""

    @property
    def name(self) -> str:
        """As configurations and tables have it, without a path."""

    @property
    def fingerprint(self) -> str:
        """Hash of what the files hold: another one is another data set."""

    @property
    def root(self) -> str:
        """Folder of the images; empty where they are drawn."""

    def read(self) -> dict[str, Annotations]:
        """Return ``train`` and ``test``, and ``val`` where there is one.

        Raises:
            UsageError: a record that makes no sense, by its name.
        """


class Coco:
    """COCO in its own layout: ``annotations/instances_train*.json`` and ``..._val*.json``, and folders of their images.

    Its validation images are the test split, as everybody reports them; validation is cut from train.

    Args:
        folder: of the data set.

    Raises:
        UsageError: a file or a folder that is not there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files = {part: self._find(name) for part, name in (("train", "train"), ("test", "val"))}

    @property
    def name(self) -> str:
        """Kind and the folder's name."""
        return f"coco:{self.folder.resolve().name}"

    @property
    def root(self) -> str:
        """The folder."""
        return str(self.folder.resolve())

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the annotation files, and of names and sizes of the images."""
        digest = hashlib.sha256()
        for path in self.files.values():
            try:
                digest.update(path.read_bytes())
                images = sorted((entry.name, entry.stat().st_size) for entry in os.scandir(self.images_of(path)))
            except OSError as error:
                raise UsageError(f"{path} cannot be read: {error}") from error
            digest.update(repr(images).encode())
        return digest.hexdigest()[:16]

    def images_of(self, path: Path) -> Path:
        """Return the folder of an annotation file's images."""
        return self.folder / path.stem.removeprefix(PREFIX)

    def read(self) -> dict[str, Annotations]:
        """Read both files."""
        parts = {part: read_coco(path, folder=self.images_of(path)) for part, path in self.files.items()}
        train, test = (parts[part].category_ids.tolist() for part in ("train", "test"))
        if train != test:
            raise UsageError(f"{self.files['test'].name} has other categories than {self.files['train'].name}")
        return parts

    def _find(self, name: str) -> Path:
        folder = self.folder / "annotations"
        found = sorted(folder.glob(f"{PREFIX}{name}*.json"))
        if len(found) != 1:
            what = "no" if not found else f"{len(found)} files"
            raise UsageError(f"--data coco:{self.folder}: {what} {PREFIX}{name}*.json in {folder}; one is needed")
        if not self.images_of(found[0]).is_dir():
            raise UsageError(f"--data coco:{self.folder}: no folder {self.images_of(found[0])}, of {found[0].name}")
        return found[0]


def prepare_objects(source: ObjectSource) -> DataInfo:
    """Read a data set's annotations into the cache, unless they are there, and return what is known of it.

    Raises:
        UsageError: a record that makes no sense, or a cache that cannot be written; nothing is left behind.
    """
    folder = data_folder(source.name, source.fingerprint, streamed=True)
    if not (folder / "info.json").exists():
        _write(folder, source)
    info = json.loads((folder / "info.json").read_text())
    return DataInfo(**{**info, "name": source.name, "root": source.root, "image_shape": tuple(info["image_shape"])})


def _write(folder: Path, source: ObjectSource) -> None:
    parts = source.read()
    with filled(folder) as scratch:
        for part, annotations in parts.items():
            annotations.save(scratch / f"{part}.npz")
        counts = {part: len(annotations) for part, annotations in parts.items()}
        for part, annotations in parts.items():
            _check_objects(annotations, np.arange(counts[part]), f"{source.name}: {part}")
        if "val" not in counts:
            rows = _cut(counts["train"])
            _check_objects(parts["train"], rows, f"{source.name}: what is cut off train for validation")
            np.save(scratch / VAL_ROWS, rows)
            counts |= {"val": len(rows), "train": counts["train"] - len(rows)}
        train = parts["train"]
        is_drawn = not source.root
        info = DataInfo(
            name=source.name,
            fingerprint=source.fingerprint,
            classes=train.classes,
            image_shape=(int(np.median(train.heights)), int(np.median(train.widths)), 3),
            num_train=counts["train"],
            num_val=counts["val"],
            num_test=counts["test"],
            mean=[0.5] * 3 if is_drawn else IMAGENET_MEAN,
            std=[0.25] * 3 if is_drawn else IMAGENET_STD,
            flips=True,
            notes=[note for part, annotations in parts.items() for note in notes_on(annotations, part)],
            streamed=True,
            task="detect",
        )
        (scratch / "info.json").write_text(json.dumps(asdict(info), indent=1))


def _check_objects(annotations: Annotations, rows: Ints, where: str) -> None:
    """Refuse images in which there is nothing to be found, and so nothing to be scored by."""
    numbers = [number for row in rows for number in annotations.objects(int(row))]
    if annotations.is_crowd[numbers].all():
        raise UsageError(f"{where} has no objects but crowds in {len(rows):,} images")


def _cut(num_images: int) -> Ints:
    """Draw the rows of train that are validation, in their order."""
    count = min(MOST_VAL, round(VAL_SHARE * num_images))
    if not 0 < count < num_images:
        raise UsageError(f"train has {num_images} images, too few to cut {VAL_SHARE:.0%} off for validation")
    order = torch.randperm(num_images, generator=keyed_generator(SPLIT_SEED, "val_rows"))
    rows: Ints = order[:count].sort().values.numpy()
    return rows


def split_objects(
    info: DataInfo, *, train_limit: int | None, with_test: bool
) -> dict[str, tuple[Annotations, Pictures, Ints]]:
    """Return annotations, images and rows of ``train``, ``val`` and ``test``.

    Args:
        info: of a data set that has been prepared.
        train_limit: number of training images, drawn with the split's own seed; a smaller subset lies in a larger.
        with_test: whether ``test`` is one of them; else no file of it is opened.

    Raises:
        UsageError: more training images are asked for than there are.
    """
    folder = data_folder(info.name, info.fingerprint, streamed=True)
    held = {"train": Annotations.load(folder / "train.npz")}
    if (folder / VAL_ROWS).exists():
        val = np.load(folder / VAL_ROWS)
        train = np.setdiff1d(np.arange(len(held["train"])), val)
        parts = {"train": ("train", train), "val": ("train", val)}
    else:
        held["val"] = Annotations.load(folder / "val.npz")
        parts = {"train": ("train", np.arange(info.num_train)), "val": ("val", np.arange(info.num_val))}
    if train_limit is not None:
        if train_limit > info.num_train:
            raise UsageError(f"train_limit {train_limit} exceeds the {info.num_train} training images of {info.name}")
        order = torch.randperm(info.num_train, generator=keyed_generator(SPLIT_SEED, "train_limit")).numpy()
        parts["train"] = "train", parts["train"][1][np.sort(order[:train_limit])]
    if with_test:
        held["test"] = Annotations.load(folder / "test.npz")
        parts["test"] = "test", np.arange(info.num_test)
    pictures = {part: _pictures(info, part, annotations) for part, annotations in held.items()}
    return {split: (held[part], pictures[part], rows) for split, (part, rows) in parts.items()}


def _pictures(info: DataInfo, part: str, annotations: Annotations) -> Pictures:
    if not info.root:
        return DrawnShapes(Shapes(info.image_shape[0]), part)
    file = Coco(Path(info.root)).files[part]
    return Files(Path(info.root) / file.stem.removeprefix(PREFIX), annotations)
