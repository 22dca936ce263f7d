"""Folders of train, validation and test, by the names that people give them."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

from ablations.config import UsageError
from ablations.config.paths import real_path
from ablations.data.files import CLUTTER_FILES, is_clutter, note_ignored, shown

SPELLINGS = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test", "testing")}
"""Part to the names that its folder may have."""

MIN_LIKENESS = 0.7
"""Smallest ratio of `difflib` at which a name is close to a spelling: ``trian``, ``evaluation``, ``train_set``."""

MAX_NAMED = 5
"""Largest number of folders that a message lists."""


def find_parts(root: Path) -> tuple[dict[str, str], list[str]]:
    """Find the folders of the parts of a data set.

    Args:
        root: folder of the data set.

    Returns:
        Name of the folder of each part that has one, and notes on other spellings and on ignored folders.

    Raises:
        UsageError: two folders for one part, or no folders of train and of val or test.
    """
    with os.scandir(root) as entries:
        ordered = sorted(entries, key=lambda entry: entry.name)
    names = [entry.name for entry in ordered if entry.is_dir() and not is_clutter(entry.name)]
    folders: dict[str, str] = {}
    notes: list[str] = []
    for part, spellings in SPELLINGS.items():
        own = [name for name in spellings if name in names]
        if len(own) > 1:
            both = " and ".join(f"{name}/" for name in own)
            raise UsageError(f"{root} has {both}, which are names of the same part; rename or remove all but one")
        if own:
            folders[part] = own[0]
        if own and own[0] != part:
            notes.append(f"{own[0]}/ is taken as {part}/")
    others = [name for name in names if name not in folders.values()]
    renames = _renames(others, [part for part in SPELLINGS if part not in folders])
    if "train" not in folders or len(folders) < 2:
        hint = f"; rename {' and '.join(renames)}" if renames else ""
        raise UsageError(f"{root} needs the folders train/ and val/ or test/; it has {_listed(names)}{hint}")
    if others:
        hint = f"; if it is one of the parts, rename {' and '.join(renames)}" if renames else ""
        notes.append(f"ignored folders: {_listed(others)}{hint}")
    clutter = [entry.path for entry in ordered if is_clutter(entry.name)]
    note_ignored(shown(real_path(root).name), {CLUTTER_FILES: clutter}, notes)
    return folders, notes


def _renames(names: list[str], parts: list[str]) -> list[str]:
    """Suggest a renaming for each missing part that a folder's name is close to."""
    renames = []
    for part in parts:
        near = difflib.get_close_matches
        close = [name for name in names if near(name.lower(), SPELLINGS[part], n=1, cutoff=MIN_LIKENESS)]
        renames += [f"{name}/ to {part}/" for name in close[:1]]
    return renames


def _listed(names: list[str]) -> str:
    """Format names of folders.

    >>> _listed(["a", "b"]), _listed([str(i) for i in range(1000)]), _listed([])
    ('a/, b/', '0/, 1/, 2/, 3/, 4/ and 995 more', 'none')
    """
    more = f" and {len(names) - MAX_NAMED:,} more" if len(names) > MAX_NAMED else ""
    return ", ".join(f"{name}/" for name in names[:MAX_NAMED]) + more if names else "none"
