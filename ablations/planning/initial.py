"""Classifiers' weights that detectors start from: found, and hashed into one name for all arms."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ablations.config import UsageError

WEIGHTS = "weights.safetensors"


@dataclass(frozen=True)
class InitialWeights:
    """What the backbones of a study start from.

    Args:
        hash: of the weights of every arm, by which a cell's configuration names them; ``none`` where there are none.
        paths: file of each normaliser's weights.
    """

    hash: str = "none"
    paths: tuple[tuple[str, str], ...] = ()


def find_weights(cells: Sequence[Path], *, norms: Sequence[str]) -> InitialWeights:
    """Find the weights of classifiers, one for each normaliser.

    Args:
        cells: folders of finished cells.
        norms: arms that need some.

    Raises:
        UsageError: a folder without weights, two of one normaliser, or a normaliser without any.
    """
    if not cells:
        return InitialWeights()
    found: dict[str, Path] = {}
    for folder in cells:
        norm, path = _norm_of(folder), folder / WEIGHTS
        if norm in found:
            raise UsageError(f"--init: {found[norm].parent} and {folder} are both of {norm}; give one")
        found[norm] = path
    if lacking := [norm for norm in norms if norm not in found]:
        have = ", ".join(found)
        raise UsageError(
            f"--init has weights of {have}, and none of {', '.join(lacking)}: each arm starts from its own"
        )
    if unused := [norm for norm in found if norm not in norms]:
        raise UsageError(f"--init {found[unused[0]].parent}: {unused[0]} is none of the normalisers asked for")
    digest = hashlib.sha256()
    for norm in sorted(found):
        digest.update(f"{norm} {hashlib.sha256(found[norm].read_bytes()).hexdigest()}\n".encode())
    return InitialWeights(digest.hexdigest()[:12], tuple((norm, str(path.absolute())) for norm, path in found.items()))


def _norm_of(folder: Path) -> str:
    """Return the normaliser of a cell that has left its weights."""
    if not (folder / WEIGHTS).is_file():
        raise UsageError(f"--init {folder}: no {WEIGHTS} there; a cell leaves them with --save-weights last")
    from ablations.tasks.detect.start import read_classifier

    try:
        return read_classifier(folder / WEIGHTS).net.norm
    except (OSError, ValueError) as error:
        raise UsageError(f"--init {folder}: {str(error).splitlines()[0]}") from error
