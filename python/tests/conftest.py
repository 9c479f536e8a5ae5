"""Makes the package importable from the sources, without an installed wheel."""

import importlib
import sys
from pathlib import Path

SOURCES = Path(__file__).resolve().parents[1]

try:
    importlib.import_module("csae.torch")
except ImportError:
    # An installed package without this module must not hide the sources.
    sys.modules.pop("csae", None)
    sys.path.insert(0, str(SOURCES))
sys.path.insert(0, str(Path(__file__).parent))
