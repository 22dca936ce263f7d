"""The surface of the package: every option of every command, every key of an experiment file, every Python signature.

    .venv/bin/python tests/surface.py

writes it to ``surface.txt``, which a test compares with the code: a change of the surface is a change of that file.
"""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Iterator
from pathlib import Path

import typer
from typer.models import OptionInfo

import ablations
from ablations import api
from ablations.cli.app import app
from ablations.config.experiment import Experiment

FILE = Path(__file__).with_name("surface.txt")


def describe() -> str:
    """Return the whole surface, one line an option, key or argument."""
    return "\n".join([*_commands(app, "ablations"), *_keys(), *_functions()]) + "\n"


def _commands(group: typer.Typer, name: str) -> Iterator[str]:
    """Describe the commands as they are given to typer: what typer makes of them differs from version to version."""
    for each in group.registered_commands:
        yield f"$ {name} {each.name or each.callback.__name__}: {' '.join(inspect.getdoc(each.callback).split())}"
        yield from map(_option, inspect.signature(each.callback).parameters.values())
        yield ""
    for each in group.registered_groups:
        yield from _commands(each.typer_instance, f"{name} {each.name}")


def _option(parameter: inspect.Parameter) -> str:
    annotation, info = typing.get_args(parameter.annotation)
    is_required = parameter.default is inspect.Parameter.empty
    flag = info.default if isinstance(info, OptionInfo) else parameter.name.upper()
    kind = re.sub(r"<class '(\w+)'>", r"\1", str(annotation))
    default = " (required)" if is_required else f" = {parameter.default}" * (parameter.default is not None)
    return f"  {flag} {info.metavar or ''} ({kind}){default}: {info.help}"


def _keys() -> Iterator[str]:
    yield "keys of an experiment file, beside the fields of list fields"
    yield from (f"  {key}" for key in sorted(Experiment.model_fields) if key != "fields")
    yield ""


def _functions() -> Iterator[str]:
    for function in (*(getattr(ablations, name) for name in ("run", "tune", "build", "load")), api.make_report):
        signature = inspect.signature(function)
        yield f"{function.__name__}() -> {signature.return_annotation}"
        for each in signature.parameters.values():
            default = "" if each.default is inspect.Parameter.empty else f" = {each.default!r}"
            yield f"  {each.name}: {each.annotation}{default}"
        yield ""


if __name__ == "__main__":
    FILE.write_text(describe())
