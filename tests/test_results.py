"""The committed studies stay small: one form of each file, and the figures that the documents show."""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MOST_BYTES = 12_000_000


@pytest.fixture(scope="module")
def committed() -> list[Path]:
    """Return the files of results/ that are under version control."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout of the repository")
    trusted = ("-c", f"safe.directory={ROOT}")  # whoever owns it
    listed = subprocess.run(
        ["git", *trusted, "ls-files", "-z", "results"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return [ROOT / name for name in listed.stdout.split("\0") if name]


def test_results_are_small(committed):
    size = sum(path.stat().st_size for path in committed)
    assert 0 < size <= MOST_BYTES, f"results/ has {size:,} bytes"


def test_every_committed_figure_has_one_format(committed):
    figures = [path for path in committed if path.suffix in (".png", ".pdf", ".svg")]
    assert figures
    assert {path.suffix for path in figures} == {".png"}


def test_every_committed_file_of_detections_is_compressed(committed):
    names = Counter(path.name for path in committed if path.name.startswith("detections."))
    assert names == {"detections.json.bz2": len(list((ROOT / "results" / "shapes" / "cells").iterdir()))}


def test_every_image_of_the_documents_is_committed(committed):
    documents = "".join(path.read_text() for path in (ROOT / "README.md", *ROOT.glob("docs/**/*.md")))
    shown = set(re.findall(r"\]\((?:\.\./)*(results/[^)]+\.\w+)\)", documents))
    assert len(shown) > 5
    assert shown <= {str(path.relative_to(ROOT)) for path in committed}
