"""The images of an archive, unpacked and decoded into the cache.

    python -m ablations.bench.gpu.data FILE WORK

A data set of a folder is known by the contents of its files, so that an archive of the files gives it the fingerprint
that it has everywhere. CIFAR-10 as JPEG takes 19 MB so, and its pixels as filtered, compressed arrays 88 MB.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from ablations.bench.gpu.archive import extract
from ablations.config import UsageError
from ablations.data import find_source, prepare


def data_folder(file: Path, work: Path) -> Path:
    """Return the folder into which an archive is unpacked: named as the archive, which names the data set.

    >>> data_folder(Path("cifar10.tar.xz"), Path("work")).as_posix()
    'work/data/cifar10'
    """
    return work / "data" / file.name.partition(".")[0]


def unpack(file: Path, folder: Path) -> None:
    """Unpack an archive of one folder, unless it is unpacked already.

    Raises:
        UsageError: the archive cannot be read, or has not one folder.
    """
    if folder.is_dir():
        return
    scratch = folder.with_name(f".{folder.name}")
    extract(file, scratch)
    inner = [path for path in scratch.iterdir() if path.is_dir()]
    if len(inner) != 1:
        raise UsageError(f"{file} must have one folder, with train/ and test/ in it, not {len(inner)}")
    inner[0].rename(folder)
    shutil.rmtree(scratch)


def main() -> None:
    """Unpack and decode; print the name, the fingerprint and the numbers of images."""
    file, work = Path(sys.argv[1]), Path(sys.argv[2])
    folder = data_folder(file, work)
    try:
        unpack(file, folder)
        source = find_source(f"imagefolder:{folder}", data_root=work, download=False, image_size=None)
        info = prepare(source, in_memory="on")
    except UsageError as error:
        sys.exit(f"error: {error}")
    counts = f"{info.num_train:,} + {info.num_val:,} + {info.num_test:,} images"
    print(f"{info.name}, fingerprint {info.fingerprint}, {counts} (train, validation, test)")


if __name__ == "__main__":
    main()
