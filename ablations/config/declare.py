"""The declaration of an option, from which command line, experiment files and Python arguments are made."""

from __future__ import annotations

import functools
import inspect
import re
import textwrap
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, ParamSpec, TypeVar, cast

from pydantic import BaseModel, ConfigDict, PlainValidator, ValidationError
from pydantic.fields import FieldInfo

from ablations.config.cell import FIELDS
from ablations.config.errors import UsageError, message_of, shown
from ablations.config.escape import visible
from ablations.config.values import value_name
from ufo.registry import UnknownNameError, unknown_name

P = ParamSpec("P")
Model = TypeVar("Model")
Result = TypeVar("Result")

Values = str | int | float | bool | None | Sequence[Any]
"""A value, several, or text as on the command line: ``"1e-3,3e-3"``."""

WIDTH = 100
"""Columns of the Python arguments' descriptions."""


@dataclass(frozen=True)
class Option:
    """What a field's annotation declares of an option, beside its type.

    Args:
        help: one sentence; empty: the description of the cell's field of that name.
        by_default: the default in words, if no value is the default.
        flag: name on the command line; empty: made from the field's name.
        metavar: placeholder of the value in the help; empty: by type.
        repeatable: whether the flag may be given several times.
        is_argument: whether the command line takes it by position.
    """

    help: str = ""
    by_default: str = ""
    flag: str = ""
    metavar: str = ""
    repeatable: bool = False
    is_argument: bool = False


class Options(BaseModel):
    """A group of options, or all options of a command: each field is one."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


@dataclass(frozen=True)
class Declared:
    """One option of a model.

    Args:
        name: the field's name, which is the Python argument and the key of an experiment file.
        info: the field.
        option: its declaration.
    """

    name: str
    info: FieldInfo
    option: Option

    @property
    def flag(self) -> str:
        """Name on the command line; that of a positional argument in capitals."""
        if self.option.is_argument:
            return self.name.upper()
        return self.option.flag or f"--{self.name.replace('_', '-')}"

    @property
    def kinds(self) -> set[Any]:
        """Types that the annotation unites, without None; a literal type is `Literal`."""
        return {typing.get_origin(part) or part for part in _leaves(self.info.annotation)} - {types.NoneType}

    @property
    def choices(self) -> list[str]:
        """Values of a literal type; empty for another type."""
        literals = [part for part in _leaves(self.info.annotation) if typing.get_origin(part) is Literal]
        return [str(choice) for literal in literals for choice in typing.get_args(literal)]

    @property
    def bounds(self) -> str:
        """The least and the largest number, as ``x >= 1``; empty without one."""
        limits = (("x >=", "ge"), ("x <=", "le"))
        each = [(sign, getattr(one, name, None)) for sign, name in limits for one in self.info.metadata]
        return ", ".join(f"{sign} {limit}" for sign, limit in each if limit is not None)

    @property
    def type_text(self) -> str:
        """The type as a signature shows it."""
        text = inspect.formatannotation(self.info.annotation).replace(inspect.formatannotation(Values), "Values")
        return re.sub(r"\b[a-z.]+\.(?=[A-Z])", "", text).replace("datetime.timedelta", "timedelta")

    @property
    def placeholder(self) -> str:
        """What stands for the value in the help of the command line; empty for a switch."""
        if self.option.is_argument:
            return self.name.upper()
        if self.option.metavar or self.choices:
            return self.option.metavar or "|".join(self.choices)
        known = {Sequence: "VALUE,...", Path: "PATH", bool: "", int: "N", float: "X"}
        return next((word for kind, word in known.items() if kind in self.kinds), "NAME")

    @property
    def default(self) -> Any:
        """Value of an option that is not given; None: there is none, or `default_text` describes it."""
        return None if self.info.is_required() else self.info.get_default()

    @property
    def help(self) -> str:
        """Description in a sentence or two."""
        return self.option.help or field_help(self.name)

    @property
    def default_text(self) -> str:
        """The default in words; empty: there is none."""
        if self.option.by_default:
            return self.option.by_default
        if self.default is None or self.default in (False, ()):
            return ""
        return written(self.default)


def written(value: Any) -> str:
    """Write a value of an option as the command line takes it.

    >>> written((224, 384)), written(0.5)
    ('224,384', '0.5')
    """
    return ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def field_help(name: str) -> str:
    """Describe a field of a cell, with the values that it takes if they are names."""
    field = FIELDS[name]
    text = " ".join(field.help.replace("`", "").split())
    choices = typing.get_args(field.info.annotation) if typing.get_origin(field.info.annotation) is Literal else ()
    named = all(choice in text for choice in choices)
    return text if named else f"{text} One of {', '.join(choices)}."


def field_default(name: str) -> str:
    """Write the default of a cell's field."""
    return value_name(FIELDS[name].default)


