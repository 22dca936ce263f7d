"""``python -m ablations``."""

import os
import sys

# Python searches the current folder first, which may be somebody else's study: no file there is taken for a module,
# except a plug-in that is asked for.
if sys.path[:1] == [os.getcwd()] != [os.path.dirname(os.path.dirname(__file__))]:  # noqa: PTH109, PTH120  # nor pathlib
    del sys.path[0]

import atexit
import contextlib


def leave(code: int) -> None:
    """End the process without taking torch and pandas apart piece by piece, which takes a second or two."""
    atexit._run_exitfuncs()
    with contextlib.suppress(BrokenPipeError):  # whoever was reading has left
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


try:
    from ablations.cli import main

    if __name__ == "__main__":
        main()
except KeyboardInterrupt:  # while the command line is loaded
    print("interrupted", file=sys.stderr)
    sys.exit(130)
except SystemExit as end:
    leave(int(end.code or 0))
