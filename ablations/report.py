"""From a study's folder to its table and figures; everything written here can be deleted and made again."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ablations.figures.arms import accuracy_per_arm
from ablations.figures.curves import accuracy_curves, loss_curves
from ablations.stats import ALPHA, CHANCE_KINDS, pairing_held, summarise
from ablations.store import Store, write_text
from ablations.store.frames import read_frames
from ablations.study import Study

FIGURE_SIZE = (7.0, 4.2)
"""Inches."""

FORMATS: dict[str, dict[str, None]] = {"png": {}, "pdf": {"CreationDate": None}}
"""Extension of a figure's files to their metadata: without a date, equal figures are equal files."""

FIGURES: dict[str, tuple[Callable[[pd.DataFrame, Axes], Axes], bool]] = {
    "training_loss": (loss_curves, True),
    "validation_accuracy": (accuracy_curves, True),
    "test_accuracy": (accuracy_per_arm, False),
}
"""Name of a figure to what draws it, and whether it draws curves, or cells."""


@dataclass(frozen=True)
class Report:
    """What a study's folder says now.

    Args:
        study: its question.
        cells: one row per finished cell.
        table: one row per condition and arm: the numbers, from `ablations.stats.summarise`.
        notes: what must be read with the table.
        files: what was written.
    """

    study: Study
    cells: pd.DataFrame
    table: pd.DataFrame
    notes: list[str]
    files: list[Path]


def write_report(store: Store, *, sources: Mapping[str, str] | None, caveats: list[str], num_asked: int) -> Report:
    """Rebuild results.csv, curves.csv, tables/ and figures/ from the cells.

    Args:
        store: the study's folder.
        sources: hash of the sources as they are, by normaliser, to tell stale cells; None: not looked at.
        caveats: sentences that stand wherever these arms are shown.
        num_asked: cells of the whole study, to say how many are missing.
    """
    study = store.read_study()
    cells, curves = read_frames(store, sources=sources)
    table = summarise(cells, study.ref)
    notes = _notes(study, cells, table, num_missing=num_asked - len(cells)) + caveats
    cells.drop(columns="batches").to_csv(store.folder / "results.csv", index=False)
    curves.to_csv(store.folder / "curves.csv", index=False)
    (store.folder / "tables").mkdir(exist_ok=True)
    table.to_csv(store.folder / "tables" / "main.csv", index=False)
    write_text(store.folder / "tables" / "main.md", markdown(table, study, notes))
    files = [store.folder / name for name in ("results.csv", "curves.csv", "tables/main.csv", "tables/main.md")]
    return Report(study, cells, table, notes, files + _write_figures(store.folder / "figures", cells, curves, caveats))


def text_rows(table: pd.DataFrame, study: Study) -> tuple[list[str], list[list[str]]]:
    """Return the main table as text: its head and its rows. What the adjusted test supports is in asterisks."""
    several = bool(study.conditions)
    head = ["condition"] if several else []
    head += [study.compare, "n", "test %", "95 % interval"]
    head += [f"- {study.ref}", "95 % interval", "p Holm"] if study.ref else []
    head += ["div.", "fail"]
    rows = []
    for _, row in table.iterrows():
        difference = _number(row["difference_pct"], sign="+")
        cells = [
            str(row["arm"]),
            str(row["n"]),
            _number(row["mean_pct"]),
            _interval(row["low_pct"], row["high_pct"]),
        ]
        against = [
            "ref" if row["is_reference"] else f"**{difference}**" if row["supported"] else difference,
            "" if row["is_reference"] else _interval(row["difference_low_pct"], row["difference_high_pct"], sign="+"),
            "" if math.isnan(row["p_holm"]) else f"{row['p_holm']:.3f}",
        ]
        cells += [*(against if study.ref else []), str(row["num_diverged"]), str(row["num_failed"])]
        rows.append([str(row["condition"]), *cells] if several else cells)
    return head, rows


def markdown(table: pd.DataFrame, study: Study, notes: list[str]) -> str:
    """Write the main table and its notes as Markdown."""
    return markdown_table(*text_rows(table, study)) + "\n" + "".join(f"- {note}\n" for note in notes)


def markdown_table(head: list[str], rows: list[list[str]]) -> str:
    """Write a table of texts as Markdown.

    >>> markdown_table(["a", "b"], [["1", "x|y"]]).splitlines()
    ['| a | b |', '| --- | --- |', '| 1 | x\\\\|y |']
    """
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |\n" for line in lines)


