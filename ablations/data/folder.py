"""Folders of class folders with images, such as ImageNet."""

from __future__ import annotations

import os
from pathlib import Path

from ablations.config import UsageError
from ablations.data.classes import choose_classes
from ablations.data.files import FileList, FileListBuilder, file_size, shown, walk
from ablations.data.image import EXTENSIONS
from ablations.data.tree import ImageTree


def image_folder(root: Path, *, kind: str, image_size: int | None, classes: str | None, by_contents: bool) -> ImageTree:
    """Find ``DIR/{train,val,test}/<class>/**/*.jpg``.

    ``test/`` is the test split. Without it, ``val/`` is the test split and validation is cut from train.

    Args:
        root: folder DIR.
        kind: ``imagefolder``, or ``imagenet``, whose unlabelled ``test/`` is ignored.
        image_size: side to which images are resized and cropped, in pixels; None: all have one size.
        classes: selection of classes, as in `choose_classes`; None: all.
        by_contents: whether the fingerprint hashes contents instead of sizes.

    Raises:
        UsageError: missing or empty folder, classes that differ between parts, or invalid selection of classes.
    """
    check_root(root)
    parts = [part for part in ("train", "val", "test") if (root / part).is_dir()]
    notes: list[str] = []
    if kind == "imagenet" and "test" in parts and not _class_folders(root / "test"):
        parts.remove("test")
        notes.append("test/ has no class folders, hence no labels, and is ignored")
    if "train" not in parts or len(parts) < 2:
        raise UsageError(f"{root} needs the folders train/ and val/ or test/; it has {', '.join(parts) or 'neither'}")
    names = _class_names(root / "train")
    for part in parts:
        _check_classes(root, part, names)
    chosen = choose_classes(names, classes)
    files: dict[str, FileList] = {}
    for part in parts:
        files[part] = list_files(root, part, [root / part / name for name in chosen], notes)
        _note_left_out(root / part, notes)
    if "test" not in files:
        files["test"] = files.pop("val")
        notes.append("no test/: val/ is the test split, and validation is cut from train/")
    if classes is not None:
        notes.append(note_classes(chosen, of=len(names)))
    return ImageTree(
        kind=kind, root=root, parts=files, classes=chosen, image_size=image_size, notes=notes, by_contents=by_contents
    )


def check_root(root: Path) -> None:
    """Check the folder of a data set.

    Raises:
        UsageError: missing folder, or undecodable folder name.
    """
    if not root.is_dir():
        raise UsageError(f"no folder {root}")
    if shown(root.resolve()) != str(root.resolve()):
        raise UsageError(f"the folder name {shown(root)} cannot be decoded as text; rename it")


def note_classes(chosen: list[str], *, of: int) -> str:
    """Format the selected classes as a note.

    >>> note_classes(["cat", "dog"], of=5)
    '2 of 5 classes: cat, dog'
    """
    few = ", ".join(chosen[:10]) + (f" and {len(chosen) - 10} more, in each cell's record" if len(chosen) > 10 else "")
    return f"{len(chosen):,} of {of:,} classes: {few}"


def note_no_images(part: str, others: list[str], notes: list[str]) -> None:
    """Add a note on the files without an image extension."""
    if others:
        notes.append(f"{part}/: ignored files without an image extension: {len(others)}, first {shown(others[0])}")


def is_image(name: str) -> bool:
    """Return whether a file name has an image extension."""
    return os.path.splitext(name)[1].lower() in EXTENSIONS  # noqa: PTH122  # Path objects are slow for a million names


def list_files(root: Path, part: str, folders: list[Path], notes: list[str]) -> FileList:
    """List the images of a part, with a folder for each label; add a note on other files.

    Raises:
        UsageError: folder without images, or unreadable file.
    """
    builder = FileListBuilder()
    others: list[str] = []
    above = len(os.fspath(root)) + 1
    for label, folder in enumerate(folders):
        before = len(builder)
        for entry in walk(os.fspath(folder)):
            if is_image(entry.name):
                builder.add(entry.path[above:], label=label, size=file_size(entry))
            else:
                others.append(entry.path)
        if len(builder) == before:
            raise UsageError(f"no images in {folder}")
    note_no_images(part, others, notes)
    return builder.build()


def _check_classes(root: Path, part: str, classes: list[str]) -> None:
    names = _class_names(root / part)
    if missing := sorted(set(classes) - set(names)):
        raise UsageError(f"class '{missing[0]}' is in {root / 'train'} but not in {root / part}")
    if extra := sorted(set(names) - set(classes)):
        raise UsageError(f"class '{extra[0]}' is in {root / part} but not in {root / 'train'}")


def _note_left_out(folder: Path, notes: list[str]) -> None:
    entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    hidden = [entry.path for entry in entries if entry.is_dir() and entry.name.startswith(".")]
    loose = [entry.path for entry in entries if not entry.is_dir()]
    for paths, what in ((hidden, "hidden folders"), (loose, "files outside class folders")):
        if paths:
            notes.append(f"{folder.name}/: ignored {what}: {len(paths)}, first {shown(paths[0])}")


def _class_folders(folder: Path) -> list[str]:
    return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))


def _class_names(folder: Path) -> list[str]:
    if not (names := _class_folders(folder)):
        raise UsageError(f"no class folders with images in {folder}")
    return names
