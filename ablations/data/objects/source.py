"""Detection data sets: their location, and how they are read into the cache."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from ablations.config import UsageError
from ablations.config.paths import real_path
from ablations.data.cache import IMAGENET_MEAN, IMAGENET_STD, VAL_SHARE
from ablations.data.cached_files import DamagedFile, load_array
from ablations.data.entry import INFO, open_entry
from ablations.data.files import is_clutter
from ablations.data.info import DataInfo
from ablations.data.leaks import Splits, assign, equal_files
from ablations.data.location import data_folder
from ablations.data.objects.annotations import Annotations, Ints
from ablations.data.objects.coco import notes_on, read_coco
from ablations.data.objects.outlined import OUTLINED, check_outlines, count_outlined, load_outlined
from ablations.data.objects.values import count_text
from ablations.data.part_folders import SPELLINGS
from ablations.data.splits import VAL_ROWS
from ablations.data.streams import SPLIT_SEED
from ufo.init import keyed_generator

MAX_VAL = 5000
"""Largest number of validation images cut from train: that of COCO's own validation split, which is the test split."""

PREFIX = "instances_"
"""Prefix of the names of COCO's instance files."""

OTHER_LAYOUTS = ("*/_annotations.coco.json", f"annotations/{PREFIX}*.json")
"""Annotation files as Roboflow and CVAT write them."""

LIKE = {"train": (*SPELLINGS["train"], "default"), "val": (*SPELLINGS["val"], *SPELLINGS["test"])}
"""First words of the names that a part has in other layouts."""


class ObjectSource(Protocol):
    """Location and reader of images with objects."""

    @property
    def name(self) -> str:
        """Name in configurations and tables, without a path."""

    @property
    def fingerprint(self) -> str:
        """Hash of the files' contents, which identifies the data set."""

    @property
    def root(self) -> str:
        """Folder of the images; empty if they are drawn."""

    def file_of(self, part: str) -> str:
        """Return the name of the file that has a part's annotations."""

    def read(self, notes: list[str]) -> dict[str, Annotations]:
        """Return ``train``, ``test`` and, if the data set has one, ``val``.

        Args:
            notes: list that receives a line for each kind of value that is odd but taken.

        Raises:
            UsageError: invalid record; the message has its name.
        """


class Coco:
    """COCO in its own layout: ``annotations/instances_train*.json`` and ``..._val*.json``, and folders of their images.

    Its validation images are the test split, as in published results; validation is cut from train.

    Args:
        folder: folder of the data set.

    Raises:
        UsageError: missing file or folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files = {part: self._find(name) for part, name in (("train", "train"), ("test", "val"))}

    @property
    def name(self) -> str:
        """Kind and name of the folder."""
        return f"coco:{real_path(self.folder).name}"

    @property
    def root(self) -> str:
        """Absolute path of the folder."""
        return str(real_path(self.folder))

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the annotation files, and of the names and sizes of the images.

        A folder within that of the images counts by its files only if it has the same name (`find_image`). What
        systems and editors leave there does not count (`is_clutter`).
        """
        digest = hashlib.sha256()
        for path in self.files.values():
            try:
                digest.update(path.read_bytes())
                images = sorted(_sizes(self.images_of(path)))
            except OSError as error:
                raise UsageError(f"{path} cannot be read: {error}") from error
            digest.update(repr(images).encode())
        return digest.hexdigest()[:16]

    def images_of(self, path: Path) -> Path:
        """Return the folder of an annotation file's images."""
        return self.folder / path.stem.removeprefix(PREFIX)

    def read(self, notes: list[str]) -> dict[str, Annotations]:
        """Read both annotation files."""
        parts = {part: read_coco(path, folder=self.images_of(path), notes=notes) for part, path in self.files.items()}
        train, test = (_categories(parts[part]) for part in ("train", "test"))
        if differing := sorted(train.items() ^ test.items()):
            number = differing[0][0]
            names = [f"{number} {own[number]!r}" if number in own else f"no {number}" for own in (train, test)]
            raise UsageError(
                f"{self.file_of('test')} and {self.file_of('train')} have different categories, {names[1]} and "
                f"{names[0]}; must be the same ids and names"
            )
        return parts

    def file_of(self, part: str) -> str:
        """Return the name of a part's annotation file."""
        return self.files[part].name

    def _find(self, name: str) -> Path:
        folder = self.folder / "annotations"
        found = sorted(folder.glob(f"{PREFIX}{name}*.json"))
        if len(found) != 1:
            what, hint = ("no", _rename(self.folder, name)) if not found else (f"{len(found)} files", "")
            raise UsageError(
                f"--data coco:{self.folder}: {what} {PREFIX}{name}*.json in {folder}; one is required{hint}"
            )
        if not self.images_of(found[0]).is_dir():
            raise UsageError(f"--data coco:{self.folder}: no folder {self.images_of(found[0])} for {found[0].name}")
        return found[0]