def _notes(study: Study, cells: pd.DataFrame, table: pd.DataFrame, *, num_missing: int) -> list[str]:
    notes = ["accuracy: mean over seeds at the last epoch; brackets: 95 % t intervals; differences are paired by seed"]
    num_comparisons = int(table["p"].notna().sum())
    if num_comparisons:
        pairs = table.loc[table["p"].notna()]
        notes.append(
            f"p: exact sign-flip permutation, Holm over {num_comparisons} comparison{'s' * (num_comparisons > 1)}; "
            f"in asterisks: p below {ALPHA}"
        )
        notes.append(_detectable(pairs["detectable_pct"]))
        notes.append(_pairing(pairing_held(cells, study.ref)))
    counts = {
        "cells of this study have not been run": num_missing,
        "cells failed; their pairs are left out": int((cells["outcome"] == "failed").sum()),
        "cells diverged and are scored as chance; their means carry no interval": int(
            cells["kind"].isin(CHANCE_KINDS).sum()
        ),
        "cells did not learn; they keep the accuracy measured": int((cells["kind"] == "no_learning").sum()),
        "cells come from other sources than these (stale)": int(cells["stale"].sum()),
        "pairs join a stale cell and a fresh one": int(table["num_pairs_mixed"].sum()),
    }
    notes += [f"{count} {what}" for what, count in counts.items() if count]
    for field, what in (("device", "devices"), ("torch", "versions of torch")):
        if cells[field].nunique() > 1:
            notes.append(f"cells were run on different {what}: {', '.join(sorted(cells[field].unique()))}")
    return notes


def _detectable(points: pd.Series[float]) -> str:
    known = points[points.map(math.isfinite)]
    what = "what could have been detected, with 80 % power at these spreads"
    if known.empty and points.isna().any():
        return f"{what}: not computed, since chance scores have entered"
    if known.empty:
        return f"{what}: no difference, however large: too few seeds"
    low, high = (f"{known.min():.2f}", f"{known.max():.2f}")
    return f"{what}: {low if low == high else f'{low} to {high}'} points"


def _pairing(pairs: pd.DataFrame) -> str:
    total = int(pairs["num_pairs"].sum())
    init, split, batches = (int(pairs[f"num_same_{what}"].sum()) for what in ("init", "split", "batches"))
    return (
        f"pairing, of {total} pairs: {init} share every initial weight outside the normaliser, "
        f"{batches} every batch and its augmentation, {split} the split"
    )


def _write_figures(folder: Path, cells: pd.DataFrame, curves: pd.DataFrame, caveats: list[str]) -> list[Path]:
    folder.mkdir(exist_ok=True)
    for path in folder.iterdir():  # those of conditions that are no more
        if path.suffix[1:] in FORMATS and re.fullmatch(f"({'|'.join(FIGURES)})(-.+=.*)?", path.stem):
            path.unlink()
    files, suffixes = [], set[str]()
    for condition in cells["condition"].unique():
        suffix = re.sub(r"[^\w.=-]+", "_", f"-{condition}") if condition else ""
        while suffix in suffixes:  # two conditions may differ in a character that no file's name should have
            suffix += "_"
        suffixes.add(suffix)
        some_cells, some_curves = (frame[frame["condition"] == condition] for frame in (cells, curves))
        for name, (draw, of_curves) in FIGURES.items():
            frame = some_curves if of_curves else some_cells
            figure = Figure(figsize=FIGURE_SIZE, layout="constrained")
            draw(frame, figure.add_subplot())
            if condition:
                figure.suptitle(condition, fontsize="medium")
            if caveats:
                figure.supxlabel("\n".join(caveats), fontsize="xx-small", color="0.35")
            for extension, metadata in FORMATS.items():
                path = folder / f"{name}{suffix}.{extension}"
                figure.savefig(path, dpi=200, metadata=metadata)
                figure.set_layout_engine("none")  # it stays as it was laid out for the first format
                files.append(path)
    return files


def _number(value: float, *, sign: str = "") -> str:
    return "" if math.isnan(value) else f"{value:{sign}.2f}"


def _interval(low: float, high: float, *, sign: str = "") -> str:
    return "" if math.isnan(low) else f"[{low:{sign}.2f}, {high:{sign}.2f}]"
