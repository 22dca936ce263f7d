"""The surface of the package: every option of every command, every key of an experiment file, every Python signature.

    .venv/bin/python tests/surface.py

writes it to ``surface.txt``, which a test compares with the code: a change of the surface is a change of that file.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

import ablations
from ablations import api
from ablations.cli.app import app
from ablations.config.experiment import Experiment

FILE = Path(__file__).with_name("surface.txt")


def describe() -> str:
    """Return the whole surface, one line an option, key or argument."""
    return "\n".join([*_commands(typer.main.get_command(app), "ablations"), *_keys(), *_functions()]) + "\n"


def _commands(command: Any, name: str) -> Iterator[str]:
    yield f"$ {name}: {' '.join((command.help or '').split())}"
    for each in command.params:
        default = (
            f" = {_plain(each.default)}"
            if isinstance(each.default, (str, int, float, Path)) and each.default is not False
            else ""
        )
        required = " (required)" * each.required
        flags = " ".join(each.opts) if each.param_type_name == "option" else each.name.upper()
        help_ = " ".join((each.help or "").split())
        yield f"  {flags} {each.metavar or ''}{default}{required}: {help_}"
    yield ""
    for own, child in getattr(command, "commands", {}).items():
        yield from _commands(child, f"{name} {own}")


def _plain(default: Any) -> Any:
    return getattr(default, "value", default)


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
