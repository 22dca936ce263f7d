"""Sources of images: each has a name and a fingerprint of its files, and decodes them.

A decoded part is a uint8 array (n, height, width, channels) and int64 labels (n,). No source skips a file: an
unreadable one stops the command with its path.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from ablations.config import UsageError

Part = tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]


@dataclass(frozen=True)
class Decoded:
    """Decoded data set, in memory.

    Args:
        parts: ``train``, ``test`` and, if the data set has one, ``val``.
        classes: class names, by label.
        notes: messages to the user about how the data set was read.
    """

    parts: dict[str, Part]
    classes: list[str]
    notes: list[str]


class Source(Protocol):
    """Location and reader of a data set."""

    @property
    def name(self) -> str:
        """Name in configurations and tables, without a path."""

    @property
    def fingerprint(self) -> str:
        """Hash of the files' contents, which identifies the data set."""

    @property
    def flips(self) -> bool:
        """Whether a mirrored image keeps its class."""

    @property
    def notes(self) -> list[str]:
        """Messages to the user about the files found."""

    def decode(self) -> Decoded:
        """Decode every image.

        Raises:
            UsageError: unreadable file; the message has its path.
        """


class Digits:
    """scikit-learn's optical digits, shipped with the package; 20 % are the test split, drawn once."""

    name = "digits"
    fingerprint = "sklearn-digits-1797"
    flips = False
    notes: ClassVar[list[str]] = []

    def decode(self) -> Decoded:
        """Scale the images from 0-16 to 0-255 uint8, and cut off a stratified test split."""
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

        bunch = load_digits()
        images = np.round(bunch.images * (255 / 16)).astype(np.uint8)[..., None]
        labels = bunch.target.astype(np.int64)
        rows = np.arange(len(labels))
        train, test = (np.sort(part) for part in train_test_split(rows, test_size=0.2, random_state=0, stratify=labels))
        parts = {"train": (images[train], labels[train]), "test": (images[test], labels[test])}
        return Decoded(parts, [str(name) for name in bunch.target_names], [])


class Cifar:
    """CIFAR-10 or CIFAR-100 as torchvision stores it.

    Args:
        name: ``cifar10`` or ``cifar100``.
        root: folder that holds torchvision's folder.
        download: whether missing files may be downloaded.

    Raises:
        UsageError: missing data that may not be downloaded.
    """

    flips = True
    notes: ClassVar[list[str]] = []

    def __init__(self, name: str, *, root: Path, download: bool) -> None:
        self.name = name
        self.root = root
        self.folder = root / ("cifar-10-batches-py" if name == "cifar10" else "cifar-100-python")
        if download:
            self._open(train=True, download=True)  # checks the files, and downloads missing ones
        if not self.folder.is_dir():
            raise UsageError(f"{name} not found: no folder {self.folder}; give --data-root DIR or --download")

    @property
    def fingerprint(self) -> str:
        """Hash of the names and sizes of torchvision's files; torchvision checks their contents."""
        files = sorted(path for path in self.folder.iterdir() if path.is_file())
        return hashlib.sha256("".join(f"{f.name} {f.stat().st_size}\n" for f in files).encode()).hexdigest()[:16]

    def decode(self) -> Decoded:
        """Decode both parts with torchvision, which checks the files."""
        parts = {"train": self._open(train=True), "test": self._open(train=False)}
        return Decoded(
            {name: (part.data, np.asarray(part.targets, dtype=np.int64)) for name, part in parts.items()},
            list(parts["train"].classes),
            [],
        )

    def _open(self, *, train: bool, download: bool = False):  # type: ignore[no-untyped-def]  # torchvision has no types
        from torchvision import datasets

        cls = datasets.CIFAR10 if self.name == "cifar10" else datasets.CIFAR100
        try:
            return cls(self.root, train=train, download=download)
        except (RuntimeError, OSError) as error:
            reason = str(error).splitlines()[0]
            raise UsageError(f"{self.name} under {self.folder} cannot be read: {reason}") from error
