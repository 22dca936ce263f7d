"""Print the lower bounds of all that pyproject.toml requires, with what its tests need: torch==2.11 and so on.

Usage: python .ci/lower_bounds.py >FILE; pip install --requirement FILE
"""

import tomllib
from pathlib import Path

PROJECT = tomllib.loads((Path(__file__).resolve().parent.parent / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]


def expanded(lines: list[str]) -> list[str]:
    """Put the requirements of an extra in the place of this project's own name with the extra in brackets."""
    found = []
    for line in lines:
        name, _, extras = line.rstrip("]").partition("[")
        if name == PROJECT["name"]:
            found += [inner for extra in extras.split(",") for inner in expanded(EXTRAS[extra])]
        else:
            found.append(line)
    return found


if __name__ == "__main__":
    print("\n".join(line.replace(">=", "==") for line in expanded([*PROJECT["dependencies"], "ufo-ablations[test]"])))
