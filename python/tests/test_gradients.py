"""Gradients of whole models equal those of the program's training steps.

The program takes one step of plain SGD on a batch that is the whole data: the gradient is the
difference of the parameters before and after, divided by the learning rate. PyTorch computes in 64
bits. Random numbers of the step (dropout, noise, masks) are those of the program.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import randomness
import torch
from cases import AUTOENCODERS, CONSTRAINED
from support import (
    GRAY,
    PRESETS,
    configuration,
    csae,
    csae_run,
    error,
    images,
    random_model,
)

import csae.torch as ct

#: Largest difference of a tensor's gradients, relative to the largest gradient in the tensor. The
#: program computes in 32-bit floats.
TOLERANCE = 1e-5
#: Learning rates, tried in order until the outputs of the updated model are finite. The larger the
#: update is against the parameters, the less their rounding matters.
RATES = (1e4, 1e2, 1.0, 1e-1, 1e-2)
COUNT = 6

PLAIN_STEP = {
    "optimizer.kind": "sgd", "optimizer.momentum": 0, "optimizer.clip_norm": 0,
    "optimizer.weight_decay": 0, "schedule.kind": "constant", "schedule.warmup_epochs": 0,
    "schedule.warmup_steps": 0, "sparsity.warmup_epochs": 0, "sparsity.warmup_steps": 0,
    "sparsity.revive_strength": 0, "data.validation": 0, "data.flip_x": "false",
    "data.flip_y": "false", "data.turn": "false", "data.normalize": "none", "train.retries": 0,
}
#: Channels, height and width of the samples of each preset; others have 3x16x16.
SIZES = {
    **{one: (1, 12, 12) for one in GRAY}, "signals": (2, 1, 64), "w1": (1, 28, 28),
    "w2": (3, 32, 32), "w3": (3, 64, 64),
}
#: Presets whose steps draw random numbers by the position of a sample in the batch.
RANDOM = ("article", "denoise", "inpaint", "paint-1", "paint-2", "paint-3", "sparse", "top-k",
          "upscale", "w1")
CORRUPTIONS = {
    "denoise": {"corruption.sigma": "[15, 60]"},
    "inpaint": {"corruption.missing": "[0.3, 0.3]", "corruption.masks": '["pixels"]'},
    "upscale": {"corruption.scales": "[2]"},
}


def train(folder: Path, name: str, x: np.ndarray, source: tuple[object, ...], rate: float,
          settings: dict[str, Any]) -> Path | None:
    """A step on `x`. Returns the folder of the run, or None if the step diverges."""
    samples, run = folder / "samples.npy", folder / name
    np.save(samples, x if x.shape[2] > 1 else x[:, :, 0])
    options = {**PLAIN_STEP, "optimizer.lr": rate, "data.crop": max(x.shape[2:]), **settings}
    flags = [flag for key, value in options.items() for flag in ("--set", f"{key}={value}")]
    result = csae_run("train", samples, "--layout", "NCHW" if x.shape[2] > 1 else "NCL", "--steps",
                      1, "--batch", len(x), "-o", run, "-q", "--force", *source, *flags)
    if "diverged" in result.stderr:
        return None
    assert result.returncode == 0, result.stderr
    return run


def step(folder: Path, source: tuple[object, ...], x: np.ndarray,
         settings: dict[str, Any]) -> tuple[ct.Model, ct.Model, float]:
    """A random model, the same after a step of the program, and the learning rate."""
    shape = train(folder, "shape", x, source, 0.0, settings)
    assert shape is not None
    # Of restorers the outputs are polynomials of a high degree in the weights.
    description = ct.load(shape).description
    before = random_model(description, 3, 0.4 if "undoes" in description else 1.0)
    ct.save(before, folder / "before.safetensors")
    more = (*source, "--from", folder / "before.safetensors")
    for rate in RATES:
        run = train(folder, "after", x, more, rate, settings)
        if run is not None:
            return before, ct.load(run), rate
    raise AssertionError("every rate diverges")


def corrupted(preset: str, x: np.ndarray) -> tuple[np.ndarray, dict[str, Any]]:
    """What the model sees in the step, and its conditions."""
    if preset == "denoise":
        given, level = randomness.noisy(x, (15.0, 60.0))
        return given, {"level": torch.from_numpy(level)}
    if preset == "upscale":
        return randomness.enlarged(x, 2), {"scale": 2}
    if preset == "inpaint":
        missing = torch.from_numpy(randomness.missing_pixels(x.shape, 0.3))
        return ct.fill(torch.from_numpy(x), missing).numpy(), {"missing": missing}
    return x, {}


def gradients(model: ct.Model, x: np.ndarray, given: np.ndarray, conditions: dict[str, Any],
              weight: float) -> dict[str, torch.Tensor]:
    """Gradients of ‖x − y‖² + weight·‖z‖₁, summed over samples and divided by their number."""
    model.double().train()
    numbers = {id(layer): at for at, layer in enumerate(model._plan.layers, 1)}

    def dropout(layer: ct.sparsity.Dropout, run: object, z: torch.Tensor) -> torch.Tensor:
        p = layer.plan.options["p"]
        mask = randomness.dropout_mask(tuple(z.shape), p, numbers[id(layer)])
        return z * torch.from_numpy(mask) / (1.0 - p)

    with mock.patch.object(ct.sparsity.Dropout, "forward", dropout):
        y, z = model(torch.from_numpy(given), **conditions, return_code=True)
        target = model.target(torch.from_numpy(x)).detach()
    loss = ((y - target) ** 2).sum() + weight * z.abs().sum()
    (loss / len(x)).backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def penalty(preset: str) -> float:
    """λ of the preset's L1 penalty, or 0."""
    lines = dict(line.split(" = ") for line in csae("presets", preset).splitlines()
                 if line.count(" = ") == 1 and not line.startswith("#"))
    return float(lines["lambda"]) if lines.get("penalty") == '"l1"' else 0.0


