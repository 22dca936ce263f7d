"""Experiment files: one question as YAML, the same fields as the command line's flags."""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ablations.config.cell import FIELDS
from ablations.config.claim import Claim, parse_claims
from ablations.config.errors import UsageError
from ablations.config.search import Search, parse_search
from ablations.config.seeds import parse_seeds
from ablations.config.values import check_values, parse_values
from ufo.registry import unknown_name

FOLDER = Path(__file__).resolve().parent.parent / "experiments"
"""Of the experiment files that come with the package."""

TUNING = ("search", "sampler", "sampler_seed", "trials", "confirm")
"""Keys of an experiment file that is a tuning; ``search`` makes it one."""

OPTIONS = ("study", "question", "cost", "compare", "ref", "recipe", "plugins", "claims", *TUNING)
"""Keys of an experiment file beside the fields of a cell and ``seeds``."""


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """What an experiment file asks for; every part may be missing.

    Args:
        asked: values for each field that is named.
        study: name of the study.
        question: one sentence.
        cost: cells and time, in a sentence.
        compare: the field whose values are the arms.
        ref: the reference arm.
        recipe: the values of fields that are not named.
        plugins: modules that register normalisers.
        claims: what the study's numbers are to support or to contradict.
        search: of a tuning; None: the file is none.
        trials: of every arm.
        confirm: seeds of the winners.
    """

    asked: dict[str, list[Any]] = field(default_factory=dict)
    study: str | None = None
    question: str = ""
    cost: str = ""
    compare: str = "norm"
    ref: str | None = None
    recipe: str = "quick"
    plugins: tuple[str, ...] = ()
    claims: tuple[Claim, ...] = ()
    search: Search | None = None
    trials: int | None = None
    confirm: list[int] | None = None


class _UniqueKeys(yaml.SafeLoader):
    """A safe loader that refuses a key that comes twice, of which YAML would take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"'{key}' comes twice", node.start_mark)
        return super().construct_mapping(node, deep)


def named_experiments() -> dict[str, Path]:
    """Return the experiment files that come with the package, by name.

    >>> "norm_digits" in named_experiments()
    True
    """
    return {path.stem: path for path in sorted(FOLDER.glob("*.yaml"))}


def find_experiment(given: str | Path) -> Path:
    """Return the file of an experiment: what is given if there is such a file, or else that of a named experiment.

    Args:
        given: a path, or one of `named_experiments`.

    Raises:
        UsageError: there is no such file.
        UnknownNameError: it is no path, and there is no experiment of that name.
    """
    path, named = Path(given), named_experiments()
    if path.exists() and not path.is_dir():  # a pipe too
        return path
    if os.sep not in str(given) and not path.suffix:  # a folder of that name is no experiment, but perhaps its study
        if path.name not in named:
            raise unknown_name("experiment", path.name, named)
        return named[path.name]
    if path.stem in named:
        raise UsageError(f"experiment file {path} is no file; give {path.stem}, which comes with the package")
    raise UsageError(f"experiment file {path} is no file; give its path, or one of {', '.join(named)}")


def load_experiment(given: str | Path) -> Experiment:
    """Read an experiment file.

    Args:
        given: its path, or the name of one that comes with the package.

    Raises:
        UsageError: it cannot be read, or has a key or a value that is none.
        UnknownNameError: there is no experiment of that name.
    """
    try:
        path = find_experiment(given)
        content = yaml.load(path.read_text(), _UniqueKeys)  # a safe loader
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"experiment file {given} cannot be read: {error}") from error
    except yaml.YAMLError as error:
        raise UsageError(f"experiment file {path} is no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise UsageError(f"experiment file {path} has no keys")
    options = {key: content.pop(key) for key in OPTIONS if key in content}
    asked: dict[str, list[Any]] = {}
    for key, value in content.items():
        if key == "seeds":
            asked["seed"] = _seeds(value)
        elif key in FIELDS:
            values = value if isinstance(value, list) else [value]
            asked[key] = parse_values(key, value) if isinstance(value, str) else check_values(key, values)
        else:
            valid = sorted([*OPTIONS, "seeds", *FIELDS])
            raise UsageError(f"{path}: {unknown_name('key', str(key), valid)}")
    plugins = options.get("plugins", [])
    if not (isinstance(plugins, list) and all(isinstance(name, str) for name in plugins)):
        raise UsageError(f"{path}: plugins is a list of module names, not {plugins!r}")
    if "seed" in content and "seeds" in content:
        raise UsageError(f"{path}: give seeds or seed, not both")
    for key in ("study", "question", "cost", "compare", "ref", "recipe"):
        if not isinstance(options.get(key, ""), str):
            raise UsageError(f"{path}: {key} is a text, not {options[key]!r}")
    try:
        options["claims"] = parse_claims(options.get("claims", []))
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None
    tuning = _tuning(path, {key: options.pop(key) for key in TUNING if key in options}, asked)
    return Experiment(asked=asked, **{**options, **tuning, "plugins": tuple(options.get("plugins", ()))})


def _seeds(value: Any) -> list[int]:
    return parse_seeds(",".join(map(str, value)) + "," if isinstance(value, list) else str(value))


def _tuning(path: Path, options: Mapping[str, Any], asked: Mapping[str, Any]) -> dict[str, Any]:
    """Read the keys of a tuning.

    Raises:
        UsageError: a value that is none, or such a key in a file that searches nothing.
    """
    if "search" not in options:
        if options:
            raise UsageError(f"{path}: {next(iter(options))} is for a tuning: give search too")
        return {}
    if "seed" in asked:
        raise UsageError(f"{path}: a tuning's trials have seeds of their own; give the winners' as confirm")
    ranges = options["search"]
    if not isinstance(ranges, (str, dict)):
        raise UsageError(f"{path}: search is a field with its range a line, as lr: 1e-4..1e-2:log, not {ranges!r}")
    for key in ("trials", "sampler_seed"):
        value = options.get(key, 1)
        if not isinstance(value, int) or isinstance(value, bool) or value < (key == "trials"):
            raise UsageError(f"{path}: {key} is a whole number, not {value!r}")
    try:
        sampler, seed = str(options.get("sampler", "sobol")), options.get("sampler_seed", 0)
        search = parse_search(ranges, sampler=sampler, seed=seed)
        confirm = _seeds(options["confirm"]) if "confirm" in options else None
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None
    return {"search": search, "trials": options.get("trials"), "confirm": confirm}
