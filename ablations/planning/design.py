"""From the values that are asked for to a study and its cells."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ablations.config import CellConfig, Study, UsageError, recipes
from ablations.config.expand import design
from ablations.config.request import SMOKE_IMAGES, SMOKE_OBJECTS, Request
from ablations.config.task import task_of
from ablations.config.types import Task
from ablations.planning.asked import complete_grids, searched_fields
from ablations.planning.study_data import StudyData
from ablations.store import TRIALS, Store


def design_study(
    request: Request,
    asked: Mapping[str, list[Any]],
    data: StudyData,
    *,
    store: Store,
    init: str,
    ref: str | None,
) -> tuple[Study, list[CellConfig]]:
    """Make the study that a request asks for, and its cells.

    Args:
        request: request.
        asked: values of each field, completed.
        data: data sets of the study.
        store: folder of the study, which gives it its name.
        init: hash of the weights that nets start from; ``none``: they start from their seeds.
        ref: name of the reference arm; None: the default.

    Raises:
        UsageError: values that contradict each other, or a tuning with several conditions.
    """
    task, grids = task_of(asked), complete_grids(request, asked)
    recipe = {field: [value] for field, value in recipes.recipe_fields(request.recipe, task).items()}
    given = {} if grids else data.with_names(asked)  # each grid has all of it
    values = {**recipe, **given, "smoke": [request.smoke], "init": [init]}
    values["scored_on"] = ["val" if request.trials else "test"]
    values = {field: each for field, each in values.items() if field not in searched_fields(request)}
    if request.smoke:
        values = _limited(values, data, task)
        grids = [replace(grid, asked=_limited(dict(grid.asked), data, task)) for grid in grids]
    folder = store.folder
    study, cells = design(
        name=f"{folder.parent.name}/{TRIALS}" if request.trials else folder.name,
        asked=values,
        compare=request.compare,
        ref=ref,
        recipe=request.recipe,
        grids=[replace(grid, asked=data.with_names(grid.asked)) for grid in grids],
        per_arm=request.per_arm,
        defaults=functools.partial(_defaults, request, data, task, init != "none"),
        question=request.question,
        search=request.search,
        points=request.points,
        plugins=request.plugins,
        claims=request.claims,
    )
    if request.trials and study.conditions:
        several = f"several values of {' and of '.join(study.conditions)}"
        raise UsageError(f"a tuning has one condition, and cannot have {several}: tune one by one")
    return study, cells


def _defaults(
    request: Request, data: StudyData, task: Task, from_weights: bool, fields: Mapping[str, Any]
) -> dict[str, Any]:
    """Return a value for every field that is not asked for, given the values of those that are."""
    info = data.info(fields["data"], fields.get("image_size"), fields.get("classes"))
    values = recipes.defaults(
        image_side=min(info.image_shape[:2]),
        flips=info.flips,
        task=task,
        recipe=request.recipe,
        streamed=info.streamed,
        batch_size=fields.get("batch_size"),
        from_weights=from_weights,
        masks=fields.get("masks", True),
    )
    return {**values, "data_fingerprint": info.fingerprint, "streamed": info.streamed}


def _limited(asked: dict[str, list[Any]], data: StudyData, task: Task) -> dict[str, list[Any]]:
    """Reduce the images and the batch of a smoke run to the number of images that there are."""
    fewest = min(info.num_train for info in data.by_fingerprint.values())
    for field, values in (SMOKE_OBJECTS if task == "detect" else SMOKE_IMAGES).items():
        if asked.get(field) == values:
            fewest = min(fewest, *values)  # a batch is no larger than the images taken
            asked = {**asked, field: [fewest]}
        elif field == "train_limit" and asked.get(field):
            fewest = min(fewest, *(value for value in asked[field] if value is not None))
    return asked
