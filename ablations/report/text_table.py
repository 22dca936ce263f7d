"""Rows of a frame as a table of texts."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from ablations.config.escape import shortened, visible
from ablations.config.limits import MOST_SENTENCE
from ablations.config.privacy import private
from ablations.report.text import TextTable

Row = dict[str, str]

TEXT_COLUMNS = (
    "condition",
    "claim",
    "verdict",
    "alone",
    "evidence",
    "source",
    "isolates",
    "difference",
    "outcome",
    "why",
)
"""Columns with words, in addition to that of the arms."""


def text_table(
    name: str,
    title: str,
    frame: pd.DataFrame,
    write: Callable[[pd.Series], Row],
    *,
    place: str = "condition",
    bold: str | None = None,
    notes: list[str] | None = None,
) -> TextTable:
    """Format a frame's rows as text, with a column of their condition if there are several.

    Args:
        name: stem of the file names.
        title: short title.
        frame: the rows.
        write: function from a row to its texts by column, of which the first is the arm or the difference.
        place: column that names the row's condition or setting.
        bold: column whose texts are bold where the frame has `supported`.
        notes: notes below the table.
    """
    several = bool((frame[place] != "").any())
    written = [({place: str(row[place])} if several else {}) | write(row) for _, row in frame.iterrows()]
    head = list(written[0]) if written else []
    marked = frame["supported"].tolist() if bold in head else []
    places = {(i, head.index(str(bold))) for i, is_supported in enumerate(marked) if is_supported}
    rows = [[visible(shortened(private(cell), MOST_SENTENCE)) for cell in row.values()] for row in written]
    is_text = [column in TEXT_COLUMNS or place <= several for place, column in enumerate(head)]  # the arms come first
    names = [visible(column.strip()) for column in head]
    return TextTable(
        name, title, names, rows, is_text, frame, frozenset(places), [visible(private(note)) for note in notes or []]
    )
