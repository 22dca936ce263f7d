"""The notebooks run as they stand, and what is committed with them is what they give."""

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).resolve().parent.parent / "notebooks"
READING = ("read_a_study", "did_the_pairing_help")
TRAINING = ("a_new_normaliser", "tune_every_arm")


def read(name: str) -> nbformat.NotebookNode:
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def execute(name: str) -> nbformat.NotebookNode:
    notebook = read(name)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = []
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


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "patterns"),
    [
        (
            "a_new_normaliser",
            [
                "12 cells: 12 missing; 12 to run",
                r"xnorm_l1 - xnorm_fixed: [-+]\d\.\d\d points .*, p = \d\.\d{3}, 6 pairs",
            ],
        ),
        (
            "tune_every_arm",
            [
                "16 trials: 16 missing; 16 to run",
                "12 cells: 12 missing; 12 to run",
                r"softmax - xnorm, each at its own learning rate: [-+]\d\.\d\d points .*, p = \d\.\d{3}, 6 pairs",
                r"norm-digits-tuned/tuning: softmax: 8 trials, best \d\d\.\d\d % at lr 0\.\d+",
            ],
        ),
    ],
)
def test_training_is_run_compared_and_leaves_nothing_behind(name, patterns):
    before = sorted(FOLDER.iterdir())
    printed = "\n".join(
        output["text"] for cell in execute(name).cells for output in cell.get("outputs", []) if "text" in output
    )
    for pattern in patterns:
        assert re.search(pattern, printed), pattern
    assert sorted(FOLDER.iterdir()) == before
