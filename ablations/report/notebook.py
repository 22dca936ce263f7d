"""Results for notebooks and `ablations.load`: numbers, main table, figures, trained modules."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from ablations.analysis.results import Results
from ablations.config import UsageError
from ablations.config.escape import visible
from ablations.config.values import plural

if TYPE_CHECKING:
    from ablations.report.plot import Plot
    from ablations.report.text import TextTable
    from ablations.training.module import CellModule

STYLE = """<style>
.ablations table {border-collapse: collapse; border-block: 1px solid; color: inherit}
.ablations td {font-variant-numeric: tabular-nums}
.ablations :is(th, td) {padding: 0.15em 0.7em; border: none; background: none; color: inherit; text-align: right}
.ablations thead th {border-bottom: 1px solid}
.ablations .words {text-align: left}
.ablations caption {text-align: left; font-weight: 600; color: inherit; padding-bottom: 0.3em}
.ablations ul {font-size: 0.85em; opacity: 0.8; padding-left: 1.3em; margin-top: 0.5em; max-width: 60em}
</style>"""
"""Colours and background are the notebook's own, light or dark."""


class StudyResults(Results):
    """Results with their main table, figures and trained modules."""

    def __repr__(self) -> str:
        """Return the size of the results and their main attributes."""
        cells, missing = plural(len(self.cells), "cell"), len(self.missing)
        return f"<Results of {visible(self.name)}: {cells}, {missing} missing; .summary(), .paired(), .claims, .plot>"

    @property
    def plot(self) -> Plot:
        """The figures: `results.plot.test_accuracy()` and others."""
        from ablations.report.plot import Plot

        return Plot(self)

    @property
    def main(self) -> TextTable:
        """The main table as text, with the notes that must be read with it."""
        from ablations.report.notes import main_notes
        from ablations.report.tables import main_table, tuning_table

        return tuning_table(self) if self.is_tuning else main_table(self, main_notes(self))

    def _repr_html_(self) -> str:
        main = self.main
        return html_table(main, title=f"{self.name}: {main.title}")

    def module(self, cell: str) -> CellModule:
        """Return a trained cell's LightningModule, in evaluation mode; its weights must have been saved.

        Args:
            cell: its name, as ``xnorm-s0``, or the name of its folder if several cells have that name.

        Raises:
            UsageError: there is no such cell or more than one, or it has no weights, or others than the run wrote.
        """
        from ablations.store.digests import check_weights
        from ablations.store.reading import exists
        from ablations.tasks.trained import WEIGHTS, load_module

        found = [
            stratum.folder / "cells" / folder
            for stratum in self.strata
            for folder in stratum.frames.cells["folder"]
            if cell in (folder, folder.rpartition("-")[0])
        ]
        if len(found) != 1:
            names = self.cells["folder"].tolist() if not found else [folder.name for folder in found]
            said = "there is no cell" if not found else "several cells are named"
            raise UsageError(f"{said} {cell}; there are {', '.join(names)}")
        if exists(found[0] / WEIGHTS):
            check_weights(found[0], WEIGHTS)
        return load_module(found[0])


def html_table(table: TextTable, *, title: str) -> str:
    """Write a table and its notes as HTML for a notebook."""

    def row(tag: str, cells: list[str], bold: frozenset[int] = frozenset()) -> str:
        written = []
        for column, (cell, is_text) in enumerate(zip(cells, table.is_text, strict=True)):
            text = f"<b>{escape(visible(cell))}</b>" if column in bold else escape(visible(cell))
            written.append(f"<{tag}{' class=words' * is_text}>{text}</{tag}>")
        return f"<tr>{''.join(written)}</tr>"

    marks = [frozenset(column for i, column in table.bold if i == number) for number in range(len(table.rows))]
    rows = "".join(row("td", cells, bold) for cells, bold in zip(table.rows, marks, strict=True))
    head = row("th", table.head) if table.head else ""
    notes = "".join(f"<li>{escape(visible(note))}</li>" for note in table.notes)
    body = f"<caption>{escape(visible(title))}</caption><thead>{head}</thead><tbody>{rows}</tbody>"
    return f"<div class=ablations>{STYLE}<table>{body}</table><ul>{notes}</ul></div>"
