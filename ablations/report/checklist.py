"""Checklist of a study, and the command that reproduces it."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pandas as pd

from ablations.analysis.caveats import eval_limits
from ablations.analysis.results import Results
from ablations.config import Study
from ablations.config.cell import FIELDS
from ablations.config.escape import visible
from ablations.config.privacy import placeless
from ablations.config.task import ACCURACY, BOX_AP, MASK_AP
from ablations.config.values import plural, value_name
from ablations.report.notes import pairing_text, tuned_notes

MEASURED = {
    ACCURACY: "top-1 accuracy on the test images",
    MASK_AP: "average precision of masks on the test images, as COCO computes it",
    BOX_AP: "average precision of boxes on the test images, as COCO computes it",
}
"""Metric that runs are compared by to its description."""


def checklist(results: Results) -> list[tuple[str, str]]:
    """Return the items of a reproducibility checklist for these runs.

    After J. Pineau et al., "Improving reproducibility in machine learning research", JMLR 22 (2021), and J. Dodge et
    al., "Show your work", EMNLP 2019: runs, hyperparameters with their bounds and how they were chosen, what was
    measured and how it varies, hardware, time, and where the code is.
    """
    cells = results.cells
    outcomes = cells["outcome"].value_counts()
    counted = ", ".join(f"{count} {outcome}" for outcome, count in outcomes.items()) or "none"
    items = [
        ("Runs", f"{len(cells)} ended ({counted}), {len(results.missing)} missing"),
        ("Arms", f"{', '.join(cells['arm'].unique()) or 'none yet'}; reference: {results.reference or 'none'}"),
        ("Seeds", _ranges(cells["seed"]) or "none yet"),
    ]
    for study in results.studies:
        name = f" of {study.name}" if len(results.studies) > 1 else ""
        varied = {field: ", ".join(map(value_name, values)) for field, values in study.axes.items() if field != "seed"}
        axes = [f"{field}: {values}" for field, values in varied.items()]
        items += [
            (f"Axes{name}", "; ".join(axes)),
            (f"Recipe{name}, of what was not named", study.recipe or "not recorded"),
            (f"Hyperparameters{name}, the same for every arm", held_fixed(study)),
        ]
        items += [(f"Decided by {point}{name}", _fields(own)) for point, own in study.per_data.items()]
    return [
        *items,
        *_selection(results),
        (
            "Which weights are tested",
            "those of the last epoch, once; the validation part draws the curves and tells who did not learn",
        ),
        *([("Test images", _distinct(results.correct["correct"].map(len)))] if len(results.correct) else []),
        ("Parameters", _parameters(cells)),
        ("Measure", f"{_measured(results)}; mean, sd and 95 % intervals are over seeds"),
        ("Initial weights and batches", f"by the hashes in each outcome.json: {pairing_text(results)}"),
        ("Hours", _hours(cells)),
        ("Hardware", _distinct(cells["processor"].fillna("unknown") + ", " + cells["device"])),
        ("Software", _distinct(cells["software"])),
        ("Revision of the code", _distinct(cells["revision"].fillna("unknown")) + _dirty(cells["revision"])),
    ]


def _measured(results: Results) -> str:
    """Describe the metric, and the number of images that it is measured on if that is limited."""
    limits = sorted({limit for study in results.studies for limit in eval_limits(study)})
    limited = f" (eval_limit: at most {' or '.join(f'{limit:,}' for limit in limits)})" if limits else ""
    return MEASURED[results.studies[0].metric].replace(" on the test images", f" on the test images{limited}")


def _selection(results: Results) -> list[tuple[str, str]]:
    """Describe how the values of the arms were chosen."""
    if not any(study.search for study in results.studies):
        return [("Selection", "none: every arm has the same values, and none was chosen by these results")]
    trials = results.trials
    hours = f"{float(trials['seconds'].sum()) / 3600:.2f}"
    seeds = _ranges(trials["seed"]) or "none yet"
    return [
        ("Selection", "; ".join(tuned_notes(results)) or "no trial has ended yet"),
        ("Trials", f"{len(trials)} ended, seeds {seeds}, {hours} hours in them, which are no part of the hours below"),
    ]


def held_fixed(study: Study) -> str:
    """Write every field of a study that does not vary and has an effect; those without a value come last."""
    effective = study.effective_fields
    fixed = {name: value for name, value in study.fixed.items() if name in effective}
    given = {field: value for field, value in fixed.items() if value is not None}
    left = [field for field in fixed if field not in given]
    return _fields(given) + (f"; left to the model or the data set: {', '.join(left)}" if left else "")


def command(study: Study, folder: Path, *, num_trials: int = 0) -> str:
    """Return the complete command that runs a study again: nothing is left to defaults, which may change.

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
    parts = [f"python -m ablations {verb}", f"--study {_quoted(name)}"]
    if own.parent != Path("runs"):
        parts.append(f"--out {_quoted(placeless(own.parent, 'OUT'))}")
    effective = study.effective_fields
    asked = {name: [value] for name, value in study.fixed.items() if name in effective}
    asked |= {name: values for name, values in study.axes.items() if name != "seed" and name in effective}
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
    if not study.is_tuning:
        option = "--seeds" if study.search is None else "--confirm"
        parts.append(f"{option} {_ranges(pd.Series(study.axes['seed']))}" + "," * (len(study.axes["seed"]) == 1))
    if study.compare != "norm":
        parts.append(f"--compare {_quoted(study.compare)}")
    if study.ref is not None:
        parts.append(f"--ref {_quoted(study.ref)}")
    if study.recipe is not None:
        parts.append(f"--recipe {_quoted(study.recipe)}")
    parts += [f"--plugin {_quoted(plugin)}" for plugin in study.plugins]
    parts += ["--in-memory off"] if study.fixed.get("streamed") else []
    return " \\\n    ".join([*parts, *(["--smoke"] if study.fixed.get("smoke") else [])])


