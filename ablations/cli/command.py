"""Commands of the command line, made from the models of their options."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Annotated, Any, TypeVar

import typer

from ablations.config.declare import Declared, Options, declared, read_options, written

Model = TypeVar("Model", bound=Options)
Function = Callable[[Model], int]


def command(
    app: typer.Typer, model: type[Model], name: str | None = None
) -> Callable[[Function[Model]], Function[Model]]:
    """Make a function of options a command: flags, help and checks follow from the model.

    Args:
        app: the commands to which it is added.
        model: its options.
        name: the command's name; None: the function's.
    """

    def decorate(function: Function[Model]) -> Function[Model]:
        def call(**given: Any) -> int:
            values = {key: value for key, value in given.items() if value is not None and value != []}
            return function(read_options(model, values, from_flags=True))

        call.__name__, call.__doc__ = function.__name__, function.__doc__
        parameters = [_parameter(each) for each in declared(model)]
        call.__signature__ = inspect.Signature(parameters, return_annotation=int)  # type: ignore[attr-defined]
        call.__annotations__ = {each.name: each.annotation for each in parameters} | {"return": int}
        app.command(name)(call)
        return function

    return decorate


def _parameter(option: Declared) -> inspect.Parameter:
    """Return the parameter from which typer makes an argument or a flag."""
    default, kind = _default(option), _kind(option)
    is_optional = default is None and not option.info.is_required()
    help_ = option.help + " Repeatable." * option.option.repeatable
    help_ += f" [{option.bounds}]" * bool(option.bounds)
    help_ += f" [default: {option.default_text}]" * (bool(option.default_text) and default is None)
    shared: dict[str, Any] = {"help": help_, "metavar": option.placeholder or None}
    made = typer.Argument(**shared) if option.option.is_argument else typer.Option(option.flag, **shared)
    return inspect.Parameter(
        option.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=inspect.Parameter.empty if option.info.is_required() else default,
        annotation=Annotated[kind | None if is_optional else kind, made],
    )


def _default(option: Declared) -> Any:
    """Return the default as the command line has it; None: the option is not given."""
    default = option.default
    if default is None or default == () or option.option.by_default:
        return None
    return default if isinstance(default, bool) else written(default)


def _kind(option: Declared) -> Any:
    """Return the type that typer reads: all but switches and lists is text, which the model checks."""
    if option.option.repeatable or (option.option.is_argument and Sequence in option.kinds):
        return list[str]
    return bool if option.kinds == {bool} else str
