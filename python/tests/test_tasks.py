"""Restorers, classifiers, segmenters and detectors equal those of the program."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import png
import pytest
import torch
from randomness import resize_matrix
from support import MODELS, Program, csae, error, images, tensor_of

import csae.torch as ct

TOLERANCE = 1e-5
#: Half a step of 16 bits, by which the program rounds its images, and a little for its own error.
ROUNDED = 0.6 / 65535


def deep(x: np.ndarray) -> np.ndarray:
    """An image of 16 bits."""
    return np.rint(x * 65535.0).astype(np.uint16)


def unit(pixels: np.ndarray) -> torch.Tensor:
    """An image of 16 bits (H, W) as a batch of one, from 0 to 1."""
    return torch.from_numpy(pixels.astype(np.float32) / np.float32(65535.0))[None, None]


def model_of(task: str) -> ct.Model:
    """The bundled restorer of a task."""
    return ct.load(MODELS / f"{task}.safetensors")


@pytest.mark.parametrize("sigma", [1.0, 2.5, 25.0, 50.0])
def test_noise_is_removed_as_by_the_program(tmp_path: Path, sigma: float) -> None:
    pixels = deep(images(1, (1, 45, 38))[0, 0])
    png.write(tmp_path / "noisy.png", pixels)
    csae("denoise", tmp_path / "noisy.png", "--sigma", sigma, "-o", tmp_path / "clean.png")
    wanted = png.read(tmp_path / "clean.png") / 65535.0
    model = model_of("denoise")
    found = ct.restore(model, unit(pixels), sigma=sigma)[0, 0].clamp(0.0, 1.0).numpy()
    assert np.abs(found - wanted).max() <= ROUNDED
    other = ct.restore(model, unit(pixels), sigma=sigma + 5.0)[0, 0].clamp(0.0, 1.0).numpy()
    assert np.abs(other - wanted).max() > 10 * ROUNDED


def test_colour_images_are_restored_by_gray_models(tmp_path: Path) -> None:
    pixels = deep(images(1, (3, 21, 30))[0].transpose(1, 2, 0))
    png.write(tmp_path / "noisy.png", pixels)
    csae("denoise", tmp_path / "noisy.png", "--sigma", 25, "-o", tmp_path / "clean.png")
    wanted = png.read(tmp_path / "clean.png") / 65535.0
    x = torch.from_numpy(pixels.astype(np.float32) / np.float32(65535.0)).permute(2, 0, 1)[None]
    found = ct.restore(model_of("denoise"), x, sigma=25.0)[0].permute(1, 2, 0).clamp(0.0, 1.0)
    assert np.abs(found.numpy() - wanted).max() <= ROUNDED


def test_missing_pixels_are_filled_as_by_the_program(tmp_path: Path) -> None:
    pixels = deep(images(1, (1, 45, 38))[0, 0])
    missing = np.random.default_rng(1).random((45, 38)) < 0.4
    missing[10:20, 5:30] = True
    png.write(tmp_path / "holes.png", pixels)
    png.write(tmp_path / "mask.png", np.where(missing, 255, 0).astype(np.uint8))
    csae("inpaint", tmp_path / "holes.png", "--mask", tmp_path / "mask.png", "-o",
         tmp_path / "whole.png")
    wanted = png.read(tmp_path / "whole.png") / 65535.0
    x, mask = unit(pixels), torch.from_numpy(missing)
    found = ct.restore(model_of("inpaint"), x, missing=mask)[0, 0]
    assert np.abs(found.clamp(0.0, 1.0).numpy() - wanted).max() <= ROUNDED
    assert torch.equal(found[~mask], x[0, 0][~mask])
    assert error(ct.fill(x, mask[None, None])[0, 0], found) > 1e-3, "the model adds to the guess"


@pytest.mark.parametrize("scale", [2, 3])
def test_images_are_enlarged_as_by_the_program(tmp_path: Path, scale: int) -> None:
    # The bundled model has thresholds below 0, which jump by twice their value at 0. Rounding decides
    # on which side a unit is; no unit of this image is that close to 0.
    small = deep(images(1, (1, 21, 18), 1)[0, 0])
    png.write(tmp_path / "small.png", small)
    csae("upscale", tmp_path / "small.png", "--scale", scale, "-o", tmp_path / "large.png")
    wanted = png.read(tmp_path / "large.png") / 65535.0
    rows, columns = (resize_matrix(side, side * scale, scale) for side in small.shape)
    large = torch.from_numpy(rows @ (small / 65535.0) @ columns.T).float()[None, None]
    found = ct.restore(model_of("upscale"), large, scale=scale)[0, 0].clamp(0.0, 1.0)
    assert np.abs(found.numpy() - wanted).max() <= ROUNDED


def test_conditions_are_given_for_each_sample() -> None:
    model, x = model_of("denoise"), torch.from_numpy(images(3, (1, 16, 20)))
    with torch.no_grad():
        together = model(x, sigma=torch.tensor([5.0, 25.0, 50.0]))
        for sample, sigma in enumerate((5.0, 25.0, 50.0)):
            alone = model(x[sample : sample + 1], sigma=sigma)
            assert error(together[sample], alone[0]) <= TOLERANCE
            assert torch.allclose(alone, model(x[sample : sample + 1], level=sigma / 255.0))


def labelled(folder: Path, count: int) -> Path:
    """Images of bright squares, with label images and with boxes in YOLO's form."""
    rng = np.random.default_rng(2)
    for part in ("images", "masks", "labels"):
        (folder / part).mkdir(parents=True)
    for number in range(count):
        image = rng.integers(0, 60, (48, 48, 3), dtype=np.uint8)
        mask = np.zeros((48, 48), dtype=np.uint8)
        top, left, side = rng.integers(4, 24, 3).tolist()
        image[top : top + side, left : left + side] += 150
        mask[top : top + side, left : left + side] = 1
        png.write(folder / "images" / f"{number}.png", image)
        png.write(folder / "masks" / f"{number}.png", mask)
        box = ((left + side / 2) / 48, (top + side / 2) / 48, side / 48, side / 48)
        (folder / "labels" / f"{number}.txt").write_text(f"0 {' '.join(map(str, box))}\n")
    return folder


