"""Models in PyTorch equal those of the program: outputs of every layer and preset."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from cases import AUTOENCODERS, CASES
from support import (
    GRAY,
    MODELS,
    PRESETS,
    Program,
    csae,
    error,
    images,
    random_model,
    tensor_of,
)

import csae.torch as ct

#: Largest relative difference: both sides compute in 32-bit floats.
TOLERANCE = 1e-5
#: Bundled models, by their names.
BUNDLED = sorted(path.stem for path in MODELS.glob("*.safetensors"))


def samples(model: ct.Model, count: int, seed: int = 1) -> np.ndarray:
    """Random samples of the size that the model was trained on."""
    x = images(count, model.input_size, seed)
    return x[:, :, 0] if model.input_size[1] == 1 else x


@pytest.mark.parametrize("count", [1, 7])
@pytest.mark.parametrize("case", CASES)
def test_every_layer_equals_the_program(tmp_path: Path, case: str, count: int) -> None:
    model = random_model(CASES[case])
    program, x = Program(tmp_path, model), samples(model, count)
    for name in model.layer_names:
        # The program would resize the images: it takes the mean of a map for a large pooling.
        if name.endswith((".pooled", ".mean")):
            continue
        wanted = program.ask("features", x, "--layer", name)
        found = tensor_of(model.features, x, layer=name)
        assert error(found, wanted) <= TOLERANCE, name


@pytest.mark.parametrize("count", [1, 7])
@pytest.mark.parametrize("case", AUTOENCODERS)
def test_every_autoencoder_equals_the_program(tmp_path: Path, case: str, count: int) -> None:
    model = random_model(AUTOENCODERS[case])
    if model.description.get("target") is None:
        x = samples(model, count)
        wanted = Program(tmp_path, model).ask("reconstruct", x)
        assert error(tensor_of(model, x), wanted) <= TOLERANCE


def test_a_changed_weight_is_noticed(tmp_path: Path) -> None:
    model = random_model(CASES["conv2d/same"])
    program, x = Program(tmp_path, model), samples(model, 2)
    wanted = program.ask("features", x)
    assert error(tensor_of(model.encode, x), wanted) <= TOLERANCE
    with torch.no_grad():
        model.tensor("a.weight")[1, 2, 0, 1] += 1e-3
    assert error(tensor_of(model.encode, x), wanted) > 10 * TOLERANCE


def trained(folder: Path, preset: str, *more: object) -> Path:
    """A model of a preset after a few steps."""
    data = "digits" if preset in GRAY else "photos"
    start: tuple[object, ...] = ()
    if preset in ("denoise", "upscale"):
        # Thresholds that pass below 0 in the first steps jump at 0, where rounding decides.
        start = ("--set", "model.layers.code.value=0.02")
    if preset == "wta2":
        start = ("--from", trained(folder / "first", "wta"))
    run = folder / "run"
    csae("train", data, "--preset", preset, "--steps", 3, "--batch", 8, "-o", run, "-q", *start,
         *more)
    return run


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_equals_the_program(tmp_path: Path, preset: str) -> None:
    model = ct.load(trained(tmp_path, preset))
    program = Program(tmp_path, tmp_path / "run" / "model.safetensors")
    for count in (1, 7):
        x = samples(model, count)
        assert error(tensor_of(model.features, x), program.ask("features", x)) <= TOLERANCE
        if model.description.get("target") is None:
            wanted = program.ask("reconstruct", x)
            assert error(tensor_of(model, x), wanted) <= TOLERANCE
        else:
            wanted = program.ask("features", x, "--layer", model.description["layers"][-1]["name"])
            assert error(tensor_of(model, x), wanted) <= TOLERANCE
    if model.any_size:
        c, h, _ = model.input_size
        x = images(2, (c, 33, 47) if h > 1 else (c, 1, 101), 3)
        x = x if h > 1 else x[:, :, 0]
        assert error(tensor_of(model, x), program.ask("reconstruct", x)) <= TOLERANCE


@pytest.mark.parametrize("name", BUNDLED)
def test_every_bundled_model_equals_the_program(tmp_path: Path, name: str) -> None:
    model, program = ct.load(MODELS / f"{name}.safetensors"), Program(tmp_path, Path(name))
    x = images(2, (model.input_size[0], 45, 38))
    assert error(tensor_of(model, x), program.ask("reconstruct", x)) <= TOLERANCE
    whole = x[:, :, :40, :36]
    assert error(tensor_of(model.features, whole), program.ask("features", whole)) <= TOLERANCE


@pytest.mark.parametrize("name", BUNDLED)
def test_saved_models_have_the_same_bytes(tmp_path: Path, name: str) -> None:
    path, copied = MODELS / f"{name}.safetensors", tmp_path / "copy.safetensors"
    ct.save(ct.load(path), copied)
    assert copied.read_bytes() == path.read_bytes()
