"""Data sets of a study: found, prepared, and named as the stored study names them."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from ablations.config import Study, UsageError
from ablations.config.grid import Grid, GridRequest
from ablations.config.request import Request
from ablations.config.study import DATA_FIELDS
from ablations.config.task import masks_of, task_of
from ablations.data import DataInfo, find_objects, find_source, prepare, prepare_objects


@dataclass(frozen=True)
class DataPoint:
    """A data set at one image size with one choice of classes.

    Args:
        info: description of the prepared data set.
        spec: its name as it was asked for.
        image_size: requested side in pixels; None: the images' own.
        classes: requested number or names of classes; None: all.
    """

    info: DataInfo
    spec: str
    image_size: int | None
    classes: str | None


@dataclass(frozen=True)
class StudyData:
    """Every data set of a study at every image size and with every choice of classes."""

    points: tuple[DataPoint, ...]

    @property
    def names(self) -> list[str]:
        """Names of the data sets, in the requested order."""
        return list(dict.fromkeys(point.info.name for point in self.points))

    @property
    def by_fingerprint(self) -> dict[str, DataInfo]:
        """Descriptions of the data sets by fingerprint."""
        return {point.info.fingerprint: point.info for point in self.points}

    def info(self, name: str, image_size: int | None, classes: str | None) -> DataInfo:
        """Return the description of a data set at one image size with one choice of classes."""
        wanted = name, image_size, classes
        return next(p.info for p in self.points if (p.info.name, p.image_size, p.classes) == wanted)

    def with_names(self, asked: Mapping[str, list[Any]]) -> dict[str, list[Any]]:
        """Return values of fields with the names of the data sets in place of what was asked for."""
        names = {point.spec: point.info.name for point in self.points}
        return {**asked, **({"data": [names[spec] for spec in asked["data"]]} if "data" in asked else {})}

    def named_as_in(self, stored: Study | None) -> StudyData:
        """Give each data set the name that a stored study has for its fingerprint, whatever the name of its folder.

        Raises:
            UsageError: two data sets with one name or with the same images.
        """
        held = [] if stored is None else stored.data_points.values()
        names = {point["data_fingerprint"]: point["data"] for point in held}
        points = tuple(
            replace(point, info=_renamed(point.info, names.get(point.info.fingerprint, point.info.name)))
            for point in self.points
        )
        for one, other in itertools.combinations(points, 2):
            same = one.info.name == other.info.name
            if one.info.fingerprint == other.info.fingerprint:
                if same and one.classes != other.classes:
                    raise UsageError(
                        f"classes {one.classes} and {other.classes} of {one.info.name} are the same images; give one"
                    )
                raise UsageError(f"--data: {one.info.name} and {other.info.name} are the same images; give one")
            if same and (one.image_size, one.classes) == (other.image_size, other.classes):
                raise UsageError(f"--data: two data sets are called {one.info.name}; rename the folder of one")
        return StudyData(points)


def find_data(request: Request, asked: Mapping[str, list[Any]], grids: Sequence[GridRequest]) -> StudyData:
    """Find all data sets of a study, and then prepare each.

    Args:
        request: request.
        asked: values of each field, completed.
        grids: grids of the study, completed; empty: the product of ``asked``.

    Raises:
        UsageError: a data set that is unknown, missing, unreadable, or has only one class.
    """
    sources, task, masks = [], task_of(asked), masks_of(asked)
    with_test = not request.trials  # which are scored on validation, and open no file of the test split
    for spec, size, chosen in _wanted(grids or [GridRequest(asked=asked)]):
        with _reading(spec):
            if task == "detect":
                if request.in_memory == "on":
                    raise UsageError(f"--in-memory on: images of {spec} are decoded or drawn on demand; leave it out")
                found = find_objects(spec, image_size=size)
                to_prepare = partial(prepare_objects, found, masks=masks, with_test=with_test)
            else:
                source = find_source(
                    spec, data_root=request.data_root, download=request.download, image_size=size, classes=chosen
                )
                to_prepare = partial(prepare, source, in_memory=request.in_memory, with_test=with_test)
            sources.append((to_prepare, spec, size, chosen))
    points = []
    for to_prepare, spec, size, chosen in sources:
        with _reading(spec):
            info = to_prepare()
        if len(info.classes) < 2 and task == "classify":
            raise UsageError(f"--data {spec} has only one class, {info.classes[0]}; give data with two or more")
        points.append(DataPoint(info, spec, size, chosen))
    return StudyData(tuple(points))


def _wanted(grids: Sequence[GridRequest]) -> list[tuple[Any, ...]]:
    """Return each combination of data set, image size and classes that a grid may have."""
    wanted: dict[tuple[Any, ...], None] = {}
    for request in grids:
        axes = {field: request.asked.get(field, [None]) for field in DATA_FIELDS}
        groups = (tuple(field for field in group if field in axes) for group in request.zipped)
        zipped = tuple(group for group in groups if len(group) > 1)
        exclude = tuple(dict(entry) for entry in request.exclude if entry.keys() <= axes.keys())
        grid = Grid.model_construct(axes=axes, zipped=zipped, exclude=exclude)
        wanted |= dict.fromkeys(tuple(row[field] for field in ("data", "image_size", "classes")) for row in grid.rows())
    return list(wanted)


def _renamed(info: DataInfo, name: str) -> DataInfo:
    notes = info.notes if name == info.name else [f"its folder is now {info.name.partition(':')[2]}", *info.notes]
    return replace(info, name=name, notes=notes)


@contextlib.contextmanager
def _reading(spec: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UsageError(f"--data {spec} cannot be read: {error}") from error
    except MemoryError as error:
        raise UsageError(
            f"--data {spec}: its images exceed the memory at this size; give --in-memory off or a smaller image_size"
        ) from error
