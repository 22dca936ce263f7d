"""Print the lower bounds that pyproject.toml states as constraints for pip: torch>=2.11 becomes torch==2.11."""

import tomllib
from pathlib import Path

PROJECT = tomllib.loads((Path(__file__).resolve().parent.parent / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]

for requirement in dict.fromkeys([*PROJECT["dependencies"], *(line for extra in EXTRAS.values() for line in extra)]):
    if ">=" in requirement:
        print(requirement.replace(">=", "=="))
