"""Tables as text, and the formats of tables and numbers: Markdown and LaTeX."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from ablations.analysis import MOST_SEEDS
from ablations.config.escape import visible

LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
LATEX |= {sign: "\\" + sign for sign in "&%$#_{}"} | {"<": r"$<$", ">": r"$>$", "|": r"\textbar{}"}
"""Character with a meaning in LaTeX to its escape."""

MARKDOWN = re.compile(
    r"\[(?:[-+0-9., ]|e[-+]\d|open)+\](?![(\[:])|"
    r"[\\`*|\[\]]|(?<![^\W_])_|_(?![^\W_])|~(?=~)|<(?=[A-Za-z/!?])|&(?=\#?\w+;)|^[#>]"
)
"""Intervals; and signs with a meaning in Markdown."""

PARAGRAPHS = {"claim": 0.14, "evidence": 0.24, "source": 0.14, "why": 0.35}
"""Column that LaTeX breaks into lines to its width, as a share of the page width."""


@dataclass(frozen=True)
class TextTable:
    """A table as text.

    Args:
        name: stem of the file names.
        title: short title.
        head: column names.
        rows: rows of texts, one per column.
        is_text: one flag per column: True for words, False for numbers, which sort as such.
        bold: positions (row, column) of values that the adjusted test supports.
        frame: unrounded data, for CSV.
        notes: notes below the table.
    """

    name: str
    title: str
    head: list[str]
    rows: list[list[str]]
    is_text: list[bool]
    frame: pd.DataFrame
    bold: frozenset[tuple[int, int]] = frozenset()
    notes: list[str] = field(default_factory=list)

    @property
    def marked_rows(self) -> list[list[str]]:
        """Rows with asterisks around the bold values."""
        return [
            [f"**{cell}**" if (i, j) in self.bold else cell for j, cell in enumerate(row)]
            for i, row in enumerate(self.rows)
        ]

    def markdown(self) -> str:
        """Format the table and its notes as Markdown."""
        notes = "".join(f"- {markdown_text(note)}\n" for note in self.notes)
        cells = [[markdown_text(cell) for cell in row] for row in self.rows]
        for i, j in self.bold:
            cells[i][j] = f"**{cells[i][j]}**"
        return markdown_table(list(map(markdown_text, self.head)), cells) + (f"\n{notes}" if notes else "")

    def latex(self) -> str:
        """Format the table as LaTeX with booktabs rules, and its notes as comments below."""
        cells = [[latex_text(cell) for cell in row] for row in self.rows]
        for i, j in self.bold:
            cells[i][j] = rf"\textbf{{{cells[i][j]}}}"
        frame = pd.DataFrame(cells, columns=[latex_text(name) for name in unique(self.head)])
        columns = "".join(
            rf"p{{{PARAGRAPHS[name]}\linewidth}}" if name in PARAGRAPHS else "l" if is_text else "r"
            for name, is_text in zip(self.head, self.is_text, strict=True)
        )
        caption, label = latex_text(self.title), f"tab:{self.name}"
        text = frame.style.hide(axis="index").to_latex(
            hrules=True, column_format=columns, caption=caption, label=label, position_float="centering"
        )
        text = text.replace("\\centering\n", "\\centering\n\\footnotesize\\setlength{\\tabcolsep}{3pt}\n", 1)
        return "% \\usepackage{booktabs}\n" + text + "".join(f"% {visible(note)}\n" for note in self.notes)


def markdown_table(head: list[str], rows: list[list[str]]) -> str:
    """Format a table of texts as Markdown.

    >>> markdown_table(["a", "b"], [["1", "x|y"]]).splitlines()
    ['| a | b |', '| --- | --- |', '| 1 | x\\\\|y |']
    """
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(map(_markdown_cell, line)) + " |\n" for line in lines)


def _markdown_cell(text: str) -> str:
    return re.sub(r"(?<!\\)\|", r"\\|", visible(" ".join(text.split())))


def markdown_text(text: str) -> str:
    r"""Escape a text for Markdown; intervals, and signs that have no meaning where they are, stay as they are.

    >>> print(markdown_text("single_l2 [-0.25, +1.00] p <0.001"), markdown_text("<b>[a](b)`|*"))
    single_l2 [-0.25, +1.00] p <0.001 \<b>\[a\](b)\`\|\*
    >>> print(markdown_text("[2.6e-06, 0.0186] [0.0003, open] [open](b)"))
    [2.6e-06, 0.0186] [0.0003, open] \[open\](b)
    """
    return MARKDOWN.sub(lambda found: found[0] if len(found[0]) > 1 else f"\\{found[0]}", visible(text))


def latex_text(text: str) -> str:
    """Escape a text for LaTeX; the hyphen of a number becomes a minus.

    >>> latex_text("single_l2 50 %"), latex_text("-0.25"), latex_text("[-0.25, +1.00]")
    ('single\\\\_l2 50 \\\\%', '$-$0.25', '{[}$-$0.25, +1.00]')
    """
    escaped = "".join(LATEX.get(sign, sign) for sign in visible(" ".join(text.split())))
    escaped = re.sub(r"(?<![\w.])-(?=\d)", "$-$", escaped)
    # after a line break, [ starts an argument, and a star belongs to the break
    return f"{{{escaped[0]}}}{escaped[1:]}" if escaped.startswith(("[", "*")) else escaped


def unique(names: Iterable[str]) -> list[str]:
    """Make equal names distinct by invisible trailing blanks.

    >>> unique(["a", "b", "a"])
    ['a', 'b', 'a ']
    """
    seen: list[str] = []
    for name in names:
        while name in seen:
            name += " "
        seen.append(name)
    return seen


def number(value: float, *, sign: str = "") -> str:
    """Format points or a share with two decimals; empty for NaN."""
    return "" if math.isnan(value) else f"{value:{sign}.2f}"


def seeds_text(seeds: Any) -> str:
    """Format a number of needed seeds; empty if it is missing.

    >>> seeds_text(16), seeds_text(pd.NA), seeds_text(1_000_000_000)
    ('16', '', '1000000000 or more')
    """
    return "" if pd.isna(seeds) else f"{seeds}{' or more' * (seeds >= MOST_SEEDS)}"


def interval(low: float, high: float, *, sign: str = "") -> str:
    """Format an interval; empty for NaN."""
    return "" if math.isnan(low) else f"[{low:{sign}.2f}, {high:{sign}.2f}]"


def p_text(p: float) -> str:
    """Format a p value.

    >>> p_text(0.0351), p_text(0.0001)
    ('0.035', '<0.001')
    """
    if math.isnan(p):
        return ""
    return f"{p:.3f}" if p >= 0.001 else "<0.001"