def unconstrained(preset: str) -> dict[str, float]:
    """Settings that turn off the norms of atoms."""
    name, found = "", {}
    for line in csae("presets", preset).splitlines():
        if line.startswith("name = "):
            name = line.split('"')[1]
        if line.startswith("max_norm"):
            found[f"model.layers.{name}.max_norm"] = 1e30
    return found


def compare(before: ct.Model, after: ct.Model, rate: float,
            found: dict[str, torch.Tensor]) -> None:
    """Compares gradients with the difference that a step made, and states with those after it."""
    assert found
    for name, gradient in found.items():
        old, new = (m.get_parameter(name).detach().double() for m in (before, after))
        difference = error(gradient, (old - new) / rate)
        print(f"{rate:g} {name} {difference:.1e}")
        assert difference <= TOLERANCE, name
    for name, parameter in after.named_parameters():
        if name not in found:
            assert torch.equal(parameter.double(), before.get_parameter(name)), name
    for name, state in after.named_buffers():
        if name.startswith("layers."):
            assert error(before.get_buffer(name), state) <= TOLERANCE, name


@pytest.mark.parametrize("preset", PRESETS)
def test_gradients_of_every_preset_equal_the_program(tmp_path: Path, preset: str) -> None:
    size = SIZES.get(preset, (3, 16, 16))
    # Equal images make the step independent of the order in which the program takes the samples.
    x = np.repeat(images(1, size, 5), COUNT, 0) if preset in RANDOM else images(COUNT, size, 5)
    settings = {**CORRUPTIONS.get(preset, {}), **unconstrained(preset)}
    before, after, rate = step(tmp_path, ("--preset", preset), x, settings)
    x = x.astype(np.float64)
    given, conditions = corrupted(preset, x)
    compare(before, after, rate, gradients(before, x, given, conditions, penalty(preset)))


@pytest.mark.parametrize("case", AUTOENCODERS)
def test_gradients_of_every_layer_equal_the_program(tmp_path: Path, case: str) -> None:
    description, weight = AUTOENCODERS[case], 0.01
    # Equal images where the order of the samples matters, different ones elsewhere.
    size, equal = description["input"], case == "roots and shuffles"
    x = np.repeat(images(1, size, 5), COUNT, 0) if equal else images(COUNT, size, 5)
    settings = {"sparsity.penalty": "l1", "sparsity.lambda": weight}
    before, after, rate = step(tmp_path, ("--config", configuration(tmp_path, description)), x, settings)
    if case == "prepared":
        # Whitening is computed from the images before the first step.
        for part in ("weight", "shift", "scale"):
            before.tensor(f"white.{part}").copy_(after.tensor(f"white.{part}"))
    x = x.astype(np.float64)
    compare(before, after, rate, gradients(before, x, x, {}, weight))


def test_constraints_equal_the_program(tmp_path: Path) -> None:
    x = images(COUNT, CONSTRAINED["input"], 5)
    settings = {"optimizer.lr": 0.05}
    source = ("--config", configuration(tmp_path, CONSTRAINED))
    before, after, _ = step(tmp_path, source, x, settings)
    with torch.no_grad():
        # The program starts with atoms of norm 1, and bounds norms only after an update.
        atoms = before.double().tensor("image.weight")
        atoms /= atoms.square().sum((1, 2, 3), keepdim=True).sqrt()
    gradients(before, x.astype(np.float64), x.astype(np.float64), {}, 0.0)
    before.project_gradients()
    with torch.no_grad():
        for parameter in before.parameters():
            parameter -= 0.05 * parameter.grad
    free = before.tensor("image.weight").detach().clone()
    before.constrain()
    assert error(free, before.tensor("image.weight").detach()) > 1e-3, "the constraint acts"
    for name, parameter in after.named_parameters():
        wanted = parameter.detach()
        assert error(before.get_parameter(name).detach(), wanted) <= 1e-6, name


def test_a_wrong_gradient_is_noticed(tmp_path: Path) -> None:
    description = AUTOENCODERS["frozen"]
    x = images(COUNT, description["input"], 5)
    before, after, rate = step(tmp_path, ("--config", configuration(tmp_path, description)), x, {})
    x = x.astype(np.float64)
    found = gradients(before, x, x, {}, 0.0)
    compare(before, after, rate, found)
    found["layers.code.weight"][1, 2, 0, 1] += 1e-4 * found["layers.code.weight"].abs().max()
    with pytest.raises(AssertionError, match="layers.code.weight"):
        compare(before, after, rate, found)
