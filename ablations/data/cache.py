"""Cache of decoded data sets: written once per machine, atomically, and memory-mapped.

A data set is one folder, ``<kind>-<fingerprint>-v<version>/``. It holds ``<part>_images.npy`` (n, height, width,
channels) and ``<part>_labels.npy`` for each part, ``val_rows.npy`` if validation is cut from train, ``info.json``, and
``checksums.json`` of them all. The folder of a streamed data set ends in ``-streamed`` and holds file lists instead of
images.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ablations.config import UsageError
from ablations.config.options import InMemory
from ablations.config.paths import real_path
from ablations.data.cached_files import DamagedFile, load_array
from ablations.data.entry import INFO, open_entry
from ablations.data.files import FileList, shown
from ablations.data.info import DataInfo
from ablations.data.leaks import Splits, assign, equal_files, equal_pixels
from ablations.data.location import data_folder
from ablations.data.placement import place
from ablations.data.sources import Source
from ablations.data.splits import VAL_ROWS
from ablations.data.streams import SPLIT_SEED
from ablations.data.tree import SAMPLE_IMAGES, ImageTree

VAL_SHARE = 0.1
"""Share of train that is cut off for validation if the data set has no validation split."""

BLOCK_IMAGES = 1024
"""Number of images whose pixels are counted at once, which takes 8 bytes a pixel."""

IMAGENET_MEAN, IMAGENET_STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
"""Statistics of ImageNet-1k's training images, as in torchvision 0.29 (``transforms/_presets.py``)."""


def prepare(source: Source, *, in_memory: InMemory = "auto", with_test: bool = True) -> DataInfo:
    """Decode a data set into the cache, or list its files there for streaming, and return its description.

    Existing cache entries are reused if their checksums are right, and made again otherwise.

    Args:
        source: data set.
        in_memory: ``on``: decode; ``off``: stream; ``auto``: decode if the images take at most `IN_MEMORY_BYTES`.
        with_test: whether the checksums of the test split are checked. Its files are opened anyway if the data are
            decoded or listed now, and once if an earlier version has done so without checksums.

    Raises:
        UsageError: unreadable file, unwritable cache folder, or data that cannot be streamed; nothing is left behind.
    """
    streamed, why = place(source, in_memory)
    if isinstance(source, ImageTree) and streamed:
        source = replace(source, by_contents=False)  # hashing contents would read every image
    folder = data_folder(source.name, source.fingerprint, streamed=streamed)
    info = open_entry(
        folder,
        fill=partial(_fill, source=source, streamed=streamed),
        examine=partial(_examine, source=source, streamed=streamed),
        with_test=with_test,
    )
    # The entry may be that of another folder with the same images; name and notes are of this one.
    root = str(real_path(source.root)) if isinstance(source, ImageTree) and streamed else ""
    return replace(info, name=source.name, notes=[*source.notes, *info.notes], placement=why, root=root)


def _fill(scratch: Path, *, source: Source, streamed: bool) -> None:
    """Write the files of a data set."""
    if streamed:
        assert isinstance(source, ImageTree)
        for part, files in source.parts.items():
            files.save(scratch, part)
        labels = {part: files.labels for part, files in source.parts.items()}
        classes, image_shape = source.classes, (*source.image_side, 3)
        mean, std, notes = _estimate_statistics(source)
        images = None
    else:
        decoded = source.decode()
        images = {part: own for part, (own, _) in decoded.parts.items()}
        labels = {part: own for part, (_, own) in decoded.parts.items()}
        for part in decoded.parts:
            np.save(scratch / f"{part}_images.npy", images[part])
            np.save(scratch / f"{part}_labels.npy", labels[part])
        classes, image_shape = decoded.classes, decoded.parts["train"][0].shape[1:]
        mean, std = _statistics(decoded.parts["train"][0])
        notes = decoded.notes
    val_rows = None if "val" in labels else _cut_validation(labels["train"], classes)
    if val_rows is not None:
        np.save(scratch / VAL_ROWS, val_rows)
    splits = assign({part: len(own) for part, own in labels.items()}, val_rows)
    counts = {split: len(rows) for split, (_, rows) in splits.items()}
    DataInfo(
        name=source.name,
        fingerprint=source.fingerprint,
        classes=classes,
        image_shape=image_shape,
        num_train=counts["train"],
        num_val=counts["val"],
        num_test=counts["test"],
        mean=mean,
        std=std,
        flips=source.flips,
        notes=[*notes, *_leaks(source, images, splits)],
        streamed=streamed,
    ).save(scratch)


def _leaks(source: Source, images: Mapping[str, npt.NDArray[np.uint8]] | None, splits: Splits) -> list[str]:
    """Return notes on images that splits share: of the pixels as cached, or else of the files."""
    if images is None:
        assert isinstance(source, ImageTree)
        return equal_files(source.root, source.parts, splits)

    def name(part: str, row: int) -> str:
        return shown(source.parts[part].path(row)) if isinstance(source, ImageTree) else f"{part}[{row}]"

    return equal_pixels(images, splits, name=name)


