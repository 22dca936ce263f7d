"""Reports of results: tables, figures, a checklist and one HTML file."""

from ablations.report.tables import power_table
from ablations.report.text import TextTable, markdown_table
from ablations.report.write import Report, write_report

__all__ = ["Report", "TextTable", "markdown_table", "power_table", "write_report"]
