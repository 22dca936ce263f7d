"""A study's data sets: found, decoded, and called by the names that the study has for them."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from ablations.data import DataInfo, find_source, prepare
from ablations.study import Study, UsageError


@dataclass(frozen=True)
class StudyData:
    """Every data set of a study at every image size.

    Args:
        infos: with the image size asked for; None: as the images are.
    """

    infos: tuple[tuple[DataInfo, int | None], ...]

    @property
    def names(self) -> list[str]:
        """Names of the data sets, in the order asked for."""
        return list(dict.fromkeys(info.name for info, _ in self.infos))

    @property
    def by_fingerprint(self) -> dict[str, DataInfo]:
        """Each data set at each size by its fingerprint, which tells it from every other."""
        return {info.fingerprint: info for info, _ in self.infos}

    def info(self, name: str, image_size: int | None) -> DataInfo:
        """Return what is known of a data set at a size."""
        return next(info for info, size in self.infos if (info.name, size) == (name, image_size))

    def as_called_by(self, stored: Study | None) -> StudyData:
        """Call each data set as a stored study does: it is what its fingerprint says, whatever its folder is called.

        Raises:
            UsageError: two of them would have one name, or are the same images.
        """
        points = [] if stored is None else stored.data_points.values()
        names = {point["data_fingerprint"]: point["data"] for point in points}
        infos = tuple((_called(info, names.get(info.fingerprint, info.name)), size) for info, size in self.infos)
        for (one, size), (other, other_size) in itertools.combinations(infos, 2):
            if one.fingerprint == other.fingerprint:
                raise UsageError(f"--data: {one.name} and {other.name} are the same images")
            if (one.name, size) == (other.name, other_size):
                raise UsageError(f"--data: two data sets are called {one.name}; rename the folder of one")
        return StudyData(infos)


def find_data(specs: list[str], *, image_sizes: list[int | None], data_root: Path, download: bool) -> StudyData:
    """Find and decode data sets; all are looked for before the first is decoded.

    Args:
        specs: as on the command line.
        image_sizes: each data set is brought to each; None: as the images are.
        data_root: folder of torchvision's data.
        download: whether missing data may be fetched.

    Raises:
        UsageError: one that is unknown, is not there, cannot be read, or has one class alone.
    """
    sources = []
    for spec, size in itertools.product(specs, image_sizes):
        with _reading(spec):
            sources.append((find_source(spec, data_root=data_root, download=download, image_size=size), spec, size))
    infos = []
    for source, spec, size in sources:
        with _reading(spec):
            info = prepare(source)
        if len(info.classes) < 2:
            raise UsageError(f"--data {spec} has one class alone, {info.classes[0]}: there is nothing to tell apart")
        infos.append((info, size))
    return StudyData(tuple(infos))


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
        raise UsageError(f"--data {spec}: its images do not fit into memory at this size") from error
