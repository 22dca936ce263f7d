"""Assignment of a data set's rows to train, val and test, the same in memory and streamed."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from weakref import WeakValueDictionary

import torch
from torch import Tensor

from ablations.config import UsageError
from ablations.data.batches import Split
from ablations.data.cached_files import load_array
from ablations.data.info import DataInfo
from ablations.data.location import data_folder
from ablations.data.streams import SPLIT_SEED
from ufo.init import keyed_generator

_ON_DEVICE: WeakValueDictionary[tuple[str, ...], Tensor] = WeakValueDictionary()
"""Images of splits on a GPU, for the cells of a stack, which share them while one of them uses them."""

VAL_ROWS = "val_rows.npy"
"""File of the rows of train that are validation, if the data set has no validation split."""


@dataclass(frozen=True)
class Rows:
    """Samples of a split.

    Args:
        part: part of the data set that the rows belong to.
        rows: (n,) row indices in the part.
        labels: (n,) labels of the rows.
    """

    part: str
    rows: Tensor
    labels: Tensor


def find_rows(
    info: DataInfo, *, train_limit: int | None, eval_limit: int | None = None, with_test: bool = True
) -> dict[str, Rows]:
    """Return the samples of ``train``, ``val`` and ``test``.

    Args:
        info: description of a prepared data set.
        train_limit: number of training images, drawn with the split's own seed (subsets are nested); None: all.
        eval_limit: largest number of images of ``val``, and of ``test``, drawn likewise; None: all.
        with_test: whether ``test`` is included; otherwise none of its files is opened.

    Raises:
        UsageError: a limit above the number of images.
    """
    folder = data_folder(info.name, info.fingerprint, streamed=info.streamed)
    rows = split_rows(info, train_limit=train_limit, eval_limit=eval_limit, with_test=with_test)
    parts = {part for part, _ in rows.values()}
    labels = {part: torch.from_numpy(load_array(folder / f"{part}_labels.npy")) for part in parts}
    return {name: Rows(part, own, labels[part][own]) for name, (part, own) in rows.items()}


def split_rows(
    info: DataInfo, *, train_limit: int | None, eval_limit: int | None = None, with_test: bool
) -> dict[str, tuple[str, Tensor]]:
    """Return part and rows (n,) of ``train``, ``val`` and ``test``, with the arguments and errors of `find_rows`."""
    folder = data_folder(info.name, info.fingerprint, streamed=info.streamed)
    rows, parts = {"train": torch.arange(info.num_train)}, {"train": "train", "val": "val"}
    if with_test:
        rows["test"], parts["test"] = torch.arange(info.num_test), "test"
    if (folder / VAL_ROWS).exists():
        rows["val"] = torch.from_numpy(load_array(folder / VAL_ROWS))
        is_train = torch.ones(info.num_train + info.num_val, dtype=torch.bool)
        is_train[rows["val"]] = False
        rows["train"] = is_train.nonzero().flatten()
        parts["val"] = "train"
    else:
        rows["val"] = torch.arange(info.num_val)
    check_limits(info, train_limit=train_limit, eval_limit=eval_limit)
    if train_limit is not None:
        rows["train"] = _draw(rows["train"], train_limit, "train_limit")
    if eval_limit is not None:
        rows |= {split: _draw(rows[split], eval_limit, "eval_limit", split) for split in parts if split != "train"}
    return {name: (part, rows[name]) for name, part in parts.items()}


def check_limits(info: DataInfo, *, train_limit: int | None, eval_limit: int | None) -> None:
    """Reject limits above the number of images; ``eval_limit`` must reduce validation or test, or equal the larger.

    Raises:
        UsageError: a limit above the number of images.
    """
    if train_limit is not None and train_limit > info.num_train:
        limit = f"must be at most {info.num_train}, the training images of {info.name}"
        raise UsageError(f"train_limit={train_limit}: {limit}")
    most = max(info.num_val, info.num_test)
    if eval_limit is not None and eval_limit > most:
        splits = f"validation ({info.num_val}) and test ({info.num_test})"
        raise UsageError(f"eval_limit={eval_limit}: must be at most {most}, the largest of {splits} of {info.name}")


def _draw(rows: Tensor, count: int, *keys: str) -> Tensor:
    """Draw some of a split's rows (n,), in their order; a smaller draw is part of a larger one."""
    order = torch.randperm(len(rows), generator=keyed_generator(SPLIT_SEED, *keys))
    return rows[order[:count].sort().values]


def load_splits(
    info: DataInfo,
    *,
    train_limit: int | None,
    device: torch.device,
    eval_limit: int | None = None,
    with_test: bool = True,
) -> dict[str, Split]:
    """Load ``train``, ``val`` and ``test`` of decoded data; memory-mapped on a CPU, copied once to another device.

    Args:
        info: description of a decoded data set.
        train_limit: as in `find_rows`.
        device: device of the images.
        eval_limit: as in `find_rows`.
        with_test: as in `find_rows`.

    Raises:
        UsageError: a limit above the number of images.
    """
    folder = data_folder(info.name, info.fingerprint, streamed=False)
    rows = find_rows(info, train_limit=train_limit, eval_limit=eval_limit, with_test=with_test)
    return {name: _load_split(folder, split, device) for name, split in rows.items()}


def split_hash(splits: Mapping[str, Tensor]) -> str:
    """Hash the assignment of images to splits.

    Args:
        splits: name of each split to its rows (n,) in the data set's part, on the CPU.
    """
    digest = hashlib.sha256()
    for name, rows in sorted(splits.items()):
        digest.update(f"{name} {len(rows)}".encode())
        digest.update(rows.numpy().tobytes())
    return digest.hexdigest()[:16]


def _load_split(folder: Path, split: Rows, device: torch.device) -> Split:
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # the read-only map is never written
        images = torch.from_numpy(load_array(folder / f"{split.part}_images.npy", mapped=True))
    if device.type == "cpu":
        return Split(images=images, labels=split.labels, rows=split.rows, original_rows=split.rows)
    key = (str(folder), split.part, str(device), hashlib.sha256(split.rows.numpy().tobytes()).hexdigest())
    moved = _ON_DEVICE.get(key)
    if moved is None:
        moved = _ON_DEVICE[key] = images[split.rows].to(device)
    rows = torch.arange(len(split.rows), device=device)
    return Split(images=moved, labels=split.labels.to(device), rows=rows, original_rows=split.rows)
