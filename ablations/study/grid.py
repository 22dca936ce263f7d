"""A study: a grid of cells with one question. From what is asked to cells, and how a study may grow."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, model_validator

from ablations.study.cell import CellConfig
from ablations.study.claim import Claim, merge_claims
from ablations.study.config import make_config
from ablations.study.errors import UsageError
from ablations.study.values import check_values, value_name

FORMAT: Literal[1] = 1
"""Version of study.yaml."""

ALWAYS_AXES = ("norm", "seed")

DATA_FIELDS = ("data", "image_size", "classes")
"""What a data set is in a study: each combination of their values decides fields of its own, such as the patch."""

Defaults = Callable[[Mapping[str, Any]], Mapping[str, Any]]
"""From the fields of a cell that were asked for to a value for every other field that needs one."""


class Study(BaseModel):
    """What was asked, complete.

    Args:
        name: of the study and its folder.
        question: one sentence, from the experiment file; empty where there is none.
        compare: the field whose values are the arms.
        ref: the arm that every other is compared with; None where there is one arm only.
        recipe: gave the values of fields that were not asked for; None: not recorded.
        axes: values of every field that varies, in the order of the expansion; ``seed`` is one of them.
        fixed: value of every field that neither varies nor is decided by the data set.
        per_data: where one of `DATA_FIELDS` is an axis, for each combination the fields that it decides and that were
            not asked for; else they stand in ``fixed``.
        plugins: modules that were imported to register normalisers.
        claims: what its numbers are to support or to contradict.
        history: one line for each extension.
        num_looks: extensions of its axes that were asked for when cells of it had results, and so could be seen.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = FORMAT
    name: str
    question: str = ""
    compare: str = "norm"
    ref: str | None = None
    recipe: str | None = None
    axes: dict[str, list[Any]]
    fixed: dict[str, Any]
    per_data: dict[str, dict[str, Any]] = {}
    plugins: tuple[str, ...] = ()
    claims: tuple[Claim, ...] = ()
    history: tuple[str, ...] = ()
    num_looks: int = 0

    @property
    def arms(self) -> list[Any]:
        """Values of the compared field."""
        return self.axes[self.compare]

    @property
    def arm_names(self) -> list[str]:
        """Each arm as files, tables and ``--ref`` have it."""
        return [value_name(value) for value in self.arms]

    @property
    def conditions(self) -> dict[str, list[Any]]:
        """Every other axis of several values: tables and tests are per combination of them."""
        others = {field: values for field, values in self.axes.items() if field not in (self.compare, "seed")}
        return {field: values for field, values in others.items() if len(values) > 1}

    @property
    def condition_names(self) -> list[str]:
        """Every combination of the conditions' values, in the order of the expansion; one empty name without any."""
        points = itertools.product(*self.conditions.values())
        return [point_name(dict(zip(self.conditions, values, strict=True)), self.conditions) for values in points]

    @property
    def data_points(self) -> dict[str, dict[str, Any]]:
        """Each data set at each image size that was asked for, by `point_name`: every field that is no other axis."""
        fields = [field for field in DATA_FIELDS if field in self.axes]
        points = {}
        for values in itertools.product(*(self.axes[field] for field in fields)):
            point = dict(zip(fields, values, strict=True))
            name = point_name(point, fields)
            if name in self.per_data or not fields:  # a product that has grown has points that nobody asked for yet
                points[name] = {**self.fixed, **point, **self.per_data.get(name, {})}
        return points

    def has(self, cell: CellConfig) -> bool:
        """Whether a cell is a point of the study: on its axes, and with every other field as the study holds it."""
        values = cell.model_dump(mode="json")
        point = point_name(values, [field for field in DATA_FIELDS if field in self.axes])
        held = {**self.fixed, **self.per_data.get(point, {})}
        is_held = all(values[field] == value for field, value in held.items() if field in values)
        return is_held and all(getattr(cell, field) in values for field, values in self.axes.items())

    def arm_of(self, cell: CellConfig) -> str:
        """Name a cell's arm."""
        return value_name(getattr(cell, self.compare))

    def condition_of(self, cell: CellConfig) -> str:
        """Name a cell's point on every axis but the arms and the seeds; empty where there is one condition only."""
        return point_name(dict(cell), self.conditions)

    @model_validator(mode="after")
    def _is_complete(self) -> Study:
        for field in (self.compare, *ALWAYS_AXES):
            if not self.axes.get(field):
                raise ValueError(f"axes has no values of {field}")
        for field, values in self.axes.items():
            if check_values(field, values) != values:
                raise ValueError(f"axes has values of {field} of another type")
        for field, info in CellConfig.model_fields.items():
            points = self.data_points.values()
            if info.is_required() and field not in self.axes and not (points and all(field in p for p in points)):
                raise ValueError(f"fixed has no {field}")
        if self.ref is not None:
            _choose_ref(self.ref, self.arms)
        return self


