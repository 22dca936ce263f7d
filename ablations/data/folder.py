"""A folder of class folders of images."""

from __future__ import annotations

import functools
import hashlib
import os
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ablations.data.sources import Decoded, Part
from ablations.study import UsageError

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff")
GREY_MODES = ("1", "L")
COLOUR_MODES = ("RGB", "RGBA", "P", "CMYK", "YCbCr", "LA")


@dataclass(frozen=True)
class ImageFile:
    """One image of a part: its path below the root, and its label."""

    path: str
    label: int


class ImageFolder:
    """``DIR/{train,val,test}/<class>/**/*.jpg``.

    ``test/`` is the test split; without it ``val/`` is, and validation is cut from train.

    Args:
        root: DIR.
        image_size: pixels of the side to which images are resized and centre-cropped; None: all have one size already.

    Raises:
        UsageError: a folder is missing or has no images, or the parts have different classes.
    """

    flips = True

    def __init__(self, root: Path, *, image_size: int | None) -> None:
        if not root.is_dir():
            raise UsageError(f"no folder {root}")
        if _shown(root.resolve()) != str(root.resolve()):
            raise UsageError(f"the name of the folder {_shown(root)} is no text; rename it")
        self.root = root
        self.name = f"imagefolder:{root.resolve().name}"
        self.image_size = image_size
        self.notes: list[str] = []
        folders = [part for part in ("train", "val", "test") if (root / part).is_dir()]
        if "train" not in folders or len(folders) < 2:
            raise UsageError(f"{root} needs the folders train/ and val/ or test/; it has {folders or 'neither'}")
        self.classes = _class_names(root / "train")
        self.files: dict[str, list[ImageFile]] = {}
        for part in folders:
            self._check_classes(part)
            self.files[part] = self._list_files(part)
            self._note_left_out(part)
        if "test" not in self.files:
            self.files["test"] = self.files.pop("val")
            self.notes.append("no test/: val/ is the test split, and validation is cut from train/")

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hash of relative paths and contents, and of the size to which images are brought.

        Sizes in bytes would not do: images of an uncompressed format have the same whatever they show.
        """
        digest = hashlib.sha256(f"image_size {self.image_size}\n".encode())
        files = [(part, file) for part in sorted(self.files) for file in self.files[part]]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            contents = pool.map(self._digest, (file for _, file in files))
            for (part, file), content in zip(files, contents, strict=True):
                digest.update(f"{part} {file.path} ".encode(errors="surrogateescape") + content)
        return digest.hexdigest()[:16]

    def decode(self) -> Decoded:
        """Read every image: RGB, or one channel where all are greyscale."""
        from PIL import Image

        parts: dict[str, Part] = {}
        modes: Counter[str] = Counter()
        with ThreadPoolExecutor(os.cpu_count()) as pool, warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the error at twice the size stays
            read = {part: list(pool.map(self._read, files)) for part, files in self.files.items()}
        for part, files in self.files.items():
            self._check_sizes(files, [image for image, _ in read[part]], like=read["train"][0][0])
            modes.update("greyscale" if mode in GREY_MODES else mode for _, mode in read[part])
        all_grey = set(modes) == {"greyscale"}
        for part, files in self.files.items():
            images = np.stack([image for image, _ in read.pop(part)])
            labels = np.array([file.label for file in files], dtype=np.int64)
            parts[part] = (images[..., :1] if all_grey else images, labels)
        others = {} if all_grey else {mode: count for mode, count in modes.items() if mode != "RGB"}
        notes = [
            f"{count:,} {mode} images of {modes.total():,} were converted to RGB" for mode, count in others.items()
        ]
        return Decoded(parts, self.classes, notes)

    def _check_classes(self, part: str) -> None:
        names = _class_names(self.root / part)
        if missing := sorted(set(self.classes) - set(names)):
            raise UsageError(f"class '{missing[0]}' is in {self.root / 'train'} and not in {self.root / part}")
        if extra := sorted(set(names) - set(self.classes)):
            raise UsageError(f"class '{extra[0]}' is in {self.root / part} and not in {self.root / 'train'}")

    def _list_files(self, part: str) -> list[ImageFile]:
        files, others = [], []
        for label, name in enumerate(self.classes):
            found = _walk(self.root / part / name)
            images = [path for path in found if path.suffix.lower() in EXTENSIONS]
            others += [path for path in found if path.suffix.lower() not in EXTENSIONS]
            if not images:
                raise UsageError(f"no images in {self.root / part / name}")
            files += [ImageFile(path.relative_to(self.root).as_posix(), label) for path in images]
        if others:
            self.notes.append(
                f"{part}/ has files that are no images by their name, which are left out: {len(others)}, "
                f"the first {_shown(others[0])}"
            )
        return files

    def _note_left_out(self, part: str) -> None:
        entries = sorted(os.scandir(self.root / part), key=lambda entry: entry.name)
        hidden = [entry.path for entry in entries if entry.is_dir() and entry.name.startswith(".")]
        loose = [entry.path for entry in entries if not entry.is_dir()]
        for paths, what in ((hidden, "folders that begin with a dot"), (loose, "files in no class folder")):
            if paths:
                self.notes.append(f"{part}/ has {what}, which are left out: {len(paths)}, the first {_shown(paths[0])}")

    def _digest(self, file: ImageFile) -> bytes:
        path = self.root / file.path
        try:
            if path.exists() and not path.is_file():  # a pipe would be waited for
                raise UsageError(f"{path} cannot be read: it is no file; repair or remove it")
            return hashlib.sha256(path.read_bytes()).digest()
        except OSError as error:
            raise UsageError(f"{path} cannot be read: {error.strerror}; repair or remove it") from error

    def _read(self, file: ImageFile) -> tuple[npt.NDArray[np.uint8], str]:
        from PIL import Image, ImageOps

        path = self.root / file.path
        try:
            with Image.open(path) as image:
                mode = image.mode
                rgb = image.convert("RGB")
        except (OSError, EOFError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise UsageError(f"{path} cannot be read: {error}; repair or remove it") from error
        if mode not in (*GREY_MODES, *COLOUR_MODES):
            raise UsageError(f"{path} is in mode {mode}, which has no exact 8-bit form; convert it first")
        if self.image_size is not None:
            rgb = ImageOps.fit(rgb, (self.image_size, self.image_size), Image.Resampling.BICUBIC)
        return np.asarray(rgb), mode

    def _check_sizes(
        self, files: list[ImageFile], images: list[npt.NDArray[np.uint8]], *, like: npt.NDArray[np.uint8]
    ) -> None:
        for file, image in zip(files, images, strict=True):
            if image.shape != like.shape:
                one, other = (f"{height} x {width} px" for height, width, _ in (like.shape, image.shape))
                first = self.files["train"][0].path
                raise UsageError(
                    f"images differ in size: {first} has {one}, {file.path} {other}; give --set image_size=N"
                )


def _shown(path: str | Path) -> str:
    """Write a path for people, a byte that is no character as a question mark."""
    return os.fsencode(path).decode(errors="replace")


def _class_names(folder: Path) -> list[str]:
    names = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))
    if not names:
        raise UsageError(f"no class folders with images in {folder}")
    return names


def _walk(folder: Path) -> list[Path]:
    found = []
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.is_dir():
            found += _walk(Path(entry.path))
        else:
            found.append(Path(entry.path))
    return found
