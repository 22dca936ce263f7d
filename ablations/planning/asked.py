"""Values that a request asks for, completed by defaults, and the folder of its study."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ablations.config import UsageError
from ablations.config.claim import Claim, check_distinct
from ablations.config.commands import DEFAULT_NORMS, DEFAULT_SEEDS
from ablations.config.effects import check_nets
from ablations.config.errors import first_error
from ablations.config.grid import GridRequest
from ablations.config.make_grids import check_requests
from ablations.config.nets import is_foreign, is_timm
from ablations.config.packages import require_package
from ablations.config.request import Request
from ablations.config.task import METRIC_FIELDS, task_of
from ablations.config.types import Task
from ablations.config.values import check_field, check_values, parse_values, value_name
from ablations.data import OWN_SIZE
from ablations.planning.study_data import StudyData
from ablations.store import TRIALS
from ablations.tasks.net import check_foreign_name
from ufo.norms import NORMS
from ufo.sizes import SIZES


def complete(request: Request) -> dict[str, list[Any]]:
    """Return the values of every requested field in all grids, with the default data set, normalisers and seeds.

    Raises:
        UsageError: a field that cannot be compared, an unknown name, or a value that a field cannot have.
    """
    if request.compare == "data":
        raise UsageError("--compare data: arms see the same batches; give several to --data for a table of each")
    if request.compare == "seed":
        raise UsageError(f"--compare {request.compare}: seeds are replicates and cannot be arms; choose another field")
    if request.compare == "eval_limit":
        raise UsageError("--compare eval_limit: arms are evaluated on the same images; compare another field")
    if request.compare in METRIC_FIELDS:
        raise UsageError(f"--compare {request.compare}: its values have different metrics; choose another field")
    check_field(request.compare)
    asked = _united(base_values(request), request.grids)
    own_sizes = {OWN_SIZE.get(str(spec).partition(":")[0]) for spec in asked["data"]}
    if len(own_sizes) == 1 and own_sizes != {None}:
        asked.setdefault("image_size", list(own_sizes))
    for field, values in asked.items():
        check_values(field, values)
    for name in asked["norm"]:
        NORMS[name]
    for model in asked.get("model", []):
        check_model(model, task_of(asked))
    check_nets(asked)
    return asked


def base_values(request: Request) -> dict[str, list[Any]]:
    """Return the values that hold for every grid which does not give its own, with the defaults of a study.

    Raises:
        UsageError: too many cells, or fields that cannot be zipped.
    """
    norms = list(DEFAULT_NORMS) if request.compare == "norm" else ["xnorm"]
    data = "shapes" if request.asked.get("task") == ["detect"] else "digits"
    base: dict[str, list[Any]] = {"data": [data], "norm": norms, "seed": list(range(DEFAULT_SEEDS))}
    base |= request.asked
    check_requests(base, request.grids or [GridRequest()])
    return base


def complete_grids(request: Request, asked: Mapping[str, list[Any]]) -> list[GridRequest]:
    """Return the requested grids, each with values of all fields that one of them gives.

    Args:
        request: request.
        asked: values of each field, completed.
    """
    base, named = base_values(request), {name: None for grid in request.grids for name in grid.asked}
    held = {name: base.get(name, asked[name]) for name in asked if name in base or name not in named}
    return [replace(grid, asked={**held, **grid.asked}) for grid in request.grids]


def _united(base: Mapping[str, list[Any]], grids: Sequence[GridRequest]) -> dict[str, list[Any]]:
    """Return the values of each field in all grids."""
    united: dict[str, list[Any]] = {}
    for grid in grids or [GridRequest()]:
        for name, values in {**base, **grid.asked}.items():
            united[name] = list(dict.fromkeys((*united.get(name, ()), *values)))
    return united if grids else dict(base)


def with_per_arm(asked: Mapping[str, list[Any]], request: Request) -> dict[str, list[Any]]:
    """Return the values of each field, including those that depend on the arm."""
    values = {name: list(each) for name, each in asked.items()}
    for own in request.per_arm.values():
        for name, value in own.items():
            values[name] = list(dict.fromkeys((*values.get(name, ()), value)))
    return values


def check_model(model: str, task: Task) -> None:
    """Reject a model that is unknown, not for the task, or of a package that is not installed."""
    if is_timm(model):
        require_package("timm", f"model {model}")
    if is_foreign(model):
        check_foreign_name(model, task)
    else:
        SIZES[model]


def parse_ref(request: Request) -> str | None:
    """Return the name of the requested reference arm; None for the default.

    Raises:
        UsageError: several arms, or a value that the compared field cannot have.
    """
    return None if request.ref is None else _arm_name(request.compare, request.ref, f"--ref {request.ref}")


def name_claimed_arms(request: Request) -> Request:
    """Return the request with the arms of its claims named as those of the study: ``0.001`` for ``1e-3``.

    Raises:
        UsageError: several arms, a value that the compared field cannot have, or a claim that comes twice.
    """
    named = []
    for claim in request.claims:
        arms = {key: arm for key, arm in (("arm", claim.arm), ("than", claim.than)) if arm is not None}
        own = {key: _arm_name(request.compare, arm, f"a claim is about {arm}") for key, arm in arms.items()}
        try:
            named.append(Claim.model_validate({**claim.model_dump(), **own}))
        except ValidationError as error:
            raise UsageError(f"claim '{claim.statement}': {first_error(error)}") from None
    check_distinct(named)
    return replace(request, claims=tuple(named))


def _arm_name(compare: str, text: str, what: str) -> str:
    """Return the name of the arm that a text stands for; an error begins with what the text is."""
    try:
        values = parse_values(compare, text)
    except UsageError as error:
        raise UsageError(f"{what}: {error}") from None
    if len(values) > 1:
        raise UsageError(f"{what}: give one arm")
    return value_name(values[0])


def searched_fields(request: Request) -> list[str]:
    """Return the fields that a tuning searches; empty without a tuning."""
    return [] if request.search is None else request.search.fields


def study_folder(request: Request, data: StudyData) -> Path:
    """Return the folder of the study; trials have a folder inside that of their winners' study."""
    folder = request.out / _name(request, data)
    return folder / TRIALS if request.trials else folder


def _name(request: Request, data: StudyData) -> str:
    if request.name is not None:
        if not re.fullmatch(r"\w[\w.+-]*", request.name):
            raise UsageError(
                f"--study {request.name}: a name has only letters, digits, '.', '_', '+', '-'; set the folder by --out"
            )
        return request.name
    sets = "-".join(name.partition(":")[2] or name for name in data.names)
    name = re.sub(r"[^\w.-]", "_", f"{request.compare}-{sets}{'-tuned' if request.search else ''}")
    return f"{name}-smoke" if request.smoke else name