def trained(folder: Path, preset: str, size: int, data: str = "photos") -> Path:
    """An autoencoder after a few steps."""
    run = folder / "encoder"
    csae("train", data, "--preset", preset, "--steps", 3, "--batch", 4, "-q", "-o", run, "--set",
         f"data.crop={size}")
    return run


def compare(folder: Path, run: Path, x: np.ndarray) -> ct.Model:
    """Compares the raw output of a head, and returns the model."""
    model = ct.load(run)
    wanted = Program(folder, run / "model.safetensors").ask("features", x, "--layer", "head")
    assert error(tensor_of(model, x), wanted) <= TOLERANCE
    assert error(tensor_of(model.features, x, layer="head"), wanted) <= TOLERANCE
    copied = folder / "copied.safetensors"
    ct.save(model, copied)
    assert copied.read_bytes() == (run / "model.safetensors").read_bytes()
    return model


def test_classifiers_have_the_logits_of_the_program(tmp_path: Path) -> None:
    encoder = trained(tmp_path, "sparse", 8, "digits")
    csae("finetune", encoder, "digits", "--labels", 60, "--epochs", 1, "-q", "-o", tmp_path / "run")
    model = compare(tmp_path, tmp_path / "run", images(7, (1, 8, 8)))
    assert model.classes == [str(digit) for digit in range(10)]
    assert tensor_of(model, images(2, (1, 8, 8))).shape == (2, 10)


@pytest.mark.parametrize("decoder", ["deconv", "unpool"])
def test_segmenters_have_the_logits_of_the_program(tmp_path: Path, decoder: str) -> None:
    encoder, data = trained(tmp_path, "pyramid", 32), labelled(tmp_path / "data", 8)
    csae("segment", "train", encoder, data / "images", "--labels", data / "masks", "--decoder",
         decoder, "--crop", 32, "--epochs", 1, "-q", "-o", tmp_path / "run")
    model = compare(tmp_path, tmp_path / "run", images(3, (3, 40, 48)))
    assert model.classes and model.any_size


def test_detectors_have_the_grid_of_the_program(tmp_path: Path) -> None:
    encoder, data = trained(tmp_path, "pyramid", 32), labelled(tmp_path / "data", 8)
    csae("detect", "train", encoder, data, "--size", 64, "--set", "train.steps=2",
         "-q", "-o", tmp_path / "run")
    model = compare(tmp_path, tmp_path / "run", images(3, (3, 64, 64)))
    c, h, w = model(torch.zeros(1, 3, 64, 64)).shape[1:]
    assert c == 5 + len(model.classes) and h == w
