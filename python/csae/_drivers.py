"""The environment of graphics drivers."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

#: The folder of Wayland's sockets. OpenGL's drivers look for a display there, and complain on
#: standard error if the variable is missing or names no absolute path: over SSH and in containers.
DISPLAYS = "XDG_RUNTIME_DIR"


@contextmanager
def without_displays() -> Iterator[None]:
    """Names a folder without displays while adapters are listed and opened, if none is named."""
    before = os.environ.get(DISPLAYS)
    if not sys.platform.startswith("linux") or (before and os.path.isabs(before)):
        yield
        return
    os.environ[DISPLAYS] = tempfile.gettempdir()
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(DISPLAYS, None)
        else:
            os.environ[DISPLAYS] = before