def _rename(folder: Path, name: str) -> str:
    """Say how to rename a part's annotation file that lies as Roboflow and CVAT write it; empty if there is none."""
    others = sorted(path.relative_to(folder) for pattern in OTHER_LAYOUTS for path in folder.glob(pattern))
    found = next((path for word in LIKE[name] for path in others if _first_word(path) == word), None)
    if found is None:
        return ""
    return f"; move {found} to annotations/{PREFIX}{name}.json, and rename the folder of its images to {name}/"


def _first_word(path: Path) -> str:
    """Return the first word of the name that a part has in another layout.

    >>> _first_word(Path("Train-v2/_annotations.coco.json")), _first_word(Path("annotations/instances_default.json"))
    ('train', 'default')
    """
    name = path.stem.removeprefix(PREFIX) if path.stem.startswith(PREFIX) else path.parent.name
    return re.split(r"[^a-z]", name.lower(), maxsplit=1)[0]


def _sizes(folder: Path) -> Iterator[tuple[str, int]]:
    """Yield the names and sizes of the files in a folder of images, and in a folder of the same name within it."""
    for entry in _entries(folder):
        if entry.name == folder.name and entry.is_dir():
            yield from ((f"{entry.name}/{inner.name}", inner.stat().st_size) for inner in _entries(entry))
        else:
            yield entry.name, entry.stat().st_size


def _entries(folder: os.PathLike[str]) -> Iterator[os.DirEntry[str]]:
    return (entry for entry in os.scandir(folder) if not is_clutter(entry.name))


def prepare_objects(source: ObjectSource, *, masks: bool = True, with_test: bool = True) -> DataInfo:
    """Read a data set's annotations into the cache, unless they are there and whole, and return its description.

    Args:
        source: data set.
        masks: whether its objects need outlines.

    Raises:
        UsageError: invalid record, object without the outline that it needs, or unwritable cache; nothing is left
            behind.
    """
    folder = data_folder(source.name, source.fingerprint, streamed=True)
    info = open_entry(
        folder, fill=partial(_fill, source=source), examine=partial(_examine, source=source), with_test=with_test
    )
    info = replace(info, name=source.name, root=source.root)
    found = load_outlined(folder)
    if masks:
        check_outlines(found, source.file_of)
        return info
    num_outlined = sum(own["objects"] - own["without"] for own in found.values())
    ignored = [f"masks=off: the outlines of {count_text(num_outlined, 'object')} are not used"] if num_outlined else []
    return replace(info, notes=[*info.notes, *ignored])


def _fill(scratch: Path, *, source: ObjectSource) -> None:
    """Write the files of a data set."""
    notes: list[str] = []
    parts = source.read(notes)
    for part, own in parts.items():
        own.save(scratch / f"{part}.npz")
    for part, own in parts.items():
        _check_objects(own, np.arange(len(own)), f"{source.name}: {part}")
    train, val_rows = parts["train"], None
    if "val" not in parts:
        val_rows = _cut(len(train))
        _check_objects(train, val_rows, f"{source.name}: validation, cut from train,")
        np.save(scratch / VAL_ROWS, val_rows)
    splits = assign({part: len(own) for part, own in parts.items()}, val_rows)
    DataInfo(
        **_describe(source, parts, splits),
        name=source.name,
        notes=[
            *notes,
            *(note for part, own in parts.items() for note in notes_on(own, part)),
            *_leaks(source, parts, splits),
        ],
    ).save(scratch)
    (scratch / OUTLINED).write_text(json.dumps(count_outlined(parts), indent=1))