def point_name(values: Mapping[str, Any], fields: Iterable[str]) -> str:
    """Write the values of some fields as conditions and messages have them.

    >>> point_name({"lr": 0.001, "lpi": False, "depth": 2}, ["lr", "lpi"])
    'lr=0.001, lpi=off'
    """
    return ", ".join(f"{field}={value_name(values[field])}" for field in fields)


def expand(axes: Mapping[str, list[Any]], fixed: Mapping[str, Any], defaults: Defaults) -> list[CellConfig]:
    """Expand the product of the axes, seed by seed, so that an interrupted grid compares equal numbers.

    Raises:
        UsageError: values that do not go together.
    """
    others = {field: values for field, values in axes.items() if field != "seed"}
    cells = []
    for seed in axes["seed"]:
        for point in itertools.product(*others.values()):
            asked = {**fixed, **dict(zip(others, point, strict=True)), "seed": seed}
            cells.append(make_config({**defaults(asked), **asked}))
    return cells


def design(
    *,
    name: str,
    asked: Mapping[str, list[Any]],
    compare: str,
    ref: str | None,
    recipe: str,
    defaults: Defaults,
    question: str = "",
    plugins: tuple[str, ...] = (),
    claims: tuple[Claim, ...] = (),
) -> tuple[Study, list[CellConfig]]:
    """Make a study and its cells from lists of values.

    Args:
        asked: values for each field that was named; several make an axis.
        recipe: by which ``defaults`` gives the others.

    Raises:
        UsageError: a reference that is no arm, values that do not go together, or arms that differ in more than one
            field by default.
    """
    fields = sorted(asked, key=lambda field: (field != compare, field == "seed"))
    axes = {f: list(asked[f]) for f in fields if len(asked[f]) > 1 or f in (*ALWAYS_AXES, compare)}
    if compare not in axes:
        raise UsageError(f"--compare {compare}: give the values to compare, for instance --set {compare}=a,b")
    single = {field: asked[field][0] for field in asked if field not in axes}
    cells = expand(axes, single, defaults)
    per_data = _decided_by_data(axes, single, defaults)
    decided = {field for own in per_data.values() for field in own}
    first = cells[0].model_dump(mode="json")
    fixed = {field: value for field, value in first.items() if field not in axes and field not in decided}
    if compare in DATA_FIELDS:
        _check_one_difference(compare, per_data)
    study = Study(
        name=name,
        question=question,
        compare=compare,
        ref=_choose_ref(ref, axes[compare]),
        recipe=recipe,
        axes=axes,
        fixed=fixed,
        per_data=per_data,
        plugins=plugins,
        claims=claims,
    )
    return study, cells


def _decided_by_data(
    axes: Mapping[str, list[Any]], single: Mapping[str, Any], defaults: Defaults
) -> dict[str, dict[str, Any]]:
    """Return what each data set at each image size decides, of what was not asked for; nothing where there is one."""
    data_axes = {field: axes[field] for field in DATA_FIELDS if field in axes}
    per_data = {}
    for values in itertools.product(*data_axes.values()) if data_axes else ():
        point = {**single, **dict(zip(data_axes, values, strict=True))}
        own = {field: value for field, value in defaults(point).items() if field not in (single.keys() | axes.keys())}
        per_data[point_name(point, data_axes)] = own
    return per_data


def _check_one_difference(compare: str, per_data: Mapping[str, Mapping[str, Any]]) -> None:
    first, *others = per_data.values()
    differ = [f for f, v in first.items() if f != "data_fingerprint" and any(own[f] != v for own in others)]
    if differ:
        raise UsageError(
            f"--compare {compare}: by default its values differ in {', '.join(differ)} too; give each with --set"
        )


