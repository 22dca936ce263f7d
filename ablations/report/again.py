"""The command that runs a study again."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from ablations.config import Study
from ablations.config.cell import FIELDS
from ablations.config.effects import effective_fields
from ablations.config.escape import visible
from ablations.config.grid import Exclusion
from ablations.config.privacy import placeless
from ablations.config.seeds import seed_ranges
from ablations.config.values import value_name
from ablations.config.yaml_file import dump_yaml


def command(study: Study, folder: Path, *, num_trials: int = 0) -> str:
    """Return the complete command that runs a study again: nothing is left to defaults, which may change.

    Several grids and values per arm need an experiment file, which the command writes first.

    It names no folder of images, whose path a study does not store, nor what each of several data sets decides, nor
    classes whose names have commas. Several selections of such classes need an experiment file.

    Args:
        study: study to run again.
        folder: folder of the study.
        num_trials: number of trials of every arm, if it was tuned; 0: unknown, since the trials are gone.
    """
    own = folder.parent if study.is_tuning else folder
    verb = "run" if study.search is None else "tune"
    name = own.name or study.name
    if study.fixed.get("smoke"):
        name = name.removesuffix("-smoke")  # which --smoke adds
    file, axes, in_file = _file(study), study.parts[0].axes, len(study.parts) > 1
    parts = [f"python -m ablations {verb}", *([f"--experiment {_quoted(f'{name}.yaml')}"] if file else [])]
    parts.append(f"--study {_quoted(name)}")
    if own.parent != Path("runs"):
        parts.append(f"--out {_quoted(placeless(own.parent, 'OUT'))}")
    effective = effective_fields(study)
    asked = {name: [value] for name, value in study.fixed.items() if name in effective}
    if not in_file:
        asked |= {name: values for name, values in axes.items() if name != "seed" and name in effective}
    for field in sorted(FIELDS.values(), key=lambda field: not field.traits.has_flag):
        if field.name in asked and not field.traits.is_derived:
            values = ",".join(map(_placeless if field.name == "data" else value_name, asked[field.name]))
            if field.name == "classes" and any("," in (value or "") for value in asked["classes"]):
                values = "@FILE"  # a name on each line, since commas separate values
            flag = f"--{field.name.replace('_', '-')} " if field.traits.has_flag else f"--set {field.name}="
            parts.append(flag + _quoted(values))
    if study.fixed.get("init", "none") != "none":
        parts.append("--init CELL,...")
    if study.search is not None:
        parts += [f"--search {_quoted(study.search)}", f"--sampler {study.search.sampler}"]
        parts += [f"--sampler-seed {study.search.seed}"]
        parts += [f"--trials {num_trials}"] if num_trials else []
    if not study.is_tuning and not in_file:
        option = "--seeds" if study.search is None else "--confirm"
        parts.append(f"{option} {seed_ranges(axes['seed'])}" + "," * (len(axes["seed"]) == 1))
    if not in_file:
        parts += [f"--zip {','.join(group)}" for group in study.parts[0].zipped]
        parts += [f"--exclude {_quoted(_exclusion(entry))}" for entry in study.parts[0].exclude]
    if study.compare != "norm":
        parts.append(f"--compare {_quoted(study.compare)}")
    if study.ref is not None:
        parts.append(f"--ref {_quoted(study.ref)}")
    if study.recipe is not None:
        parts.append(f"--recipe {_quoted(study.recipe)}")
    parts += [f"--plugin {_quoted(plugin)}" for plugin in study.plugins]
    parts += ["--in-memory off"] if study.fixed.get("streamed") else []
    text = " \\\n    ".join([*parts, *(["--smoke"] if study.fixed.get("smoke") else [])])
    return f"cat > {_quoted(f'{name}.yaml')} <<'END'\n{file}END\n{text}" if file else text


def _file(study: Study) -> str:
    """Write the grids of a study and its values per arm as an experiment file; empty if options can give them."""
    grids = []
    for grid in study.parts if len(study.parts) > 1 else ():
        axes = {field: list(map(_entry, values)) for field, values in grid.axes.items() if field != "seed"}
        own: dict[str, Any] = {**axes, "seeds": f"{seed_ranges(grid.axes['seed'])},"}  # a list, even of one
        if grid.zipped:
            own["zip"] = [",".join(group) for group in grid.zipped]
        if grid.exclude:
            own["exclude"] = [{field: list(map(_entry, v)) for field, v in entry.items()} for entry in grid.exclude]
        grids.append(own)
    content: dict[str, Any] = {"grids": grids} if grids else {}
    if study.per_arm:
        content["per_arm"] = {
            visible(arm): {f: _entry(v) for f, v in own.items()} for arm, own in study.per_arm.items()
        }
    return dump_yaml(content) if content else ""


def _entry(value: Any) -> Any:
    """Return a value as an experiment file has it."""
    if value is None or isinstance(value, bool):
        return value_name(value)
    return visible(_placeless(value)) if isinstance(value, str) else value


def _exclusion(entry: Exclusion) -> str:
    return ",".join(f"{field}={','.join(map(value_name, values))}" for field, values in entry.items())


def _quoted(value: object) -> str:
    """Write a value for the shell: a study's text is no command, and a control in it is shown as its escape."""
    return shlex.quote(visible(str(value)))


def _placeless(value: str) -> str:
    return f"{value.partition(':')[0]}:DIR" if ":" in value else value
