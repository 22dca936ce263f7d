"""Cache of decoded data sets: written once per machine, atomically, and memory-mapped.

A data set is one folder, ``<kind>-<fingerprint>-v<version>/``. It holds ``<part>_images.npy`` (n, height, width,
channels) and ``<part>_labels.npy`` for each part, ``val_rows.npy`` if validation is cut from train, and ``info.json``.
The folder of a streamed data set ends in ``-streamed`` and holds file lists instead of images.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ablations.config import UsageError
from ablations.config.options import InMemory
from ablations.data.info import DataInfo
from ablations.data.location import data_folder, filled
from ablations.data.placement import place
from ablations.data.sources import Source
from ablations.data.splits import VAL_ROWS
from ablations.data.streams import SPLIT_SEED
from ablations.data.tree import SAMPLE_IMAGES, ImageTree

VAL_SHARE = 0.1
"""Share of train that is cut off for validation if the data set has no validation split."""

IMAGENET_MEAN, IMAGENET_STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
"""Statistics of ImageNet-1k's training images, as in torchvision 0.29 (``transforms/_presets.py``)."""


def prepare(source: Source, *, in_memory: InMemory = "auto") -> DataInfo:
    """Decode a data set into the cache, or list its files there for streaming, and return its description.

    Existing cache entries are reused.

    Args:
        source: data set.
        in_memory: ``on``: decode; ``off``: stream; ``auto``: decode if the images take at most `IN_MEMORY_BYTES`.

    Raises:
        UsageError: unreadable file, unwritable cache folder, or data that cannot be streamed; nothing is left behind.
    """
    streamed, why = place(source, in_memory)
    if isinstance(source, ImageTree) and streamed:
        source = replace(source, by_contents=False)  # hashing contents would read every image
    folder = data_folder(source.name, source.fingerprint, streamed=streamed)
    if not (folder / "info.json").exists():
        _write(folder, source, streamed=streamed)
    info = DataInfo.load(folder)
    # The entry may be that of another folder with the same images; name and notes are of this one.
    root = str(source.root.resolve()) if isinstance(source, ImageTree) and streamed else ""
    return replace(info, name=source.name, notes=[*source.notes, *info.notes], placement=why, root=root)


def _write(folder: Path, source: Source, *, streamed: bool) -> None:
    decoded = None if streamed else source.decode()
    with filled(folder) as scratch:
        if decoded is None:
            assert isinstance(source, ImageTree)
            for part, files in source.parts.items():
                files.save(scratch, part)
            counts = _cut(scratch, {part: files.labels for part, files in source.parts.items()})
            classes, image_shape = source.classes, (*source.image_side, 3)
            mean, std, notes = _estimate_statistics(source)
        else:
            for part, (images, own) in decoded.parts.items():
                np.save(scratch / f"{part}_images.npy", images)
                np.save(scratch / f"{part}_labels.npy", own)
            counts = _cut(scratch, {part: own for part, (_, own) in decoded.parts.items()})
            classes, image_shape = decoded.classes, decoded.parts["train"][0].shape[1:]
            mean, std = _statistics(decoded.parts["train"][0])
            notes = decoded.notes
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
            notes=notes,
            streamed=streamed,
        ).save(scratch)


def _estimate_statistics(tree: ImageTree) -> tuple[list[float], list[float], list[str]]:
    """Return mean and standard deviation of each channel without reading every image, and a note on their origin."""
    if tree.kind == "imagenet":
        mean, std, origin = IMAGENET_MEAN, IMAGENET_STD, "ImageNet's published values"
    else:
        sample = tree.sample()
        mean, std = _statistics(sample)
        origin = f"from {len(sample):,} training images, drawn once" if len(sample) == SAMPLE_IMAGES else "from train"
    return mean, std, [f"mean and standard deviation: {origin}"]


def _cut(scratch: Path, labels: Mapping[str, npt.NDArray[np.int64]]) -> dict[str, int]:
    """Cut validation from train if the data set has none; return the number of images in each split."""
    counts = {part: len(own) for part, own in labels.items()}
    if "val" in counts:
        return counts
    val_rows = _cut_validation(labels["train"])
    np.save(scratch / VAL_ROWS, val_rows)
    return {**counts, "train": counts["train"] - len(val_rows), "val": len(val_rows)}


def _cut_validation(labels: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    from sklearn.model_selection import train_test_split

    try:
        _, val = train_test_split(np.arange(len(labels)), test_size=VAL_SHARE, random_state=SPLIT_SEED, stratify=labels)
    except ValueError as error:
        raise UsageError(f"train is too small to cut off {VAL_SHARE:.0%} for validation: {error}") from error
    return np.sort(val)


def _statistics(images: npt.NDArray[np.uint8]) -> tuple[list[float], list[float]]:
    """Compute the mean and standard deviation of each channel of images (n, height, width, channels), of 0 to 1."""
    counts = np.stack([np.bincount(images[..., c].ravel(), minlength=256) for c in range(images.shape[3])])
    levels, weights = np.arange(256) / 255, counts / counts.sum(axis=1, keepdims=True)
    mean = weights @ levels
    std = np.sqrt((weights * (levels - mean[:, None]) ** 2).sum(axis=1))
    return mean.tolist(), std.tolist()
