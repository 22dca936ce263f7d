"""How long a report takes, and how much memory, for studies as large as it is meant for; no test, since it is timed.

    .venv/bin/python tests/report_speed.py [ROUNDS]

Made-up cells with five arms and ten seeds; the largest has a net with 14 attention layers, whose probes fill most of
its memory. Each study is reported in full by a fresh process once a round, by turns.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import studies

from ablations.config.claim import Claim

NORMS = ("xnorm", "l2", "single_l2", "layernorm", "softmax")
RATES = [1e-3, 2e-3, 3e-3, 4e-3]
DEEP = (*(f"blocks.{i}.attn" for i in range(12)), *(f"class_blocks.{i}.attn" for i in range(2)))
SHALLOW = studies.LAYERS
STUDIES = {
    "50 cells x 100 epochs": (100, RATES[:1], SHALLOW),
    "200 cells x 300 epochs": (300, RATES, SHALLOW),
    "200 cells x 300 epochs, 14 layers": (300, RATES, DEEP),
}
"""What a study is called to its epochs, its learning rates and its attention layers."""

GLANCE_S = 0.3
"""Between two looks at the memory."""


def make(out: Path, name: str) -> Path:
    """Write a study."""
    epochs, rates, studies.LAYERS = STUDIES[name]
    claims = [Claim(kind="better_than_every_other", arm="xnorm").model_dump(exclude_defaults=True)]
    return studies.make_study(out, name=name, norms=NORMS, seeds=10, epochs=epochs, lr=rates, claims=claims)


def report(folder: Path) -> tuple[float, float]:
    """Report a study; return seconds and the most MiB that all processes together had at a time."""
    started, most = time.perf_counter(), 0
    process = subprocess.Popen([sys.executable, "-m", "ablations", "report", folder], stdout=subprocess.DEVNULL)
    while process.poll() is None:
        try:
            family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
            most = max(most, sum(one.memory_full_info().pss for one in family))  # what is shared is counted once
        except psutil.Error:  # one of them has just ended
            pass
        time.sleep(GLANCE_S)
    assert process.returncode == 0
    return time.perf_counter() - started, most / 2**20


def main(rounds: int) -> None:
    """Print the median, the shortest and the longest of each study, and its most memory."""
    with tempfile.TemporaryDirectory() as out:
        folders = {name: make(Path(out), name) for name in STUDIES}
        measured = {name: [] for name in STUDIES}
        for _ in range(rounds):
            for name, folder in folders.items():
                measured[name].append(report(folder))
    for name, runs in measured.items():
        seconds, most = zip(*runs, strict=True)
        print(
            f"{name}: {statistics.median(seconds):.1f} s [{min(seconds):.1f}, {max(seconds):.1f}], "
            f"{max(most):.0f} MiB in all processes"
        )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
