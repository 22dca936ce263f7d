"""The committed studies stay small: one form of each file, and the figures that the documents show."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest

from ablations.api import read_results
from ablations.store.tidy_csv import write_csv

ROOT = Path(__file__).resolve().parent.parent
MOST_BYTES = 16_000_000
PACKED = sorted((ROOT / "results").glob("*/cells.tar.xz"))


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


@pytest.mark.slow
def test_committed_verdicts_are_those_of_the_cells_and_of_the_document():
    folder = ROOT / "results" / "norm_digits"
    columns = ["claim", "condition", "verdict", "alone", "evidence", "known_from"]
    written = pd.read_csv(folder / "tables" / "claims.csv", keep_default_na=False).astype({"seeds_for_margin": str})
    judged = read_results([folder]).claims
    assert written[columns].to_numpy().tolist() == judged[columns].to_numpy().tolist()
    said = " ".join((ROOT / "docs" / "results.md").read_text().split())
    rows = written.set_index("claim")
    other = rows.loc["single_l2_kv is worse than xnorm by at least 1 point"]
    same = rows.loc["xnorm_fixed and xnorm are equivalent within 0.5 points"]
    best = rows.loc["xnorm is better than every other arm"]
    for row, p, text in (
        (other, "p_contradicted_holm", "(adjusted p {:.3f}; alone: contradicted), and would take {} seeds"),
        (same, "p_supported_holm", "(adjusted p {:.2f}; alone: supported), and would take {} seeds"),
        (best, "p_supported_holm", "undecided. Half a point would take {1} seeds"),
    ):
        assert row["verdict"] == "undecided"
        assert text.format(float(row[p]), row["seeds_for_margin"]) in said


@pytest.mark.slow
@pytest.mark.parametrize("packed", PACKED, ids=lambda path: path.parent.name)
def test_packed_cells_give_the_committed_tables(packed, tmp_path):
    folder = tmp_path / packed.parent.name
    shutil.unpack_archive(packed, folder, filter="data")
    shutil.copy(packed.parent / "study.yaml", folder)
    results = read_results([folder])
    tables = {"claims": results.claims, "main": results.table}
    if len(results.frontier):  # several learning rates
        tables |= {"frontier": results.frontier, "failure_map": results.failure_map}
    for name, frame in tables.items():
        made = folder / f"{name}.csv"
        write_csv(frame, made)
        assert made.read_text() == (packed.parent / "tables" / made.name).read_text(), name
