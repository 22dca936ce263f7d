"""Data sets of image files in folders: decoded as a whole, or listed for streaming."""

from __future__ import annotations

import functools
import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from ablations.config import UsageError
from ablations.config.paths import real_path
from ablations.data import fingerprint
from ablations.data.files import FileList
from ablations.data.image import GREY_MODES, fit, noted_warnings, read_image
from ablations.data.sources import Decoded, Part
from ablations.data.streams import SPLIT_SEED
from ufo.init import keyed_generator

SAMPLE_IMAGES = 1000
"""Number of training images from which mean and deviation are estimated, if not every image is read."""


@dataclass(frozen=True, kw_only=True)
class ImageTree:
    """Image files below a root, in any layout.

    Args:
        kind: kind on the command line: ``imagefolder``, ``imagenet`` or ``tiny-imagenet``.
        root: root folder.
        parts: files of ``train``, ``test`` and, if the data set has one, ``val``.
        classes: class names, by label.
        image_size: side to which images are resized and centre-cropped, in pixels; None: all have one size.
        notes: messages to the user about the files found.
        by_contents: whether the fingerprint hashes the files' contents instead of their sizes.
        flips: whether a mirrored image keeps its class.
    """

    kind: str
    root: Path
    parts: dict[str, FileList]
    classes: list[str]
    image_size: int | None
    notes: list[str] = field(default_factory=list)
    by_contents: bool
    flips: bool = True

    @property
    def name(self) -> str:
        """Name in configurations and tables, without a path."""
        return f"{self.kind}:{real_path(self.root).name}"

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hash of relative paths, contents or sizes, and the image size."""
        if self.by_contents:
            return fingerprint.of_contents(self.parts, root=self.root, image_size=self.image_size)
        return fingerprint.of_sizes(self.parts, image_size=self.image_size)

    @functools.cached_property
    def image_side(self) -> tuple[int, int]:
        """Height and width of the images: as requested, or those of the first training image."""
        if self.image_size is not None:
            return self.image_size, self.image_size
        with noted_warnings():  # which are noted when all images are read
            image, _ = read_image(self.root / self.parts["train"].path(0))
        return image.height, image.width

    @property
    def num_images(self) -> int:
        """Number of images in all parts."""
        return sum(len(files) for files in self.parts.values())

    @property
    def decoded_bytes(self) -> int:
        """Size of all images decoded to RGB, in bytes."""
        height, width = self.image_side
        return self.num_images * height * width * 3

    def decode(self) -> Decoded:
        """Decode every image, as RGB or, if all are greyscale, as one channel.

        Raises:
            UsageError: unreadable file, or images that differ in size without ``image_size``.
        """
        parts: dict[str, Part] = {}
        modes: Counter[str] = Counter()
        with noted_warnings() as warned, ThreadPoolExecutor(os.cpu_count()) as pool:
            for part, files in self.parts.items():
                images = np.empty((len(files), *self.image_side, 3), dtype=np.uint8)
                for row, (image, mode) in enumerate(pool.map(self.read, files.paths())):
                    images[row] = image
                    modes["greyscale" if mode in GREY_MODES else mode] += 1
                parts[part] = (images, np.asarray(files.labels))
        if set(modes) == {"greyscale"}:
            grey = {part: (images[..., :1], labels) for part, (images, labels) in parts.items()}
            return Decoded(grey, self.classes, warned)
        others = {mode: count for mode, count in modes.items() if mode != "RGB"}
        notes = [
            f"{count:,} {mode} images of {modes.total():,} were converted to RGB" for mode, count in others.items()
        ]
        return Decoded(parts, self.classes, [*notes, *warned])

    def read(self, path: str) -> tuple[npt.NDArray[np.uint8], str]:
        """Read one image in its in-memory form.

        Args:
            path: path below the root.

        Returns:
            (height, width, 3) uint8, and the image's mode in its file.

        Raises:
            UsageError: unreadable file, or images that differ in size without ``image_size``.
        """
        image, mode = read_image(self.root / path)
        if self.image_size is not None:
            image = fit(image, self.image_size)
        elif (image.height, image.width) != self.image_side:
            raise size_error(path, image.size, like=self.image_side, first=self.parts["train"].path(0))
        return np.asarray(image), mode

    def sample(self, notes: list[str]) -> npt.NDArray[np.uint8]:
        """Read training images drawn with the split's own seed: (m, height, width, 3).

        Args:
            notes: list that receives a note on warnings.

        Raises:
            UsageError: as in `decode`.
        """
        files = self.parts["train"]
        rows = torch.randperm(len(files), generator=keyed_generator(SPLIT_SEED, "statistics"))[:SAMPLE_IMAGES]
        with noted_warnings() as warned, ThreadPoolExecutor(os.cpu_count()) as pool:
            images = np.stack([image for image, _ in pool.map(self.read, map(files.path, rows.tolist()))])
        notes += warned
        return images


def size_error(path: str, size: tuple[int, int], *, like: tuple[int, int], first: str = "the first") -> UsageError:
    """Make the error for an image whose size differs from the others'.

    Args:
        path: path of the image.
        size: its width and height.
        like: height and width of the others.
        first: path of one of the others.
    """
    one, other = f"{like[0]} x {like[1]} px", f"{size[1]} x {size[0]} px"
    return UsageError(f"images differ in size: {first} has {one}, {path} {other}; give --set image_size=N")
