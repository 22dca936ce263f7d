"""Text tables of normalisers, models, data sets, recipes, fields, experiments and studies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

import ufo
from ablations.config import UsageError
from ablations.config.cell import FIELDS, CellField
from ablations.config.experiment import load_experiment, named_experiments
from ablations.config.paths import real_path
from ablations.config.recipes import RECIPES, defaults
from ablations.config.types import TASKS
from ablations.config.values import value_name
from ablations.data import DATA_SETS
from ablations.store import Store, study_folders
from ablations.store.reading import exists
from ufo.norms import CONTRASTS, NORMS
from ufo.sizes import SIZES

TextTable = tuple[list[str], list[list[str]]]

NO_BOUND = 10**6
"""Maxima from here on only catch mistakes, and are not listed."""


def listing(what: str, *, out: Path) -> tuple[str, list[str], list[list[str]]]:
    """Return title, head and rows of a table.

    Args:
        what: table to return: ``norms``, ``models``, ``data``, ``recipes``, ``fields``, ``experiments`` or ``studies``.
        out: folder that holds the studies.
    """
    tables = {"norms": norms, "models": models, "data": data, "recipes": recipes, "fields": fields}
    tables["experiments"] = experiments
    head, rows = studies(out) if what == "studies" else tables[what]()
    return what, head, rows


def norms() -> TextTable:
    """List every normaliser."""
    head = ["name", "group", "formula", "cost in N", "source"]
    cost = {True: "linear", False: "quadratic"}
    return head, [[n.name, n.group, n.formula, cost[n.linear], n.source] for n in NORMS.values()]


def contrasts() -> TextTable:
    """List the contrasts: pairs of arms that differ in one thing."""
    return ["difference", "isolates"], [[f"{c.arm} - {c.minus}", c.isolates] for c in CONTRASTS]


def models() -> TextTable:
    """List every model, with its parameters for RGB images of 1,000 classes."""
    head = ["name", "embed_dim", "attn_dim", "depth", "heads", "images", "patch", "parameters", "checked against"]
    rows = []
    for s in SIZES.values():
        with torch.device("meta"):  # parameters are only counted
            count = sum(parameter.numel() for parameter in ufo.build(s.name).parameters())
        dims = [str(d) for d in (s.embed_dim, s.attn_dim, s.depth, s.num_heads)]
        rows.append([s.name, *dims, f"{s.img_size} px", f"{s.patch} px", f"{count / 1e6:.2f} M", s.checked])
    return head, rows


def data() -> TextTable:
    """List every data set."""
    return ["name", "description"], [[name, what] for name, what in DATA_SETS.items()]


def recipes() -> TextTable:
    """List every recipe."""
    return ["name", "description"], [[name, what] for name, what in RECIPES.items()]


def experiments() -> TextTable:
    """List the experiments that come with the package."""
    rows = []
    for name, path in named_experiments().items():
        experiment = load_experiment(path)
        command = "run" if experiment.search is None else "tune"
        rows.append([name, command, experiment.question, experiment.cost])
    return ["name", "command", "question", "cost"], rows


def fields() -> TextTable:
    """List every field that a user can set, with its values and scope."""
    from_recipe = defaults(image_side=32, flips=True)
    rows = []
    for field in FIELDS.values():
        if not field.traits.is_derived:
            required = "by recipe and data" if field.name in from_recipe else "see run --help"
            default = required if field.is_required else value_name(field.default)
            help_text = field.help.replace("`", "").replace("None:", "none:")
            values = _values(field.adapter.json_schema())
            rows.append([field.name, values, default, _scope(field), help_text])
    return ["field", "values", "default", "applies to", "description"], rows


def _scope(field: CellField) -> str:
    """Name the tasks, nets and values of other fields that a field is limited to.

    >>> _scope(FIELDS["class_norm"]), _scope(FIELDS["policy_ops"]), _scope(FIELDS["lr"])
    ('classify; UFO-ViT', 'classify; policy=rand_augment', '')
    """
    traits = field.traits
    limits: list[str] = list(traits.tasks) if len(traits.tasks) < len(TASKS) else []
    limits += ["UFO-ViT"] if traits.ufo_only else []
    return "; ".join([*limits, *([traits.effect.needs] if traits.effect else [])])


def _values(schema: dict[str, Any]) -> str:
    """Describe the values of a field from its JSON schema.

    >>> _values({"type": "number", "minimum": 0, "exclusiveMaximum": 1})
    'a number from 0 below 1'
    >>> _values({"anyOf": [{"type": "boolean"}, {"const": "bn_first"}]})
    'on, off, bn_first'
    """
    if "anyOf" in schema:
        return ", ".join(map(_values, schema["anyOf"]))
    if "const" in schema or "enum" in schema:
        return ", ".join(schema.get("enum") or [schema["const"]])
    kinds = {"boolean": "on, off", "null": "none", "string": "text", "integer": "an integer", "number": "a number"}
    words = {"minimum": "from", "exclusiveMinimum": "above", "maximum": "to", "exclusiveMaximum": "below"}
    bounds = [f"{word} {schema[key]:g}" for key, word in words.items() if schema.get(key, NO_BOUND) < NO_BOUND]
    return " ".join([kinds[schema["type"]], *bounds])


def studies(out: Path) -> TextTable:
    """List the studies in a folder, with the number of cells that have a result.

    Raises:
        UsageError: a folder that does not exist or cannot be read.
    """
    if not exists(real_path(out)) or not out.is_dir():
        raise UsageError(f"no folder {out}; give the folder of the studies with --out")
    rows = []
    for folder in study_folders(out):
        store, name = Store(folder), str(folder.relative_to(out))
        try:
            study = store.read_study()
            num_done = sum(record.has_result for record in store.records().values())
        except UsageError as error:  # a broken study does not hide the others
            rows.append([name, str(error), "", ""])
            continue
        arms = ", ".join(study.arm_names)
        rows.append([name, f"{study.compare}: {arms}", str(len(study.axes["seed"])), str(num_done)])
    return ["study", "arms", "seeds or trials", "cells with a result"], rows
