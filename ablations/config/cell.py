"""A cell: one training run, complete before it starts, and its identity."""

from __future__ import annotations

import hashlib
import json
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, model_serializer, model_validator
from pydantic.fields import FieldInfo

from ablations.config.groups import Augmentation, Detection, Group, Images, Net, Optimisation, Run
from ablations.config.nets import is_foreign
from ablations.config.traits import Cell, Traits
from ablations.config.types import Task

ID_LENGTH = 10
"""Hexadecimal digits of a cell's id: 40 bits, so that 10,000 cells collide with probability 5e-5."""


class CellConfig(BaseModel):
    """Everything that can change a cell's result, and nothing else: no path, no worker count, no logging.

    It is a tree of groups in Python, and flat wherever it is written: ``CellConfig(**fields)``, ``model_dump()``,
    ``model_copy(update={field: value})`` and ``cell[field]`` take and return fields by name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    task: Annotated[Task, Traits(has_flag=True)] = "classify"
    """Task: ``classify`` images, or ``detect`` the objects in them with boxes and masks."""
    images: Images
    augmentation: Augmentation
    net: Net
    detection: Detection
    optimisation: Optimisation
    run: Run
    seed: Annotated[int, Field(ge=0), Traits(costs_time=False, searchable=False)]
    """Seed of every random stream: weights, order, augmentation."""

    @model_validator(mode="before")
    @classmethod
    def _nest(cls, values: Any) -> Any:
        """Sort fields by name into their groups."""
        if not isinstance(values, Mapping):
            return values
        nested: dict[str, Any] = {group: {} for group in GROUPS}
        for name, value in values.items():
            group = FIELDS[name].group if name in FIELDS else ""
            (nested[group] if group else nested)[name] = value
        return nested

    @model_serializer(mode="plain")
    def _flatten(self) -> dict[str, Any]:
        own = self.__dict__
        values = {name: own[name] for name in own if name not in GROUPS}
        for group in GROUPS:
            values |= own[group].__dict__
        return {name: values[name] for name in FIELDS}

    def __getitem__(self, field: str) -> Any:
        """Return the value of a field."""
        group = FIELDS[field].group
        return getattr(getattr(self, group) if group else self, field)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy with other values of some fields, by name; they are not validated."""
        nested: dict[str, Any] = {}
        for name, value in (update or {}).items():
            group = FIELDS[name].group
            (nested.setdefault(group, {}) if group else nested)[name] = value
        copies = {g: getattr(self, g).model_copy(update=values) for g, values in nested.items() if g in GROUPS}
        copied = super().model_copy(update={**nested, **copies}, deep=deep)
        copied.__dict__.pop("id", None)
        return copied

    @cached_property
    def id(self) -> str:
        """Hash of what can change the result; of the data set its kind and fingerprint, not the name of its folder."""
        values = self._flatten()
        identity = {name: values[name] for name, field in FIELDS.items() if not field.is_default(values[name])}
        identity["data"] = self.images.data.partition(":")[0]
        text = json.dumps(identity, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:ID_LENGTH]


GROUPS: Mapping[str, type[Group]] = {
    name: info.annotation
    for name, info in CellConfig.model_fields.items()
    if isinstance(info.annotation, type) and issubclass(info.annotation, Group)
}
"""Groups of fields by their name in a cell."""


@dataclass(frozen=True)
class CellField:
    """A field of a cell, with everything that is known of it.

    Args:
        name: name, the same on the command line, in files and in Python.
        group: group that holds it; empty for fields of the cell itself.
        info: type, range, default, description and traits.
    """

    name: str
    group: str
    info: FieldInfo

    @cached_property
    def traits(self) -> Traits:
        """Return its traits."""
        return next((each for each in self.info.metadata if isinstance(each, Traits)), Traits())

    @cached_property
    def annotation(self) -> Any:
        """Return its type with constraints."""
        owner = GROUPS[self.group] if self.group else CellConfig
        return typing.get_type_hints(owner, include_extras=True)[self.name]

    @cached_property
    def adapter(self) -> TypeAdapter[Any]:
        """Return the validator of its values."""
        return TypeAdapter(self.annotation)

    @cached_property
    def is_required(self) -> bool:
        """Whether it has no default of its own: the recipe, the data set or the user gives its value."""
        return self.info.is_required()

    @cached_property
    def default(self) -> Any:
        """Return its default."""
        return self.info.get_default()

    @property
    def help(self) -> str:
        """Return its description."""
        return (self.info.description or "").strip()

    def is_default(self, value: Any) -> bool:
        """Tell whether a value is its default."""
        return not self.is_required and bool(value == self.default)

    def applies_to(self, task: Task, model: str = "") -> bool:
        """Tell whether it applies to a task and, if one is given, to a net."""
        return task in self.traits.tasks and not (self.traits.ufo_only and is_foreign(model))

    def has_effect(self, cell: Cell) -> bool:
        """Tell whether another value would change a cell."""
        effect = self.traits.effect
        return self.applies_to(cell["task"], cell["model"]) and (effect is None or effect.holds(cell))


def _fields() -> Iterator[CellField]:
    for name, info in CellConfig.model_fields.items():
        if name in GROUPS:
            yield from (CellField(own, name, each) for own, each in GROUPS[name].model_fields.items())
        else:
            yield CellField(name, "", info)


FIELDS: Mapping[str, CellField] = {field.name: field for field in _fields()}
"""Every field of a cell by name, in the order in which a cell is written."""
