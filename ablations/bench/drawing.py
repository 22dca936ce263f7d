"""Files of the figures of benchmarks."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure


def save_figure(figure: Figure, path: Path) -> list[Path]:
    """Write a figure as PNG and PDF; return the paths of the files.

    Args:
        figure: figure.
        path: path of the files; its extension is replaced.
    """
    files = [path.with_suffix(extension) for extension in (".png", ".pdf")]
    for file in files:
        figure.savefig(file, dpi=160)
    return files
