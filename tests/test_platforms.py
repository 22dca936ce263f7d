"""On a platform without what isolates cells, a command is one line and not a traceback."""

from __future__ import annotations

import subprocess
import sys

import pytest
from test_architecture import ROOT

from ablations.config.platforms import UNSUPPORTED

WITHOUT_UNIX = """
import sys
for name in ("fcntl", "grp", "pwd", "resource", "termios"):
    sys.modules[name] = None  # as where there is no such module
"""
ON_WINDOWS = (
    WITHOUT_UNIX + "import ablations.cli\nsys.platform = 'win32'\n"
)  # what else there is asks for it as it loads


def run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.process
@pytest.mark.parametrize("arguments", [(), ("--help",), ("run", "--norm", "l2"), ("report", "runs/x")], ids=str)
def test_a_command_on_windows_names_wsl_in_one_line(arguments):
    done = run(ON_WINDOWS + "import runpy; runpy.run_module('ablations', run_name='__main__')", *arguments)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"error: {UNSUPPORTED}\n")
    assert "WSL" in done.stderr


@pytest.mark.process
def test_python_on_windows_says_the_same():
    done = run(
        ON_WINDOWS + "import ablations\ntry:\n    ablations.run\nexcept ImportError as error:\n    print(error)\n"
    )
    assert done.stdout == f"ablations.run: {UNSUPPORTED}\n"


@pytest.mark.process
def test_the_net_needs_nothing_that_windows_lacks():
    done = run(WITHOUT_UNIX + "import ufo; print(ufo.build('ufo_vit_pico', num_classes=3).head.out_features)")
    assert done.stdout == "3\n", done.stderr