def _examine(folder: Path, info: DataInfo, *, source: Source, streamed: bool) -> list[str]:
    """Check the files of an entry without checksums against its description and its source; return notes on leaks.

    Raises:
        DamagedFile: a description of other data, an array of another shape, or with other values as far as they are
            known.
    """
    known = {"fingerprint": source.fingerprint, "task": "classify", "streamed": streamed, "flips": source.flips}
    if isinstance(source, ImageTree):
        known["classes"] = source.classes
    _compare(folder, info, known)
    val_rows = load_array(folder / VAL_ROWS) if (folder / VAL_ROWS).exists() else None
    parts = ["train", "test"] if val_rows is not None else ["train", "val", "test"]
    labels = {part: load_array(folder / f"{part}_labels.npy") for part in parts}
    for part, own in labels.items():
        if own.ndim != 1 or own.dtype != np.int64 or not ((own >= 0) & (own < len(info.classes))).all():
            raise DamagedFile(folder / f"{part}_labels.npy", f"it does not hold labels of {len(info.classes)} classes")
    if val_rows is not None and not np.array_equal(val_rows, _cut_validation(labels["train"], info.classes)):
        raise DamagedFile(folder / VAL_ROWS, "it does not hold the rows that validation has")
    splits = assign({part: len(own) for part, own in labels.items()}, val_rows)
    if [len(rows) for _, rows in splits.values()] != [info.num_train, info.num_val, info.num_test]:
        raise DamagedFile(folder / INFO, "its numbers of images are not those of the labels")
    if (num := len(np.unique(labels["train"]))) != len(info.classes):
        raise DamagedFile(folder / INFO, f"it has {len(info.classes)} classes, and train has images of {num}")
    if not streamed:
        images = {part: load_array(folder / f"{part}_images.npy", mapped=True) for part in parts}
        for part, array in images.items():
            if array.dtype != np.uint8 or array.shape != (len(labels[part]), *info.image_shape):
                raise DamagedFile(folder / f"{part}_images.npy", f"it holds {array.dtype} {array.shape}")
        _compare(folder, info, dict(zip(("mean", "std"), _statistics(images["train"]), strict=True)))
        return _leaks(source, images, splits)
    assert isinstance(source, ImageTree)
    for part, files in source.parts.items():
        if column := files.difference(FileList.load(folder, part)):
            raise DamagedFile(folder / f"{part}_{column}.npy", "it is not that of the folder's files")
    mean, std, _ = _estimate_statistics(source)
    _compare(folder, info, {"image_shape": (*source.image_side, 3), "mean": mean, "std": std})
    return _leaks(source, None, splits)


def _compare(folder: Path, info: DataInfo, known: Mapping[str, object]) -> None:
    if differing := info.difference(known):
        raise DamagedFile(folder / INFO, differing)


def _estimate_statistics(tree: ImageTree) -> tuple[list[float], list[float], list[str]]:
    """Return mean and standard deviation of each channel without reading every image, and a note on their origin."""
    warned: list[str] = []
    if tree.kind == "imagenet":
        mean, std, origin = IMAGENET_MEAN, IMAGENET_STD, "ImageNet's published values"
    else:
        sample = tree.sample(warned)
        mean, std = _statistics(sample)
        origin = f"from {len(sample):,} training images, drawn once" if len(sample) == SAMPLE_IMAGES else "from train"
    return mean, std, [f"mean and standard deviation: {origin}", *warned]


def _cut_validation(labels: npt.NDArray[np.int64], classes: list[str]) -> npt.NDArray[np.int64]:
    from sklearn.model_selection import train_test_split

    try:
        _, val = train_test_split(np.arange(len(labels)), test_size=VAL_SHARE, random_state=SPLIT_SEED, stratify=labels)
    except ValueError as error:
        counts = np.bincount(labels, minlength=len(classes))
        fewest = int(counts.argmin())
        raise UsageError(
            f"train is too small to cut off {VAL_SHARE:.0%} for validation: it has {len(labels):,} images of "
            f"{len(classes):,} classes, {counts[fewest]} of '{classes[fewest]}'; it needs at least two images of each "
            f"class, and {round(1 / VAL_SHARE)} times as many images as classes; or give both val/ and test/"
        ) from error
    return np.sort(val)


def _statistics(images: npt.NDArray[np.uint8]) -> tuple[list[float], list[float]]:
    """Compute the mean and standard deviation of each channel of images (n, height, width, channels), of 0 to 1."""
    counts = np.zeros((images.shape[3], 256), dtype=np.int64)
    for start in range(0, len(images), BLOCK_IMAGES):
        for c, own in enumerate(counts):
            own += np.bincount(images[start : start + BLOCK_IMAGES, ..., c].ravel(), minlength=256)
    levels, weights = np.arange(256) / 255, counts / counts.sum(axis=1, keepdims=True)
    mean = weights @ levels
    std = np.sqrt((weights * (levels - mean[:, None]) ** 2).sum(axis=1))
    return mean.tolist(), std.tolist()
