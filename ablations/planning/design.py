"""From the values that are asked for to a study and its cells."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ablations.config import CellConfig, Study, UsageError, recipes
from ablations.config.request import SMOKE_IMAGES, SMOKE_OBJECTS, Request
from ablations.config.study import Defaults, design
from ablations.config.task import task_of
from ablations.config.types import Task
from ablations.planning.asked import searched_fields
from ablations.planning.initial import InitialWeights
from ablations.planning.study_data import StudyData
from ablations.store import TRIALS, Store


def design_study(
    request: Request,
    asked: Mapping[str, list[Any]],
    data: StudyData,
    weights: InitialWeights,
    *,
    store: Store,
    ref: str | None,
) -> tuple[Study, list[CellConfig]]:
    """Make the study that a request asks for, and its cells.

    Args:
        request: Request.
        asked: Values of each field, completed.
        data: Data sets of the study.
        weights: Weights that nets start from.
        store: Folder of the study, which gives it its name.
        ref: Name of the reference arm; None: the default.

    Raises:
        UsageError: Values that contradict each other, or a tuning with several conditions.
    """
    task = task_of(asked)
    recipe = {field: [value] for field, value in recipes.recipe_fields(request.recipe, task).items()}
    derived: dict[str, list[Any]] = {
        "smoke": [request.smoke],
        "scored_on": ["val" if request.trials else "test"],
        "init": [weights.hash],
    }
    values = {**recipe, **asked, "data": data.names, **derived}
    values = {field: each for field, each in values.items() if field not in searched_fields(request)}
    if request.smoke:
        values = _limited(values, data, task)
    folder = store.folder
    study, cells = design(
        name=f"{folder.parent.name}/{TRIALS}" if request.trials else folder.name,
        asked=values,
        compare=request.compare,
        ref=ref,
        recipe=request.recipe,
        defaults=_defaults(request, data, task, from_weights=weights.hash != "none"),
        question=request.question,
        search=request.search,
        points=request.points,
        plugins=request.plugins,
        claims=request.claims,
    )
    if request.trials and study.conditions:
        raise UsageError(
            f"a tuning has one condition, and {', '.join(study.conditions)} has several values: tune one by one"
        )
    return study, cells


def _defaults(request: Request, data: StudyData, task: Task, *, from_weights: bool) -> Defaults:
    """Return the function that gives a value for every field that is not asked for."""

    def defaults(fields: Mapping[str, Any]) -> dict[str, Any]:
        info = data.info(fields["data"], fields.get("image_size"), fields.get("classes"))
        values = recipes.defaults(
            image_side=min(info.image_shape[:2]),
            flips=info.flips,
            task=task,
            recipe=request.recipe,
            streamed=info.streamed,
            batch_size=fields.get("batch_size"),
            from_weights=from_weights,
        )
        return {**values, "data_fingerprint": info.fingerprint, "streamed": info.streamed}

    return defaults


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
