"""Tiny-ImageNet in the layout in which it is distributed.

``wnids.txt`` has one class identifier a line; ``words.txt`` has identifier, tab, words, also for other classes;
``train/<wnid>/images/*.JPEG``; ``val/images/*.JPEG`` with ``val/val_annotations.txt``: file, tab, identifier, tab and
the corners of a box. ``test/`` has no labels.
"""

from __future__ import annotations

import os
from pathlib import Path

from ablations.config import UsageError
from ablations.data.classes import choose_classes
from ablations.data.files import CLUTTER_FILES, FileList, FileListBuilder, file_size, note_ignored, walk
from ablations.data.folder import NO_IMAGES, check_root, is_image, list_files, note_classes
from ablations.data.tree import ImageTree

KIND = "tiny-imagenet"


def tiny_imagenet(root: Path, *, image_size: int | None, classes: str | None) -> ImageTree:
    """Find Tiny-ImageNet: ``val/`` is the test split, and validation is cut from ``train/``.

    Args:
        root: folder that holds ``wnids.txt``.
        image_size: side to which images are resized and cropped, in pixels; None: unchanged, 64.
        classes: selection of classes by identifier, as in `choose_classes`; None: all.

    Raises:
        UsageError: missing file or folder, invalid annotation, or invalid selection of classes.
    """
    check_root(root)
    wnids = sorted(filter(None, (line.strip() for line in _lines(root / "wnids.txt"))))
    if len(set(wnids)) < len(wnids) or len(wnids) < 2:
        raise UsageError(f"{root / 'wnids.txt'} needs at least two classes, one a line, without repetition")
    pairs = (line.rstrip("\n").partition("\t") for line in _lines(root / "words.txt"))
    words = {wnid: name for wnid, tab, name in pairs if tab}
    if nameless := [wnid for wnid in wnids if wnid not in words]:
        raise UsageError(f"{root / 'words.txt'} has no words for {nameless[0]}, which is in wnids.txt")
    chosen = choose_classes(wnids, classes)
    notes = ["val/ is the test split, and validation is cut from train/"]
    parts = {"train": _train(root, chosen, notes), "test": _val(root, wnids, chosen, notes)}
    if (root / "test").is_dir():
        notes.append("test/ has no labels and is ignored")
    names = [f"{wnid} {words[wnid]}" for wnid in chosen]
    if classes is not None:
        notes.append(note_classes(names, of=len(wnids)))
    return ImageTree(
        kind=KIND, root=root, parts=parts, classes=names, image_size=image_size, notes=notes, by_contents=False
    )


def _train(root: Path, wnids: list[str], notes: list[str]) -> FileList:
    folders = [root / "train" / wnid / "images" for wnid in wnids]
    for folder in folders:
        if not folder.is_dir():
            raise UsageError(f"no folder {folder} for a class of {root / 'wnids.txt'}")
    return list_files(root, "train", folders, notes)


def _val(root: Path, wnids: list[str], chosen: list[str], notes: list[str]) -> FileList:
    folder, table = root / "val" / "images", root / "val" / "val_annotations.txt"
    classes = _annotations(table, wnids)
    if not folder.is_dir():
        raise UsageError(f"no folder {folder}")
    clutter: list[str] = []
    entries = {entry.name: entry for entry in walk(os.fspath(folder), clutter)}
    if missing := sorted(set(classes) - set(entries)):
        raise UsageError(f"{table} names {missing[0]}, which is not in {folder}")
    images = {name for name in entries if is_image(name)}
    if unlabelled := sorted(images - set(classes)):
        raise UsageError(f"{folder / unlabelled[0]} has no line in {table}")
    others = sorted(entries[name].path for name in set(entries) - images - set(classes))
    note_ignored("val", {NO_IMAGES: others, CLUTTER_FILES: clutter}, notes)
    builder = FileListBuilder()
    labels = {wnid: label for label, wnid in enumerate(chosen)}
    for name in sorted(classes):
        if classes[name] in labels:
            builder.add(f"val/images/{name}", label=labels[classes[name]], size=file_size(entries[name]))
    if bare := sorted(set(chosen) - set(classes.values())):
        raise UsageError(f"{table} has no image of class {bare[0]}")
    return builder.build()


def _annotations(path: Path, wnids: list[str]) -> dict[str, str]:
    """Return the class of each file in the table."""
    known, classes = set(wnids), dict[str, str]()
    for number, line in enumerate(_lines(path), start=1):
        if not line.strip():
            continue
        name, *others = line.rstrip("\n").split("\t")
        if not others or others[0] not in known:
            raise UsageError(f"{path}, line {number}: '{line.strip()}' has no class of wnids.txt; repair the line")
        if name in classes:
            raise UsageError(f"{path}, line {number}: {name} is listed twice; repair the line")
        classes[name] = others[0]
    return classes


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise UsageError(f"no file {path}: Tiny-ImageNet's own layout has wnids.txt, words.txt, train/, val/") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from error
