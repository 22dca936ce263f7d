"""Folders of class folders with images, such as ImageNet."""

from __future__ import annotations

import os
from pathlib import Path

from ablations.config import UsageError
from ablations.config.escape import is_readable, visible
from ablations.data.classes import choose_classes
from ablations.data.files import (
    CLUTTER_FILES,
    FileList,
    FileListBuilder,
    file_size,
    is_clutter,
    note_ignored,
    shown,
    walk,
)
from ablations.data.image import EXTENSIONS
from ablations.data.part_folders import find_parts
from ablations.data.tree import ImageTree

NO_IMAGES = "files without an image extension"
"""Ignored files in class folders, as a note calls them."""


def image_folder(root: Path, *, kind: str, image_size: int | None, classes: str | None, by_contents: bool) -> ImageTree:
    """Find ``DIR/{train,val,test}/<class>/**/*.jpg``, or other spellings of the three (see `find_parts`).

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
    folders, notes = find_parts(root)
    if kind == "imagenet" and "val" in folders and "test" in folders and not _class_folders(root / folders["test"]):
        notes.append(f"{folders.pop('test')}/ has no class folders, hence no labels, and is ignored")
    names = _class_names(root / folders["train"])
    for folder in folders.values():
        _check_classes(root, folder, train=folders["train"], classes=names)
    chosen = choose_classes(names, classes)
    files: dict[str, FileList] = {}
    for part, folder in folders.items():
        files[part] = list_files(root, folder, [root / folder / name for name in chosen], notes)
        _note_left_out(root / folder, notes)
    if "test" not in files:
        files["test"] = files.pop("val")
        cut = f"{folders['val']}/ is the test split, and validation is cut from {folders['train']}/"
        notes.append(f"no test/: {cut}")
    if classes is not None:
        notes.append(note_classes(chosen, of=len(names)))
    return ImageTree(
        kind=kind, root=root, parts=files, classes=chosen, image_size=image_size, notes=notes, by_contents=by_contents
    )


def check_root(root: Path) -> None:
    """Check the folder of a data set.

    Raises:
        UsageError: missing folder.
    """
    if not root.is_dir():
        raise UsageError(f"no folder {root}")


def note_classes(chosen: list[str], *, of: int) -> str:
    """Format the selected classes as a note.

    >>> note_classes(["cat", "dog"], of=5)
    '2 of 5 classes: cat, dog'
    """
    few = ", ".join(chosen[:10]) + (f" and {len(chosen) - 10} more, in each cell's record" if len(chosen) > 10 else "")
    return f"{len(chosen):,} of {of:,} classes: {few}"


def is_image(name: str) -> bool:
    """Return whether a file name has an image extension."""
    return os.path.splitext(name)[1].lower() in EXTENSIONS  # noqa: PTH122  # Path objects are slow for a million names


def list_files(root: Path, part: str, folders: list[Path], notes: list[str]) -> FileList:
    """List the images of a part, with a folder for each label; add a note on other files.

    Args:
        root: folder of the data set.
        part: name of the part's folder.
        folders: folder of each label.
        notes: notes to add to.

    Raises:
        UsageError: folder without images, or unreadable file.
    """
    builder = FileListBuilder()
    others: list[str] = []
    clutter: list[str] = []
    above = len(os.fspath(root)) + 1
    for label, folder in enumerate(folders):
        before, others_before, clutter_before = len(builder), len(others), len(clutter)
        for entry in walk(os.fspath(folder), clutter):
            if is_image(entry.name):
                builder.add(entry.path[above:], label=label, size=file_size(entry))
            else:
                others.append(entry.path)
        if len(builder) == before:
            raise _empty_error(root, folder, others[others_before:] + clutter[clutter_before:])
    note_ignored(part, {NO_IMAGES: others, CLUTTER_FILES: clutter}, notes)
    return builder.build()


def _check_classes(root: Path, part: str, *, train: str, classes: list[str]) -> None:
    names = _class_names(root / part)
    for one, other, lone in (
        (train, part, sorted(set(classes) - set(names))),
        (part, train, sorted(set(names) - set(classes))),
    ):
        if lone:
            clutter: list[str] = []
            files = [entry.path for entry in walk(os.fspath(root / one / lone[0]), clutter)]
            if not any(map(is_image, files)):
                raise _empty_error(root, root / one / lone[0], files + clutter)
            raise UsageError(f"class '{lone[0]}' is in {root / one} but not in {root / other}")


def _empty_error(root: Path, folder: Path, others: list[str]) -> UsageError:
    what = f", only other files, {len(others)}, first {shown(others[0])}" if others else ""
    found = f"class folder {shown(folder.relative_to(root))} is empty: no images in {shown(folder)}{what}"
    return UsageError(f"{found}; add images, or remove the class from every part")


def _note_left_out(folder: Path, notes: list[str]) -> None:
    entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    hidden = [entry.path for entry in entries if entry.is_dir() and is_clutter(entry.name)]
    loose = [entry.path for entry in entries if not entry.is_dir()]
    note_ignored(folder.name, {"hidden and system folders": hidden, "files outside class folders": loose}, notes)


def _class_folders(folder: Path) -> list[str]:
    return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not is_clutter(entry.name))


def _class_names(folder: Path) -> list[str]:
    if not (names := _class_folders(folder)):
        raise UsageError(f"no class folders with images in {folder}")
    if odd := [name for name in names if not is_readable(name)]:
        raise UsageError(f"the folder name {visible(str(folder / odd[0]))} cannot be decoded as text; rename it")
    return names
