"""Link torch and torchvision, with all that they require, from this environment into another one of the same Python.

They are 5 GB, which pip would unpack a second time. Usage: python .ci/link_torch.py ENVIRONMENT
"""

import importlib.metadata
import os
import re
import sys
from pathlib import Path


def closure(names: list[str]) -> dict[str, importlib.metadata.Distribution]:
    """Return distributions with all that they require in this environment, by name."""
    found: dict[str, importlib.metadata.Distribution] = {}
    while names:
        name = names.pop()
        if name in found:
            continue
        try:
            found[name] = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:  # for another platform
            continue
        lines = [line for line in found[name].requires or [] if "extra ==" not in line]
        names += [re.split(r"[\[<>=!~ ;(]", line)[0].lower() for line in lines]
    return found


def main(environment: Path) -> None:
    """Link every file below site-packages of the distributions that the other environment lacks."""
    source = Path(str(importlib.metadata.distribution("torch").locate_file(""))).resolve()
    target = environment / source.relative_to(Path(sys.prefix).resolve())
    there = {one.name for one in importlib.metadata.distributions(path=[str(target)])}
    for name, distribution in closure(["torch", "torchvision"]).items():
        for file in [] if name in there else distribution.files or []:
            path, link = source / file, target / file
            if ".." in file.parts or not path.is_file() or link.exists():  # a script; gone; shared with another one
                continue
            link.parent.mkdir(parents=True, exist_ok=True)
            os.link(path, link)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
