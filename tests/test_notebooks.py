"""The notebooks run, and what is committed with them is what they give.

Those that train do it here with fewer seeds, trials and epochs, and with ``--full`` as they stand.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).resolve().parent.parent / "notebooks"
READING = ("read_a_study", "did_the_pairing_help")
TRAINING = ("a_new_normaliser", "tune_every_arm")


def read(name: str) -> nbformat.NotebookNode:
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def execute(name: str, changes: Mapping[str, str] = MappingProxyType({})) -> nbformat.NotebookNode:
    """Run a notebook whose code has each text of ``changes`` replaced."""
    notebook = read(name)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = []
            for old, new in changes.items():
                cell.source = cell.source.replace(old, new)
    return NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(FOLDER)}}).execute()


def numbers(notebook: nbformat.NotebookNode) -> list[list[str]]:
    """Return the decimal numbers that each cell prints or shows as text, without those in an address in memory."""
    found = []
    for cell in notebook.cells:
        texts = [
            output["text"] if output.output_type == "stream" else output.get("data", {}).get("text/plain", "")
            for output in cell.get("outputs", [])
        ]
        found.append(re.findall(r"[-+]?\d+\.\d+", re.sub(r"<[^>]* at 0x[^>]*>", "", "\n".join(texts))))
    return found


def images(notebook: nbformat.NotebookNode) -> int:
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return sum("image/png" in output.get("data", {}) for output in outputs)


def test_every_notebook_is_known_here():
    assert {path.stem for path in FOLDER.glob("*.ipynb")} == {*READING, *TRAINING}


@pytest.mark.parametrize("name", [*READING, *TRAINING])
def test_notebooks_are_committed_whole_and_without_an_error(name):
    cells = [cell for cell in read(name).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert not [output for cell in cells for output in cell.outputs if output.output_type == "error"]
    assert images(read(name)) >= 1
    assert "/tmp" not in (FOLDER / f"{name}.ipynb").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("name", READING)
def test_reading_gives_the_numbers_that_are_committed(name):
    before = {path: path.stat().st_mtime_ns for path in FOLDER.parent.glob("results/**/*")}
    again = execute(name)
    assert numbers(again) == numbers(read(name))
    assert images(again) == images(read(name))
    assert {path: path.stat().st_mtime_ns for path in FOLDER.parent.glob("results/**/*")} == before


@dataclass(frozen=True)
class Training:
    """What a notebook that trains prints, and how its command is shortened.

    Args:
        options: options of its command.
        short: those in their place.
        printed: patterns of what it prints, with a number for each {}.
        counts: these numbers.
        short_counts: the numbers of the short form.
    """

    options: str
    short: str
    printed: tuple[str, ...]
    counts: tuple[int, ...]
    short_counts: tuple[int, ...]


TRAINED = {
    "a_new_normaliser": Training(
        options="--seeds 6 --epochs 4",
        short="--seeds 2 --epochs 1",
        printed=(
            "{0} cells: {0} missing; {0} to run",
            r"xnorm_l1 - xnorm_fixed: [-+]\d+\.\d\d points .*, p = \d\.\d{{3}}, {1} pairs",
        ),
        counts=(12, 6),
        short_counts=(4, 2),
    ),
    "tune_every_arm": Training(
        options="--trials 8 --confirm 6 --epochs 3",
        short="--trials 2 --confirm 2 --epochs 1",
        printed=(
            "{0} trials: {0} missing; {0} to run",
            "{1} cells: {1} missing; {1} to run",
            r"softmax - xnorm, each at its own learning rate: [-+]\d+\.\d\d points .*, p = \d\.\d{{3}}, {2} pairs",
            r"norm-digits-tuned/tuning: softmax: {3} trials, best \d\d\.\d\d % at lr 0\.\d+",
        ),
        counts=(16, 12, 6, 8),
        short_counts=(4, 4, 2, 2),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAINING)
def test_training_is_run_compared_and_leaves_nothing_behind(name, full):
    before = sorted(FOLDER.iterdir())
    wanted = TRAINED[name]
    assert any(wanted.options in cell.source for cell in read(name).cells)
    cells = execute(name, {} if full else {wanted.options: wanted.short}).cells
    printed = "\n".join(output["text"] for cell in cells for output in cell.get("outputs", []) if "text" in output)
    for pattern in wanted.printed:
        numbered = pattern.format(*(wanted.counts if full else wanted.short_counts))
        assert re.search(numbered, printed), numbered
    assert sorted(FOLDER.iterdir()) == before
