"""The program `csae`."""

from __future__ import annotations

import signal
import sys


def main() -> None:
    """Runs the program with the arguments of the process, and exits with its status."""
    from . import _csae

    # The program handles signals itself. Python would only act on them after its end.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    sys.exit(_csae.main(["csae", *sys.argv[1:]]))


if __name__ == "__main__":
    main()
