"""The cache of decoded data: once per machine, memory-mapped, written whole or not at all.

A data set is one folder, ``<kind>-<fingerprint>-v<version>/``: for each part ``<part>_images.npy`` (n, height, width,
channels) and ``<part>_labels.npy``; ``val_rows.npy`` where validation is cut from train; and ``info.json``.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from ablations.data.batches import Split
from ablations.data.sources import Decoded, Part, Source
from ablations.streams import SPLIT_SEED
from ablations.study import UsageError
from ufo.init import keyed_generator

VERSION = 1
"""Of decoding and of the cut of validation: another one decodes anew. It does not enter a cell's id, since a change
makes every finished cell stale."""

VAL_SHARE = 0.1
"""Share of train that is cut off as validation where the data set has none of its own."""


@dataclass(frozen=True)
class DataInfo:
    """What is known of a data set once it is decoded.

    Args:
        name: as configurations have it, without a path.
        fingerprint: of the files.
        classes: class names, by label.
        image_shape: height, width, channels.
        num_train: training images, validation cut off.
        num_val: validation images.
        num_test: test images.
        mean: of each channel over train, of 0 to 1.
        std: of each channel over train.
        flips: whether a mirrored image still shows the same class.
        notes: what a user should know of how it was read.
    """

    name: str
    fingerprint: str
    classes: list[str]
    image_shape: tuple[int, int, int]
    num_train: int
    num_val: int
    num_test: int
    mean: list[float]
    std: list[float]
    flips: bool
    notes: list[str]

    @property
    def chance_pct(self) -> float:
        """Accuracy of guessing, in per cent."""
        return 100 / len(self.classes)


def cache_root() -> Path:
    """Return the folder of decoded data: ``ABLATIONS_CACHE``, or ``ablations`` in the user's cache folder."""
    if folder := os.environ.get("ABLATIONS_CACHE"):
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ablations"


def cached(fingerprint: str) -> list[Path]:
    """Return the folders of a data set's decoded data."""
    return sorted(cache_root().glob(f"*-{fingerprint}-v*"))


def prepare(source: Source) -> DataInfo:
    """Decode a data set into the cache unless it is there, and return what is known of it.

    Raises:
        UsageError: a file that cannot be read, or a cache folder that cannot be written; nothing is left behind.
    """
    folder = _folder(source.name, source.fingerprint)
    if not (folder / "info.json").exists():
        _write(folder, source)
    info = json.loads((folder / "info.json").read_text())
    # The same images may lie in a folder of another name, beside other files.
    own = {"name": source.name, "notes": [*source.notes, *info["notes"]]}
    return DataInfo(**{**info, **own, "image_shape": tuple(info["image_shape"])})


def load_splits(info: DataInfo, *, train_limit: int | None, device: torch.device) -> dict[str, Split]:
    """Load ``train``, ``val`` and ``test``; memory-mapped on a CPU, moved once to another device.

    Args:
        train_limit: number of training images, drawn with the split's own seed; a smaller subset lies in a larger.

    Raises:
        UsageError: more training images are asked for than there are.
    """
    folder = _folder(info.name, info.fingerprint)
    val_rows = folder / "val_rows.npy"
    rows = {"train": torch.arange(info.num_train), "test": torch.arange(info.num_test)}
    parts = {"train": "train", "val": "val", "test": "test"}
    if val_rows.exists():
        rows["val"] = torch.from_numpy(np.load(val_rows))
        is_train = torch.ones(info.num_train + info.num_val, dtype=torch.bool)
        is_train[rows["val"]] = False
        rows["train"] = is_train.nonzero().flatten()
        parts["val"] = "train"
    else:
        rows["val"] = torch.arange(info.num_val)
    if train_limit is not None:
        if train_limit > info.num_train:
            raise UsageError(f"train_limit {train_limit} exceeds the {info.num_train} training images of {info.name}")
        order = torch.randperm(info.num_train, generator=keyed_generator(SPLIT_SEED, "train_limit"))
        rows["train"] = rows["train"][order[:train_limit].sort().values]
    return {name: _load_split(folder, parts[name], rows[name], device) for name in ("train", "val", "test")}


def split_hash(splits: dict[str, Split]) -> str:
    """Hash which images are in which split."""
    digest = hashlib.sha256()
    for name, split in sorted(splits.items()):
        digest.update(f"{name} {len(split)}".encode())
        digest.update(split.original_rows.numpy().tobytes())
    return digest.hexdigest()[:16]


def _load_split(folder: Path, part: str, rows: torch.Tensor, device: torch.device) -> Split:
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # nothing writes to what is mapped read-only
        images = torch.from_numpy(np.load(folder / f"{part}_images.npy", mmap_mode="r"))
    labels = torch.from_numpy(np.load(folder / f"{part}_labels.npy"))[rows]
    if device.type == "cpu":
        return Split(images=images, labels=labels, rows=rows, original_rows=rows)
    moved = images[rows].to(device)
    return Split(
        images=moved, labels=labels.to(device), rows=torch.arange(len(rows), device=device), original_rows=rows
    )


def _folder(name: str, fingerprint: str) -> Path:
    return cache_root() / f"{name.partition(':')[0]}-{fingerprint}-v{VERSION}"


def _write(folder: Path, source: Source) -> None:
    decoded = source.decode()
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=".partial-", dir=folder.parent))
    except OSError as error:
        raise UsageError(f"the cache {folder.parent} cannot be written: {error}; set ABLATIONS_CACHE") from error
    try:
        for name, (images, labels) in decoded.parts.items():
            np.save(scratch / f"{name}_images.npy", images)
            np.save(scratch / f"{name}_labels.npy", labels)
        val_rows = None if "val" in decoded.parts else _cut_validation(decoded.parts["train"])
        if val_rows is not None:
            np.save(scratch / "val_rows.npy", val_rows)
        info = _describe(source, decoded, num_cut=0 if val_rows is None else len(val_rows))
        (scratch / "info.json").write_text(json.dumps(asdict(info), indent=1))
        scratch.rename(folder)
    except OSError as error:
        if not (folder / "info.json").exists():  # else another process wrote the same data first
            raise UsageError(f"the cache {folder} cannot be written: {error}; set ABLATIONS_CACHE") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _cut_validation(train: Part) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    from sklearn.model_selection import train_test_split

    labels = train[1]
    try:
        _, val = train_test_split(np.arange(len(labels)), test_size=VAL_SHARE, random_state=SPLIT_SEED, stratify=labels)
    except ValueError as error:
        raise UsageError(f"train is too small to cut {VAL_SHARE:.0%} off for validation: {error}") from error
    return np.sort(val)


def _describe(source: Source, decoded: Decoded, *, num_cut: int) -> DataInfo:
    images = decoded.parts["train"][0]
    counts = np.stack([np.bincount(images[..., c].ravel(), minlength=256) for c in range(images.shape[3])])
    levels, weights = np.arange(256) / 255, counts / counts.sum(axis=1, keepdims=True)
    mean = weights @ levels
    std = np.sqrt((weights * (levels - mean[:, None]) ** 2).sum(axis=1))
    return DataInfo(
        name=source.name,
        fingerprint=source.fingerprint,
        classes=decoded.classes,
        image_shape=(images.shape[1], images.shape[2], images.shape[3]),
        num_train=len(images) - num_cut,
        num_val=num_cut or len(decoded.parts["val"][0]),
        num_test=len(decoded.parts["test"][0]),
        mean=mean.tolist(),
        std=std.tolist(),
        flips=source.flips,
        notes=decoded.notes,
    )
