"""A study's data sets: found, prepared, and called by the names that the study has for them."""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ablations.config import Study, UsageError
from ablations.config.options import InMemory
from ablations.config.types import Task
from ablations.data import DataInfo, find_objects, find_source, prepare, prepare_objects


@dataclass(frozen=True)
class DataPoint:
    """A data set at an image size, with some of its classes.

    Args:
        info: what is known of it.
        image_size: asked for; None: as the images are.
        classes: asked for; None: all of them.
    """

    info: DataInfo
    image_size: int | None
    classes: str | None


@dataclass(frozen=True)
class StudyData:
    """Every data set of a study at every image size and with every choice of classes."""

    points: tuple[DataPoint, ...]

    @property
    def names(self) -> list[str]:
        """Names of the data sets, in the order asked for."""
        return list(dict.fromkeys(point.info.name for point in self.points))

    @property
    def by_fingerprint(self) -> dict[str, DataInfo]:
        """Each data set at each size by its fingerprint, which tells it from every other."""
        return {point.info.fingerprint: point.info for point in self.points}

    def info(self, name: str, image_size: int | None, classes: str | None) -> DataInfo:
        """Return what is known of a data set at a size with a choice of classes."""
        wanted = name, image_size, classes
        return next(p.info for p in self.points if (p.info.name, p.image_size, p.classes) == wanted)

    def as_called_by(self, stored: Study | None) -> StudyData:
        """Call each data set as a stored study does: it is what its fingerprint says, whatever its folder is called.

        Raises:
            UsageError: two of them would have one name, or are the same images.
        """
        held = [] if stored is None else stored.data_points.values()
        names = {point["data_fingerprint"]: point["data"] for point in held}
        points = tuple(
            replace(point, info=_called(point.info, names.get(point.info.fingerprint, point.info.name)))
            for point in self.points
        )
        for one, other in itertools.combinations(points, 2):
            same = one.info.name == other.info.name
            if one.info.fingerprint == other.info.fingerprint:
                if same and one.classes != other.classes:
                    raise UsageError(
                        f"classes {one.classes} and {other.classes} of {one.info.name} are the same images"
                    )
                raise UsageError(f"--data: {one.info.name} and {other.info.name} are the same images")
            if same and (one.image_size, one.classes) == (other.image_size, other.classes):
                raise UsageError(f"--data: two data sets are called {one.info.name}; rename the folder of one")
        return StudyData(points)


def find_data(
    specs: list[str],
    *,
    image_sizes: Sequence[int | None],
    classes: Sequence[str | None],
    data_root: Path,
    download: bool,
    in_memory: InMemory,
    task: Task = "classify",
) -> StudyData:
    """Find and prepare data sets; all are looked for before the first is decoded.

    Args:
        specs: as on the command line.
        image_sizes: each data set is brought to each; None: as the images are.
        classes: of each data set each choice of classes is taken; None: all.
        data_root: folder of torchvision's data.
        download: whether missing data may be fetched.
        in_memory: which of them are decoded once, and which are streamed.
        task: that they are for.

    Raises:
        UsageError: one that is unknown, is not there, cannot be read, or has one class alone.
    """
    sources = []
    for spec, size, chosen in itertools.product(specs, image_sizes, classes):
        with _reading(spec):
            if task == "detect":
                to_prepare = _objects(spec, size, in_memory)
            else:
                source = find_source(spec, data_root=data_root, download=download, image_size=size, classes=chosen)
                to_prepare = functools.partial(prepare, source, in_memory=in_memory)
            sources.append((to_prepare, spec, size, chosen))
    points = []
    for to_prepare, spec, size, chosen in sources:
        with _reading(spec):
            info = to_prepare()
        if len(info.classes) < 2 and task == "classify":
            raise UsageError(f"--data {spec} has one class alone, {info.classes[0]}: there is nothing to tell apart")
        points.append(DataPoint(info, size, chosen))
    return StudyData(tuple(points))


def _objects(spec: str, image_size: int | None, in_memory: InMemory) -> Callable[[], DataInfo]:
    if in_memory == "on":
        raise UsageError(f"--in-memory on: images of {spec} are decoded or drawn as they are needed; leave it out")
    return functools.partial(prepare_objects, find_objects(spec, image_size=image_size))


def _called(info: DataInfo, name: str) -> DataInfo:
    notes = info.notes if name == info.name else [f"its folder is {info.name.partition(':')[2]} now", *info.notes]
    return replace(info, name=name, notes=notes)


@contextlib.contextmanager
def _reading(spec: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UsageError(f"--data {spec} cannot be read: {error}") from error
    except MemoryError as error:
        raise UsageError(
            f"--data {spec}: its images do not fit into memory at this size; try --in-memory off"
        ) from error
