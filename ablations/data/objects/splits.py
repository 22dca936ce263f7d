"""Splits of a detection data set: annotations, images and rows of each."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from ablations.config import UsageError
from ablations.data.info import DataInfo
from ablations.data.location import data_folder
from ablations.data.objects.annotations import Annotations, Ints
from ablations.data.objects.sample import Files, ImageReader
from ablations.data.objects.shapes import Shapes
from ablations.data.objects.source import PREFIX, Coco
from ablations.data.splits import split_rows


def split_objects(
    info: DataInfo, *, train_limit: int | None, eval_limit: int | None = None, with_test: bool
) -> dict[str, tuple[Annotations, ImageReader, Ints]]:
    """Return annotations, image reader and rows of ``train``, ``val`` and ``test``.

    Args:
        info: description of a prepared data set.
        train_limit: as in `find_rows`.
        eval_limit: as in `find_rows`.
        with_test: as in `find_rows`.

    Raises:
        UsageError: a limit above the number of images, or drawn images without objects, which cannot be scored.
    """
    folder = data_folder(info.name, info.fingerprint, streamed=True)
    rows = split_rows(info, train_limit=train_limit, eval_limit=eval_limit, with_test=with_test)
    held = {part: Annotations.load(folder / f"{part}.npz") for part in dict.fromkeys(part for part, _ in rows.values())}
    readers = {part: _make_reader(info, part, annotations) for part, annotations in held.items()}
    splits = {split: (held[part], readers[part], each.numpy()) for split, (part, each) in rows.items()}
    for split, (own, _, drawn) in splits.items() if eval_limit is not None else ():
        if split != "train" and not own.has_objects(drawn):
            what = f"the {split} images drawn of {info.name} have no objects except crowds"
            raise UsageError(f"eval_limit={eval_limit}: {what}; give more")
    return splits


def _make_reader(info: DataInfo, part: str, annotations: Annotations) -> ImageReader:
    if not info.root:
        return partial(Shapes(info.image_shape[0]).image, part)
    file = Coco(Path(info.root)).files[part]
    return Files(Path(info.root) / file.stem.removeprefix(PREFIX), annotations)
