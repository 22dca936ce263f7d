"""Classifier weights that detectors start from, found and hashed into one name for all arms."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ablations.config import Study, UsageError
from ablations.config.nets import is_foreign
from ablations.config.request import Request
from ablations.config.task import task_of
from ablations.store.digests import check_weights
from ablations.store.reading import exists

WEIGHTS = "weights.safetensors"


@dataclass(frozen=True)
class InitialWeights:
    """Weights that the backbones of a study start from.

    Args:
        hash: hash of the weights of all arms, which cells hold as ``init``; ``none`` if there are none.
        paths: pairs of a normaliser and the file of its weights.
    """

    hash: str = "none"
    paths: tuple[tuple[str, str], ...] = ()


def find_weights(cells: Sequence[Path], *, norms: Sequence[str]) -> InitialWeights:
    """Find the weights of one classifier for each normaliser.

    Args:
        cells: folders of finished cells.
        norms: normalisers that need weights.

    Raises:
        UsageError: a folder without weights, two of one normaliser, or a normaliser without weights or not in `norms`.
    """
    if not cells:
        return InitialWeights()
    found: dict[str, Path] = {}
    for folder in cells:
        norm, path = _norm_of(folder), folder / WEIGHTS
        if norm in found:
            raise UsageError(f"--init: {found[norm].parent} and {folder} are both cells of {norm}; give one")
        found[norm] = path
    if lacking := [norm for norm in norms if norm not in found]:
        have = ", ".join(found)
        raise UsageError(f"--init has weights of {have} but not of {', '.join(lacking)}: give a cell of each arm")
    if unused := [norm for norm in found if norm not in norms]:
        raise UsageError(f"--init {found[unused[0]].parent}: {unused[0]} is not an arm of the study; leave it out")
    digest = hashlib.sha256()
    for norm in sorted(found):
        digest.update(f"{norm} {hashlib.sha256(found[norm].read_bytes()).hexdigest()}\n".encode())
    return InitialWeights(digest.hexdigest()[:12], tuple((norm, str(path.absolute())) for norm, path in found.items()))


def find_initial(request: Request, asked: Mapping[str, list[Any]], stored: Study | None) -> InitialWeights:
    """Find the weights that nets start from, and check them against the stored study.

    Raises:
        UsageError: other weights, or a task or nets that start from their seeds only.
    """
    if request.init and task_of(asked) != "detect":
        raise UsageError("--init is for --task detect: a classifier starts from its seed")
    if request.init and "matched" in asked.get("scale", []):
        raise UsageError("--init and --scale matched: trained weights have a scale of their own; leave one out")
    if request.init and (foreign := [model for model in asked.get("model", []) if is_foreign(model)]):
        raise UsageError(f"--init is for UFO-ViT, and does not apply to {foreign[0]}")
    weights = find_weights(request.init, norms=asked["norm"])
    held = weights.hash if stored is None else stored.fixed.get("init", "none")
    if held != weights.hash:
        what = "starts from its seeds: omit --init" if held == "none" else "starts from weights: give the same --init"
        raise UsageError(f"study {stored.name if stored else ''} {what} (init {held}, not {weights.hash})")
    return weights


def _norm_of(folder: Path) -> str:
    """Return the normaliser of a cell with saved weights."""
    if not exists(folder / WEIGHTS):
        raise UsageError(f"--init {folder}: no {WEIGHTS} there; run the cell with --save-weights last")
    from ablations.tasks.detect.start import read_classifier

    check_weights(folder, WEIGHTS)
    try:
        return read_classifier(folder / WEIGHTS).net.norm
    except (OSError, ValueError) as error:
        raise UsageError(f"--init {folder}: {str(error).splitlines()[0]}") from error
