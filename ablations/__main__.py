"""``python -m ablations``."""

import sys

try:
    from ablations.cli import main

    if __name__ == "__main__":
        main()
except KeyboardInterrupt:  # while the command line is loaded
    print("interrupted", file=sys.stderr)
    sys.exit(130)