def _quoted(value: object) -> str:
    """Write a value for the shell: a study's text is no command, and a control in it is shown as its escape."""
    return shlex.quote(visible(str(value)))


def _placeless(value: str) -> str:
    return f"{value.partition(':')[0]}:DIR" if ":" in value else value


def _ranges(seeds: pd.Series[int]) -> str:
    """Write seeds as ranges.

    >>> _ranges(pd.Series([0, 1, 2, 5, 7, 8]))
    '0-2,5,7-8'
    """
    ranges: list[list[int]] = []
    for seed in sorted({int(seed) for seed in seeds}):
        if ranges and seed == ranges[-1][1] + 1:
            ranges[-1][1] = seed
        else:
            ranges.append([seed, seed])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges)


def _fields(fields: dict[str, Any]) -> str:
    return ", ".join(f"{field} {value_name(value)}" for field, value in fields.items())


def _distinct(values: pd.Series[Any]) -> str:
    counts = values.value_counts()
    if len(counts) < 2:
        return str(counts.index[0]) if len(counts) else "unknown"
    return "; ".join(f"{value} ({plural(count, 'cell')})" for value, count in counts.items())


def _dirty(revisions: pd.Series[str]) -> str:
    changed = revisions.fillna("").str.endswith("+").any()
    return "; +: with changes that were not committed" if changed else ""


def _parameters(cells: pd.DataFrame) -> str:
    known = cells.dropna(subset="num_parameters")
    each = known.groupby("arm", sort=False)["num_parameters"].agg(["min", "max"]).astype(int)
    counts = {arm: dict.fromkeys([f"{low:,}", f"{high:,}"]) for arm, low, high in each.itertuples(name=None)}
    return "; ".join(f"{arm} {' to '.join(own)}" for arm, own in counts.items()) or "unknown"


def _hours(cells: pd.DataFrame) -> str:
    """Sum the hours of all cells; a resumed attempt is counted twice, hence "at most"."""
    last, before = float(cells["seconds"].sum()) / 3600, float(cells["attempts_seconds"].sum()) / 3600
    overlap = "at most " if (cells["is_resumed"] & (cells["num_attempts"] > 1)).any() else ""
    failed = float(cells.loc[cells["outcome"] == "failed", "seconds"].sum()) / 3600
    return (
        f"{overlap}{last + before:.2f} in cells, {failed + before:.2f} of them in failed ones, earlier attempts and "
        "results since replaced; what a runner lost when it was killed is not in it"
    )
