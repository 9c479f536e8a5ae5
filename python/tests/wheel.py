"""The program and images for the tests of the wheel. They need neither PyTorch nor sources."""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

import numpy as np

#: The program to compare with: `CSAE_PROGRAM`, or the one of the wheel.
GIVEN = os.environ.get("CSAE_PROGRAM")
#: The program that the wheel installs.
SCRIPT = Path(sysconfig.get_path("scripts")) / ("csae.exe" if os.name == "nt" else "csae")
ENVIRONMENT = {"CSAE_CACHE": "off", "XDG_RUNTIME_DIR": "/tmp"}


def run(*arguments: object, script: bool = False, **options: Any) -> Any:
    """Runs the program on the CPU path."""
    name = SCRIPT if script or not GIVEN else Path(GIVEN).resolve()
    command = [str(name), *map(str, arguments)]
    environment = {**os.environ, **ENVIRONMENT}
    return subprocess.run(
        command, capture_output=True, text=True, env=environment, check=False, **options
    )


def program(*arguments: object) -> str:
    """Runs the program, which must succeed, and returns what it prints."""
    assert shutil.which(str(SCRIPT)), f"{SCRIPT}: install the wheel"
    result = run(*arguments)
    assert result.returncode == 0, f"{result.stderr}{result.args}"
    return str(result.stdout)


def pictures(count: int, c: int, h: int, w: int, seed: int = 0) -> np.ndarray:
    """Smooth images with noise (N, C, H, W), floats from 0 to 1."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:h, 0:w] / 8.0
    a, b, phase = (rng.uniform(0.2, 2.0, (count, c, 1, 1)) for _ in range(3))
    found = 0.5 + 0.3 * np.sin(a * rows + b * columns + 3.0 * phase)
    return np.clip(found + 0.1 * rng.standard_normal(found.shape), 0.0, 1.0).astype(np.float32)
