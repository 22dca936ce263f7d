"""Which rows of a data set's parts are train, val and test, in memory and streamed alike."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ablations.config import UsageError
from ablations.data.batches import Split
from ablations.data.info import DataInfo
from ablations.data.location import data_folder
from ablations.data.streams import SPLIT_SEED
from ufo.init import keyed_generator

VAL_ROWS = "val_rows.npy"
"""File of the rows of train that are validation, where the data set has none of its own."""


@dataclass(frozen=True)
class Rows:
    """The samples of a split.

    Args:
        part: of the data set, whose rows they are.
        rows: (n,) in the part.
        labels: (n,) of them.
    """

    part: str
    rows: Tensor
    labels: Tensor


def find_rows(info: DataInfo, *, train_limit: int | None, with_test: bool = True) -> dict[str, Rows]:
    """Return the samples of ``train``, ``val`` and ``test``.

    Args:
        info: of a prepared data set.
        train_limit: number of training images, drawn with the split's own seed; a smaller subset lies in a larger.
        with_test: whether ``test`` is one of them; else no file of it is opened.

    Raises:
        UsageError: more training images are asked for than there are.
    """
    folder = data_folder(info.name, info.fingerprint, streamed=info.streamed)
    rows, parts = {"train": torch.arange(info.num_train)}, {"train": "train", "val": "val"}
    if with_test:
        rows["test"], parts["test"] = torch.arange(info.num_test), "test"
    if (folder / VAL_ROWS).exists():
        rows["val"] = torch.from_numpy(np.load(folder / VAL_ROWS))
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
    labels = {part: torch.from_numpy(np.load(folder / f"{part}_labels.npy")) for part in set(parts.values())}
    return {name: Rows(part, rows[name], labels[part][rows[name]]) for name, part in parts.items()}


def load_splits(
    info: DataInfo, *, train_limit: int | None, device: torch.device, with_test: bool = True
) -> dict[str, Split]:
    """Load ``train``, ``val`` and ``test`` of decoded data; memory-mapped on a CPU, moved once to another device.

    Args:
        info: of a data set that is decoded.
        train_limit: as in `find_rows`.
        device: of the images.
        with_test: as in `find_rows`.

    Raises:
        UsageError: more training images are asked for than there are.
    """
    folder = data_folder(info.name, info.fingerprint, streamed=False)
    rows = find_rows(info, train_limit=train_limit, with_test=with_test)
    return {name: _load_split(folder, split, device) for name, split in rows.items()}


def split_hash(splits: Mapping[str, Tensor]) -> str:
    """Hash which images are in which split.

    Args:
        splits: of each, its rows (n,) in the data set's part, on the CPU.
    """
    digest = hashlib.sha256()
    for name, rows in sorted(splits.items()):
        digest.update(f"{name} {len(rows)}".encode())
        digest.update(rows.numpy().tobytes())
    return digest.hexdigest()[:16]


def _load_split(folder: Path, split: Rows, device: torch.device) -> Split:
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # nothing writes to what is mapped read-only
        images = torch.from_numpy(np.load(folder / f"{split.part}_images.npy", mmap_mode="r"))
    if device.type == "cpu":
        return Split(images=images, labels=split.labels, rows=split.rows, original_rows=split.rows)
    moved = images[split.rows].to(device)
    rows = torch.arange(len(split.rows), device=device)
    return Split(images=moved, labels=split.labels.to(device), rows=rows, original_rows=split.rows)
