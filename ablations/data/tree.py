"""A data set of image files in folders: decoded as a whole, or listed so that it can be streamed."""

from __future__ import annotations

import functools
import os
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from ablations.config import UsageError
from ablations.data import fingerprint
from ablations.data.files import FileList
from ablations.data.image import GREY_MODES, allow_large_images, fit, read_image
from ablations.data.sources import Decoded, Part
from ablations.data.streams import SPLIT_SEED
from ufo.init import keyed_generator

SAMPLE_IMAGES = 1000
"""Training images whose mean and deviation stand for all, where not every image is read."""


@dataclass(frozen=True, kw_only=True)
class ImageTree:
    """Image files below a root, whatever their layout was.

    Args:
        kind: as on the command line: ``imagefolder``, ``imagenet`` or ``tiny-imagenet``.
        root: the folder.
        parts: files of ``train`` and ``test``, and of ``val`` where the data set has one of its own.
        classes: class names, by label.
        image_size: pixels of the side to which images are resized and centre-cropped; None: all have one size already.
        notes: what a user should know of what was found.
        by_contents: whether its fingerprint is of the files' contents, or of their sizes alone.
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
        """As configurations and tables have it, without a path."""
        return f"{self.kind}:{self.root.resolve().name}"

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hash of relative paths with contents or sizes, and of the size to which images are brought."""
        if self.by_contents:
            return fingerprint.of_contents(self.parts, root=self.root, image_size=self.image_size)
        return fingerprint.of_sizes(self.parts, image_size=self.image_size)

    @functools.cached_property
    def image_side(self) -> tuple[int, int]:
        """Height and width of the images: asked for, or those of the first training image."""
        if self.image_size is not None:
            return self.image_size, self.image_size
        image, _ = read_image(self.root / self.parts["train"].path(0))
        return image.height, image.width

    @property
    def num_images(self) -> int:
        """Images of all parts."""
        return sum(len(files) for files in self.parts.values())

    @property
    def decoded_bytes(self) -> int:
        """What all images take when they are decoded to RGB."""
        height, width = self.image_side
        return self.num_images * height * width * 3

    def decode(self) -> Decoded:
        """Read every image: RGB, or one channel where all are greyscale.

        Raises:
            UsageError: a file that cannot be read, or is of another size than the first where none was asked for.
        """
        parts: dict[str, Part] = {}
        modes: Counter[str] = Counter()
        with ThreadPoolExecutor(os.cpu_count()) as pool, warnings.catch_warnings():
            allow_large_images()
            for part, files in self.parts.items():
                images = np.empty((len(files), *self.image_side, 3), dtype=np.uint8)
                for row, (image, mode) in enumerate(pool.map(self.read, files.paths())):
                    images[row] = image
                    modes["greyscale" if mode in GREY_MODES else mode] += 1
                parts[part] = (images, np.asarray(files.labels))
        if set(modes) == {"greyscale"}:
            grey = {part: (images[..., :1], labels) for part, (images, labels) in parts.items()}
            return Decoded(grey, self.classes, [])
        others = {mode: count for mode, count in modes.items() if mode != "RGB"}
        notes = [
            f"{count:,} {mode} images of {modes.total():,} were converted to RGB" for mode, count in others.items()
        ]
        return Decoded(parts, self.classes, notes)

    def read(self, path: str) -> tuple[npt.NDArray[np.uint8], str]:
        """Read one image as it is kept in memory.

        Args:
            path: below the root.

        Returns:
            (height, width, 3), and the mode that it has in its file.

        Raises:
            UsageError: it cannot be read, or has another size than the first where none was asked for.
        """
        image, mode = read_image(self.root / path)
        if self.image_size is not None:
            image = fit(image, self.image_size)
        elif (image.height, image.width) != self.image_side:
            raise another_size(path, image.size, like=self.image_side, first=self.parts["train"].path(0))
        return np.asarray(image), mode

    def sample(self) -> npt.NDArray[np.uint8]:
        """Read some training images, drawn with the split's own seed: (m, height, width, 3).

        Raises:
            UsageError: as `decode`.
        """
        files = self.parts["train"]
        rows = torch.randperm(len(files), generator=keyed_generator(SPLIT_SEED, "statistics"))[:SAMPLE_IMAGES]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            return np.stack([image for image, _ in pool.map(self.read, map(files.path, rows.tolist()))])


def another_size(path: str, size: tuple[int, int], *, like: tuple[int, int], first: str = "the first") -> UsageError:
    """Return the error of an image that differs in size from the others where no size was asked for.

    Args:
        path: of the image.
        size: its width and height.
        like: height and width of the others.
        first: which of them.
    """
    one, other = f"{like[0]} x {like[1]} px", f"{size[1]} x {size[0]} px"
    return UsageError(f"images differ in size: {first} has {one}, {path} {other}; give --set image_size=N")