def _leaves(annotation: Any) -> Iterator[Any]:
    """Give the types that an annotation unites."""
    if typing.get_origin(annotation) is Annotated:
        yield from _leaves(typing.get_args(annotation)[0])
    elif typing.get_origin(annotation) in (typing.Union, types.UnionType):
        for part in typing.get_args(annotation):
            yield from _leaves(part)
    else:
        yield annotation


def reads(read: Callable[[Any], Any]) -> PlainValidator:
    """Validate an option by a function that reads text and Python values alike; None is an option that is not given."""
    return PlainValidator(lambda value: None if value is None else read(value))


def declared(model: type[Options]) -> list[Declared]:
    """Return the options of a model: its own before those of its groups, in the order of the groups."""
    names = [name for base in model.__mro__ for name in inspect.get_annotations(base) if name in model.model_fields]
    return [_declared(name, model.model_fields[name]) for name in dict.fromkeys(names)]


def _declared(name: str, info: FieldInfo) -> Declared:
    (option,) = (each for each in info.metadata if isinstance(each, Option))
    return Declared(name, info, option)


def read_options(model: Callable[..., Model], given: Mapping[str, Any], *, from_flags: bool = False) -> Model:
    """Make the options of a command.

    Args:
        model: the command's model.
        given: value for each option that was given.
        from_flags: whether an error names the command line's flag, and not the Python argument.

    Raises:
        UsageError: an option that is unknown, missing or has a wrong value, in one line.
        UnknownNameError: a value that is an unknown name.
    """
    try:
        return model(**given)
    except ValidationError as error:
        raise _one_line(error, cast("type[Options]", model), from_flags=from_flags) from None
    except UnicodeEncodeError as error:  # pydantic cannot hold a message with bytes that are no characters
        raise UsageError(visible(error.object)) from None


def _one_line(error: ValidationError, model: type[Options], *, from_flags: bool) -> ValueError:
    first, *_ = errors = error.errors()
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, (UsageError, UnknownNameError)):  # it is a whole line
        return cause
    known = {each.name: each for each in declared(model)}
    name = str(first["loc"][0])
    if first["type"] == "extra_forbidden":
        return UsageError(str(unknown_name("argument", name, known)))
    if first["type"] == "missing":
        return UsageError(f"{name}: it must be given")
    value = first["input"]
    label = f"{known[name].flag} {shown(written(value))}" if from_flags else f"{name}={shown(value)}"
    return UsageError(f"{label}: {message_of(each for each in errors if each['loc'][0] == name)}")


def keywords_of(model: Callable[P, Model]) -> Callable[[Callable[[Model], Result]], Callable[P, Result]]:
    """Give a function of options the options as keyword arguments, described in its docstring.

    Args:
        model: subclass of `Options`.
    """
    options = declared(cast("type[Options]", model))

    def decorate(function: Callable[[Model], Result]) -> Callable[P, Result]:
        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> Result:
            if args:
                raise TypeError(f"{function.__name__}() takes keyword arguments only")
            return function(read_options(model, kwargs))

        del call.__wrapped__  # its signature is another
        returns = inspect.signature(function).return_annotation
        parameters = _parameters(options)
        call.__signature__ = inspect.Signature(parameters, return_annotation=returns)  # type: ignore[attr-defined]
        call.__annotations__ = {each.name: each.annotation for each in parameters} | {"return": returns}
        call.__doc__ = _with_arguments(inspect.getdoc(function) or "", options)
        return call

    return decorate


def _parameters(options: Sequence[Declared]) -> list[inspect.Parameter]:
    return [
        inspect.Parameter(
            each.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if each.info.is_required() else each.default,
            annotation=each.type_text,
        )
        for each in options
    ]


def _with_arguments(doc: str, options: Sequence[Declared]) -> str:
    """Insert the section that describes the arguments, before those of returns and errors."""
    lines = []
    for each in options:
        text = f"{each.name}: {each.help}" + f" Default: {each.default_text}." * bool(each.default_text)
        lines.append(textwrap.fill(text, WIDTH, initial_indent=" " * 4, subsequent_indent=" " * 8))
    section = "\n".join(["Args:", *lines])
    at = min((doc.find(f"\n\n{name}:") for name in ("Returns", "Raises") if f"\n\n{name}:" in doc), default=len(doc))
    return f"{doc[:at]}\n\n{section}{doc[at:]}\n"