def _describe(source: ObjectSource, parts: Mapping[str, Annotations], splits: Splits) -> dict[str, Any]:
    """Return the description of a data set by field, without its name and notes."""
    train, is_drawn = parts["train"], not source.root
    counts = {f"num_{split}": len(rows) for split, (_, rows) in splits.items()}
    return {
        "fingerprint": source.fingerprint,
        "classes": train.classes,
        "image_shape": (int(np.median(train.heights)), int(np.median(train.widths)), 3),
        "mean": [0.5] * 3 if is_drawn else IMAGENET_MEAN,
        "std": [0.25] * 3 if is_drawn else IMAGENET_STD,
        "flips": True,
        "streamed": True,
        "task": "detect",
        **counts,
    }


def _examine(folder: Path, info: DataInfo, *, source: ObjectSource) -> list[str]:
    """Check the files of an entry without checksums against its description and its source; return notes on leaks.

    Raises:
        DamagedFile: a description of other data, other rows of validation, or other numbers of outlines.
    """
    val_rows = load_array(folder / VAL_ROWS) if (folder / VAL_ROWS).exists() else None
    names = ["train", "test"] if val_rows is not None else ["train", "val", "test"]
    parts = {part: Annotations.load(folder / f"{part}.npz") for part in names}
    if val_rows is not None and not np.array_equal(val_rows, _cut(len(parts["train"]))):
        raise DamagedFile(folder / VAL_ROWS, "it does not hold the rows that validation has")
    splits = assign({part: len(own) for part, own in parts.items()}, val_rows)
    if differing := info.difference(_describe(source, parts, splits)):
        raise DamagedFile(folder / INFO, differing)
    if load_outlined(folder) != count_outlined(parts):
        raise DamagedFile(folder / OUTLINED, "it does not hold the numbers of outlines that the annotations have")
    return _leaks(source, parts, splits)


@dataclass(frozen=True)
class _Photographs:
    """Image files of a part, as `Files` of `ablations.data.leaks`."""

    folder: Path
    annotations: Annotations

    @cached_property
    def sizes(self) -> Ints:
        paths = (os.path.join(self.folder.parent, self.path(row)) for row in range(len(self.annotations)))  # noqa: PTH118
        try:
            return np.array([os.stat(path).st_size for path in paths])  # noqa: PTH116  # Path objects are slow
        except OSError as error:
            raise UsageError(f"{error.filename} cannot be read: {error.strerror}; repair or remove it") from error

    def path(self, row: int) -> str:
        return f"{self.folder.name}/{self.annotations.names[row]}"


def _leaks(source: ObjectSource, parts: dict[str, Annotations], splits: Splits) -> list[str]:
    """Return notes on photographs that splits share."""
    if not isinstance(source, Coco):
        return []  # drawn, each from its own noise
    files = {part: _Photographs(source.images_of(source.files[part]), own) for part, own in parts.items()}
    return equal_files(source.folder, files, splits)


def _categories(annotations: Annotations) -> dict[int, str]:
    return dict(zip(annotations.category_ids.tolist(), annotations.classes, strict=True))


def _check_objects(annotations: Annotations, rows: Ints, where: str) -> None:
    """Reject images without objects, since they cannot be scored."""
    if not annotations.has_objects(rows):
        raise UsageError(f"{where} has no objects except crowds in {len(rows):,} images")


def _cut(num_images: int) -> Ints:
    """Draw the rows of train that are validation, sorted."""
    count = min(MAX_VAL, round(VAL_SHARE * num_images))
    if not 0 < count < num_images:
        raise UsageError(f"train has {num_images} images, too few to cut off {VAL_SHARE:.0%} for validation")
    order = torch.randperm(num_images, generator=keyed_generator(SPLIT_SEED, "val_rows"))
    return order[:count].sort().values.numpy()
