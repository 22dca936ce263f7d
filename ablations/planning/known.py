"""Results that other studies already have of the cells of a plan: claims judged by them were not fixed before."""

from __future__ import annotations

import csv
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ablations.config import CellConfig, Study, UsageError
from ablations.config.claim import TRIAL_KINDS, Claim
from ablations.config.paths import real_path
from ablations.config.settings import settings_of_claims
from ablations.config.values import plural
from ablations.planning.stored import Stored
from ablations.store import study_folders
from ablations.store.reading import exists, read_json, read_text, reason_of
from ablations.store.records import PACKED

LOG = logging.getLogger(__name__)

PUBLISHED = Path("results")
"""Folder of studies beside the current directory, searched in addition to that of the plan."""

RESULTS = ("ok", "diverged")
"""Outcomes that are results."""

COST = "cost_linear_in_tokens"


def mark_known(study: Study, cells: Sequence[CellConfig], *, stored: Stored, out: Path) -> Study:
    """Mark the claims of a study that are judged by cells with a result in another study.

    Only cells count that this plan adds to the study, so that a study whose claims came first stays as it is when
    another one repeats it. Claims that are post hoc in this study have their mark.

    Args:
        study: study of the plan.
        cells: cells of the plan.
        stored: contents of the study's folder.
        out: folder that holds the studies.
    """
    if not study.claims or (stored.study is not None and _have_same_cells(stored.study, study)):
        return study
    new = [cell for cell in cells if stored.study is None or not stored.study.has(cell)]
    judged = _judged_by_condition(study)
    places = {cell.id: Place(study.arm_of(cell), judged.get(study.condition_of(cell), ())) for cell in new}
    claims = study.claims
    for name, folder in _other_studies(stored.store.folder, out):
        if known := _known_places(folder, places):
            has_costs = exists(folder / "cost.csv")
            arms = [{place.arm for place in known if number in place.claims} for number in range(len(claims))]
            claims = tuple(
                _marked(claim, study, name, own, has_costs=has_costs) for claim, own in zip(claims, arms, strict=True)
            )
    return study.model_copy(update={"claims": claims})


class Place(NamedTuple):
    """What a cell says something about.

    Args:
        arm: arm of the cell.
        claims: numbers of the claims that are judged in its condition.
    """

    arm: str
    claims: tuple[int, ...]


def _judged_by_condition(study: Study) -> dict[str, tuple[int, ...]]:
    """Return the numbers of the claims that are judged in each condition."""
    found: dict[str, list[int]] = {}
    for number, settings in enumerate(settings_of_claims(study)):
        for conditions in settings.values():
            for condition in conditions:
                found.setdefault(condition, []).append(number)
    return {condition: tuple(numbers) for condition, numbers in found.items()}


def _have_same_cells(one: Study, other: Study) -> bool:
    return all(getattr(one, name) == getattr(other, name) for name in ("axes", "grids", "per_arm", "points"))


def _other_studies(own: Path, out: Path) -> Iterator[tuple[str, Path]]:
    """Yield the name and the folder of every other study, each once, however many links lead to it.

    One that has lost its study.yaml has its records still.
    """
    seen = {_cells_of(own)}
    for root, prefix in ((out, ""), (PUBLISHED, f"{PUBLISHED}/")):
        for folder in _studies_in(root):
            if (place := _cells_of(folder)) not in seen:
                seen.add(place)
                yield prefix + folder.relative_to(root).as_posix(), folder


def _studies_in(root: Path) -> list[Path]:
    """Return the folders of studies, those of packed cells last; none, and a warning, if they cannot be listed."""
    try:
        return [folder for held in ("cells", PACKED) for folder in study_folders(root, holding=held)]
    except UsageError as error:
        LOG.warning("%s; whether its studies have results of these cells is not known", error)
        return []


def _cells_of(folder: Path) -> Path:
    return real_path(folder / "cells")


def _known_places(folder: Path, places: Mapping[str, Place]) -> set[Place]:
    """Return the places of which a study has the result of one of the cells; it lists names and reads few records.

    Args:
        folder: folder of the study.
        places: place of each cell by its id.
    """
    known: set[Place] = set()
    cells, num_links = folder / "cells", 0
    if not exists(cells):
        return {places[cell] for cell in _packed_results(folder) if cell in places}
    for cell in _folders_in(cells):
        place = None if cell.name.startswith(".") else places.get(cell.name.rpartition("-")[2])
        if place is None or place in known:
            continue
        if cell.is_symlink():
            num_links += 1
        elif _has_result(cell):
            known.add(place)
    if num_links:
        links = plural(num_links, "symbolic link")
        LOG.warning("%s: %s not followed; whether they lead to results of these cells is not known", cells, links)
    return known


def _packed_results(folder: Path) -> Iterator[str]:
    """Yield the ids of the cells with a result of a study whose cells are packed, from its results.csv."""
    try:
        rows = list(csv.DictReader(read_text(folder / "results.csv").splitlines()))
    except (OSError, ValueError, csv.Error) as error:
        LOG.warning("%s is packed; whether it has results of these cells is not known: %s", folder / PACKED, error)
        return
    yield from (row.get("cell") or "" for row in rows if row.get("outcome") in RESULTS)


def _folders_in(cells: Path) -> list[Path]:
    """Return the folders of cells, and links; none, and a warning, if they cannot be listed."""
    try:
        with os.scandir(cells) as found:
            return [Path(entry.path) for entry in found if entry.is_symlink() or entry.is_dir()]
    except FileNotFoundError:
        return []
    except OSError as error:
        LOG.warning("%s: %s; whether it has results of these cells is not known", cells, reason_of(error))
        return []


def _has_result(cell: Path) -> bool:
    try:
        outcome = read_json(cell / "outcome.json")
    except (OSError, ValueError) as error:
        LOG.warning("%s cannot be read: %s; it counts as no result", cell, reason_of(error))
        return False
    return isinstance(outcome, dict) and outcome.get("outcome") in RESULTS


def _marked(claim: Claim, study: Study, name: str, known: set[str], *, has_costs: bool) -> Claim:
    """Mark a claim that cells of the known arms judge."""
    is_judged_here = (claim.kind in TRIAL_KINDS) == study.is_tuning
    if claim.post_hoc or not is_judged_here or (claim.kind == COST and not has_costs):
        return claim
    judged = study.arm_names if claim.kind == "better_than_every_other" else claim.arms
    before = next((each for each in claim.known_from if each == name or each.startswith(f"{name} (only ")), None)
    if before == name:
        return claim
    earlier = [] if before is None else before.removeprefix(f"{name} (only ").removesuffix(")").split(", ")
    own = [arm for arm in judged if arm in known or arm in earlier]
    source = name if len(own) == len(judged) else f"{name} (only {', '.join(own)})"
    if not own or source == before:
        return claim
    others = [each for each in claim.known_from if each != before]
    return claim.model_copy(update={"known_from": (*others, source)})
