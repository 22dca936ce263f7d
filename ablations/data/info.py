"""Description of a data set that is decoded, or listed for streaming."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from pydantic import TypeAdapter, ValidationError

from ablations.config.types import Task
from ablations.data.cached_files import DamagedFile, reading


@dataclass(frozen=True)
class DataInfo:
    """Description of a prepared data set.

    Args:
        name: name in configurations, without a path.
        fingerprint: hash of the files.
        classes: class names, by label.
        image_shape: height, width and channels of the images.
        num_train: number of training images, without validation.
        num_val: number of validation images.
        num_test: number of test images.
        mean: mean of each channel over train, for pixels from 0 to 1.
        std: standard deviation of each channel over train, for pixels from 0 to 1.
        flips: whether a mirrored image keeps its class.
        notes: messages to the user about how the data set was read.
        streamed: whether images are decoded on demand instead of cached.
        root: folder of the images if they are streamed, else empty.
        placement: whether it is streamed, and why; empty if it cannot be.
        task: task of the data set.
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
    streamed: bool = False
    root: str = ""
    placement: str = ""
    task: Task = "classify"

    def save(self, folder: Path) -> None:
        """Write the description to a folder of the cache."""
        (folder / "info.json").write_text(json.dumps(asdict(self), indent=1))

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read a description that `save` wrote.

        Raises:
            DamagedFile: it cannot be read.
        """
        path = folder / "info.json"
        with reading(path):
            text = path.read_text()
            fields = json.loads(text)
            info = cls(**{**fields, "image_shape": tuple(fields["image_shape"])})
            try:
                _types().validate_json(text, strict=True)
            except ValidationError as error:
                wrong = error.errors()[0]
                what = f"its {wrong['loc'][0]} has another type: " if wrong["loc"] else ""
                raise DamagedFile(path, f"{what}{wrong['msg']}") from error
            return info

    def difference(self, known: Mapping[str, Any]) -> str | None:
        """Return in words the first field that differs from what is known, or None if all are equal.

        Args:
            known: values by field; mean and standard deviation count as equal if they are close.
        """
        for name, value in known.items():
            own = getattr(self, name)
            close = name in ("mean", "std") and len(own) == len(value) and np.allclose(own, value, rtol=1e-6, atol=0)
            if own != value and not close:
                return f"its {name} is {own!s:.60}, not {value!s:.60}"
        return None

    def num_evaluated(self, limit: int | None) -> dict[str, int]:
        """Return the numbers of evaluated images of ``val`` and ``test``.

        Args:
            limit: largest number of images of each; None: all.
        """
        counts = {"val": self.num_val, "test": self.num_test}
        return {split: count if limit is None else min(count, limit) for split, count in counts.items()}

    @property
    def chance_pct(self) -> float:
        """Chance level in per cent: the accuracy of guessing, or the average precision without detections."""
        return 100 / len(self.classes) if self.task == "classify" else 0.0


@functools.cache
def _types() -> TypeAdapter[DataInfo]:
    return TypeAdapter(DataInfo)
