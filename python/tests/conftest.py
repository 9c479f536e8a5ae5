"""Makes the package importable from the sources, without an installed wheel."""

import importlib.util
import sys
from pathlib import Path

SOURCES = Path(__file__).resolve().parents[1]

installed = importlib.util.find_spec("csae")
places = (installed.submodule_search_locations if installed else None) or []
if not any((Path(place) / "torch" / "__init__.py").exists() for place in places):
    # An installed package without csae.torch must not hide the sources.
    sys.path.insert(0, str(SOURCES))
sys.path.insert(0, str(Path(__file__).parent))
