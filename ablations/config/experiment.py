"""Experiment files: one question as YAML, with the options of the command line as keys."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from ablations.config.cell import FIELDS
from ablations.config.claim import Claim, parse_claims
from ablations.config.commands import PluginOption, SearchOptions, SeedOptions, StudyOptions
from ablations.config.declare import Option, read_options
from ablations.config.engine_flags import ProbeOption
from ablations.config.errors import UsageError
from ablations.config.field_values import read_values
from ablations.config.grid import GridRequest
from ablations.config.grid_options import (
    GridOptions,
    check_repeats,
    parse_exclusions,
    parse_grids,
    parse_per_arm,
    parse_zipped,
)
from ablations.config.seeds import parse_seeds
from ablations.config.yaml_file import read_yaml
from ufo.registry import unknown_name

FOLDER = Path(__file__).resolve().parent.parent / "experiments"
"""Folder of the experiment files that come with the package."""


class Experiment(SearchOptions, SeedOptions, GridOptions, StudyOptions, PluginOption, ProbeOption):
    """The options in an experiment file; each may be missing.

    Args:
        question: one sentence.
        cost: cells and time, in a sentence.
        claims: what the study's numbers are to support or to contradict.
        grids: grids whose union the study is, each with values that replace those of ``fields``.
        per_arm: values of fields that depend on the arm, by its name.
        fields: values of a cell's fields.
    """

    question: Annotated[str, Option("The question, in one sentence.")] = ""
    cost: Annotated[str, Option("Number of cells and time, in one sentence.")] = ""
    claims: Annotated[tuple[Claim, ...], BeforeValidator(parse_claims), Option("Claims to be decided.")] = ()
    grids: Annotated[
        tuple[GridRequest, ...], BeforeValidator(parse_grids), Option("Grids whose union the study is.")
    ] = ()
    per_arm: Annotated[
        dict[str, dict[str, Any]], BeforeValidator(parse_per_arm), Option("Values of fields that depend on the arm.")
    ] = Field(default_factory=dict)
    fields: Annotated[dict[str, list[Any]], Option("Values of a cell's fields.")] = Field(default_factory=dict)

    @property
    def requests(self) -> tuple[GridRequest, ...]:
        """Its grids, with the zipped fields and the exclusions of the whole study; empty for a product."""
        if not (self.grids or self.zip or self.exclude):
            return ()
        zipped, exclude = parse_zipped(self.zip), parse_exclusions(self.exclude)
        return tuple(
            GridRequest(asked=grid.asked, zipped=(*zipped, *grid.zipped), exclude=(*exclude, *grid.exclude))
            for grid in self.grids or (GridRequest(),)
        )

    @property
    def asked(self) -> dict[str, list[Any]]:
        """Values of each field that is given."""
        return self.fields if self.seeds is None else {**self.fields, "seed": parse_seeds(self.seeds)}

    def check_tuning(self) -> None:
        """Reject what makes a study no product, which a tuning must be.

        Raises:
            UsageError: there is such a key.
        """
        if layout := [name for name in ("zip", "exclude", "grids", "per_arm") if getattr(self, name)]:
            raise UsageError(f"{layout[0]} is not for a tuning: it has one condition, and the same points for each arm")

    @model_validator(mode="after")
    def _is_a_tuning_if_it_has_such_options(self) -> Experiment:
        given = [name for name in SearchOptions.model_fields if name in self.model_fields_set]
        if given and self.search is None:
            raise UsageError(f"{given[0]} is for a tuning: give search too")
        if self.search is not None:
            self.check_tuning()
        for request in self.requests or (GridRequest(),):
            check_repeats({**self.fields, **request.asked}, request.zipped)
        if given and self.seeds is not None:
            raise UsageError("a tuning's trials have seeds of their own; give the winners' as confirm")
        return self


def named_experiments() -> dict[str, Path]:
    """Return the experiment files that come with the package, by name.

    >>> "norm_digits" in named_experiments()
    True
    """
    return {path.stem: path for path in sorted(FOLDER.glob("*.yaml"))}


def find_experiment(given: str | Path) -> Path:
    """Return the file of an experiment: the given path if it is a file, otherwise that of the named experiment.

    Args:
        given: a path, or one of `named_experiments`.

    Raises:
        UsageError: there is no such file.
        UnknownNameError: it is not a path, and there is no experiment of that name.
    """
    path, named = Path(given), named_experiments()
    if path.exists() and not path.is_dir():  # a pipe too
        return path
    if os.sep not in str(given) and not path.suffix:  # a folder of that name is no experiment, but perhaps its study
        if path.name not in named:
            raise unknown_name("experiment", path.name, named)
        return named[path.name]
    if path.stem in named:
        raise UsageError(f"experiment file {path} is not a file; give {path.stem}, which comes with the package")
    raise UsageError(f"experiment file {path} is not a file; give its path, or one of {', '.join(named)}")


def load_experiment(given: str | Path) -> Experiment:
    """Read an experiment file.

    Args:
        given: its path, or the name of one that comes with the package.

    Raises:
        UsageError: it cannot be read, or has an unknown key or a wrong value.
        UnknownNameError: there is no experiment of that name.
    """
    try:
        path = find_experiment(given)
    except OSError as error:
        raise UsageError(f"experiment file {given} cannot be read: {error}") from error
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise UsageError(f"experiment file {path} has no keys")
    try:
        return read_options(Experiment, _options_of(content))
    except ValueError as error:
        fix = "; put it in quotes" if str(error).endswith("must be a valid string") else ""
        raise UsageError(f"{path}: {error}{fix}") from None


def _options_of(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options in a file: those of a study by name, and the fields of its cells together.

    Raises:
        UsageError: an unknown key, or a value that a field cannot have.
        UnknownNameError: an unknown key.
    """
    keys = [name for name in Experiment.model_fields if name != "fields"]
    options: dict[str, Any] = {}
    fields: dict[str, list[Any]] = {}
    for key, value in content.items():
        if key in keys:
            options[key] = value
        elif key in FIELDS:
            fields[key] = read_values(key, value, may_repeat=True)
        else:
            raise unknown_name("key", str(key), sorted([*keys, *FIELDS]))
        if value is None and key in keys:
            raise UsageError(f"{key}: no value is given")
    if "seed" in fields and "seeds" in options:
        raise UsageError("give seeds or seed, not both")
    if "seed" in fields:
        options["seeds"] = fields.pop("seed")
    return {**options, "fields": fields}
