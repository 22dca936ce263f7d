"""``python -m ablations``."""

import atexit
import contextlib
import os
import sys


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
