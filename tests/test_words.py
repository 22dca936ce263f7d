"""One word for one thing: the words that CONTRIBUTING replaces are in no code and no document."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()


def replaced_words() -> list[str]:
    rows = CONTRIBUTING[CONTRIBUTING.index("| word | meaning | not |") :].partition("\n\n")[0].splitlines()[2:]
    return [
        word for row in rows for word in filter(None, row.strip().strip("|").rpartition("|")[2].strip().split(", "))
    ]


@cache
def texts() -> dict[str, str]:
    files = [path for folder in ("ablations", "ufo", "docs") for path in (ROOT / folder).rglob("*.[pm][yd]")]
    found = {str(path.relative_to(ROOT)): path.read_text() for path in [*files, ROOT / "README.md"]}
    found["CHANGELOG.md"] = (ROOT / "CHANGELOG.md").read_text().partition("\n## 0.1.0")[0]
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        cells = json.loads(path.read_text())["cells"]
        found[path.name] = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    before, _, words = CONTRIBUTING.partition("| word | meaning | not |")
    return found | {"CONTRIBUTING.md": before + words.partition("\n\n")[2]}


@pytest.mark.parametrize("word", replaced_words())
def test_a_replaced_word_is_nowhere(word):
    spaced = r"\s+".join(word.split())
    pattern = re.compile(rf"\b{spaced}s?\b", re.IGNORECASE)
    found = [
        f"{name}, line {text.count(chr(10), 0, match.start()) + 1}: {match[0]}"
        for name, text in texts().items()
        for match in pattern.finditer(text)
    ]
    assert not found, "\n".join(found)


def test_there_are_enough_words():
    assert len(replaced_words()) >= 15