def extend(stored: Study, asked: Study, *, named: Collection[str], ref: str | None, num_results: int) -> Study:
    """Grow a stored study along its axes to take in what is asked now.

    Args:
        named: fields that were asked for by name: an axis does not grow by a default.
        ref: the reference asked for; None: the stored one stays.
        num_results: cells of the study that have a result by now, so that growing it is another look at them.

    Returns:
        The stored study with the union of the values, and the additions as a line of its history.

    Raises:
        UsageError: what is asked is another question, and the field that differs is named; or a reference is no arm.
    """
    if asked.compare != stored.compare:
        raise _another_question(stored, "compare", stored.compare, [asked.compare])
    if stored.recipe is not None and asked.recipe != stored.recipe:
        raise _another_question(stored, "recipe", stored.recipe, [asked.recipe])
    axes = {field: list(values) for field, values in stored.axes.items()}
    per_data = dict(stored.per_data)
    added: list[str] = []
    for field, have in axes.items():
        points = asked.data_points.values()
        values = asked.axes.get(field) or list(dict.fromkeys(point[field] for point in points))
        new = [value for value in values if value not in have]
        if new and field not in named:
            raise UsageError(
                f"study '{stored.name}' has {field}={','.join(map(value_name, have))}, and none was asked for: "
                f"give --set {field}={value_name(have[0])}, or others"
            )
        have += new
        added += [f"{field}={value_name(value)}" for value in new]
    for point in asked.data_points.values():
        name = point_name(point, [field for field in DATA_FIELDS if field in axes])
        own = _check_point(stored, asked, point, name, named)
        if name and name not in per_data:
            per_data[name] = own
    axes["seed"] = sorted(axes["seed"])
    num_looks = stored.num_looks + bool(added and num_results)
    ref = _choose_ref(ref or stored.ref, axes[stored.compare])
    if ref != stored.ref:
        added.append(f"ref={ref}")
    question = asked.question or stored.question
    if question != stored.question:
        added.append("another wording of the question")
    has_new_arms = len(axes[stored.compare]) > len(stored.axes[stored.compare])
    claims = merge_claims(stored.claims, asked.claims, has_new_arms=has_new_arms and num_results > 0)
    added += [f"claim '{claim.statement}'" for claim in claims[len(stored.claims) :]]
    plugins = tuple(dict.fromkeys((*stored.plugins, *asked.plugins)))
    when = f"extended (cells with results: {num_results})" if num_results else "extended"
    history = (*stored.history, f"{when}: {', '.join(added)}") if added else stored.history
    update: dict[str, Any] = {"question": question, "axes": axes, "ref": ref, "per_data": per_data, "plugins": plugins}
    return stored.model_copy(update=update | {"claims": claims, "history": history, "num_looks": num_looks})


def _check_point(
    stored: Study, asked: Study, point: Mapping[str, Any], name: str, named: Collection[str]
) -> dict[str, Any]:
    """Check what is asked of a data set against the stored study; return the fields that a new one decides itself.

    Raises:
        UsageError: a field has another value there.
    """
    decided = {field for own in stored.per_data.values() for field in own}
    own = stored.per_data.get(name)
    known = {**stored.fixed, **(own or {})}
    for field in CellConfig.model_fields:
        if field in stored.axes or (own is None and field in decided and field not in named):
            continue
        default = "the data set's own" if field in decided else CellConfig.model_fields[field].get_default()
        have = known.get(field, default)
        want = asked.axes.get(field, [point.get(field)])
        if want != [have]:
            raise _another_question(stored, field, have, want, where=name)
    return {field: point[field] for field in sorted(decided)} if own is None else {}


def _choose_ref(ref: str | None, values: list[Any]) -> str | None:
    arms = [value_name(value) for value in values]
    if ref is not None and ref not in arms:
        raise UsageError(f"--ref {ref} is none of the arms: {', '.join(arms)}")
    if ref is not None or len(arms) < 2:
        return ref
    return "xnorm" if "xnorm" in arms else arms[0]


def _another_question(stored: Study, field: str, have: Any, want: list[Any], *, where: str = "") -> UsageError:
    place = f" for {where}" if where else ""
    return UsageError(
        f"study '{stored.name}' asks another question: its {field} is {value_name(have)}{place}, not "
        f"{','.join(map(value_name, want))}; choose another name with --study"
    )
