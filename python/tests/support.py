"""The program, models and arrays for the tests."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from csae.torch import Model, save

ROOT = Path(__file__).resolve().parents[2]
MODELS = ROOT / "assets" / "models"
PRESETS = sorted(path.stem for path in (ROOT / "assets" / "presets").glob("*.toml"))
#: Presets for gray images, which the bundled digits are. All others train on photographs.
GRAY = ("generate", "signals", "sparse", "top-k", "wta", "wta2")

#: The program that the environment names. Tests change the working directory.
GIVEN = os.environ.get("CSAE_PROGRAM") and os.path.abspath(os.environ["CSAE_PROGRAM"])

ENVIRONMENT = {"CSAE_DEVICE": "cpu", "CSAE_CACHE": "off", "XDG_RUNTIME_DIR": "/tmp"}


def program() -> str:
    """The program: `CSAE_PROGRAM`, the one built here, or the one in `PATH`."""
    if GIVEN:
        return GIVEN
    built = ROOT / "target" / "release" / "csae"
    found = str(built) if built.exists() else shutil.which("csae")
    if found is None:
        pytest.skip("no program to compare with: build csae, or set CSAE_PROGRAM")
    return found


def csae_run(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Runs the program on the CPU path."""
    command = [program(), *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **ENVIRONMENT}, check=False
    )


def csae(*arguments: object) -> str:
    """Runs the program, which must succeed, and returns what it prints."""
    result = csae_run(*arguments)
    assert result.returncode == 0, f"{result.stderr}{result.args}"
    return result.stdout


def random_model(description: Mapping[str, Any], seed: int = 0, gain: float = 1.0) -> Model:
    """A model with random values of every tensor, in evaluation mode.

    `gain` is a factor of the weights.
    """
    rng = np.random.default_rng(seed)
    model = Model(description)
    with torch.no_grad():
        for name, tensor in model.state_dict(keep_vars=True).items():
            fan_in = max(tensor[0].numel(), 1)
            values = gain * rng.standard_normal(tuple(tensor.shape)) / np.sqrt(fan_in)
            if name.endswith(("threshold", "slope")):
                values = 0.02 + 0.05 * np.abs(rng.standard_normal(tuple(tensor.shape)))
            elif tensor.dim() == 1:
                values = 0.1 * rng.standard_normal(tuple(tensor.shape))
            tensor.copy_(torch.from_numpy(values))
    return model.eval()


def images(count: int, size: Sequence[int], seed: int = 0) -> np.ndarray:
    """Smooth random images (N, C, H, W) from 0 to 1."""
    rng = np.random.default_rng(seed)
    c, h, w = size
    rows, columns = np.mgrid[0:h, 0:w] / 8.0
    found = np.zeros((count, c, h, w))
    for n in range(count):
        for channel in range(c):
            a, b, phase = rng.uniform(0.2, 2.0, 2).tolist() + [rng.uniform(0.0, 6.0)]
            found[n, channel] = 0.5 + 0.3 * np.sin(a * rows + b * columns + phase)
    found += 0.1 * rng.uniform(-1.0, 1.0, found.shape)
    return found.clip(0.0, 1.0).astype(np.float32)


def error(found: np.ndarray | torch.Tensor, wanted: np.ndarray | torch.Tensor) -> float:
    """The largest difference, relative to the largest value."""
    found, wanted = np.asarray(found, dtype=np.float64), np.asarray(wanted, dtype=np.float64)
    assert found.shape == wanted.shape, f"{found.shape} is not {wanted.shape}"
    scale = np.abs(wanted).max(initial=0.0)
    return float(np.abs(found - wanted).max(initial=0.0) / (scale if scale > 0.0 else 1.0))


def configuration(folder: Path, description: Mapping[str, Any]) -> Path:
    """A configuration with the model of a description."""

    def toml(value: Any) -> str:
        if isinstance(value, dict):
            return "{" + ", ".join(f"{key} = {toml(one)}" for key, one in value.items()) + "}"
        if isinstance(value, list):
            return "[" + ", ".join(map(toml, value)) + "]"
        return json.dumps(value)

    path = folder / "config.toml"
    path.write_text(f"model = {toml(description)}")
    return path


class Program:
    """A model file and a folder for arrays, to ask the program for the model's outputs."""

    def __init__(self, folder: Path, model: Model | Path) -> None:
        self.folder = folder
        self.model = model if isinstance(model, Path) else folder / "model.safetensors"
        if isinstance(model, Model):
            save(model, self.model)

    def ask(self, command: str, x: np.ndarray, *options: object) -> np.ndarray:
        """The output of a command for an array of samples."""
        samples, out = self.folder / "samples.npy", self.folder / "outputs.npy"
        np.save(samples, x)
        layout = "NCL" if x.ndim == 3 else "NCHW"
        csae(command, self.model, samples, "-o", out, "--force", "--layout", layout, *options)
        return np.load(out)


@torch.no_grad()
def tensor_of(call: Any, x: np.ndarray, **options: Any) -> np.ndarray:
    """Calls a method of a model on an array."""
    return call(torch.from_numpy(x), **options).numpy()
