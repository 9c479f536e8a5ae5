"""Functions for one call, with the bundled models as defaults."""

from __future__ import annotations

import os
from functools import lru_cache
from typing import Any, Union

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import _csae
from ._drivers import without_displays
from ._model import Model, load

#: A model, the path of one, or the name of a bundled one.
AnyModel = Union[Model, str, "os.PathLike[str]"]

#: A sparse code of colour photographs of any size.
PHOTOGRAPHS = "photographs"


@lru_cache(maxsize=8)
def _bundled(name: str, device: str, process: int) -> Model:
    """A bundled model, opened once in a process."""
    return load(name, device)


def _model(model: AnyModel, device: str | None) -> Model:
    if isinstance(model, Model):
        if device is not None:
            raise ValueError("device: the model is on its device already; load it on another one")
        return model
    place, on = os.fspath(model), "auto" if device is None else str(device)
    if place in _csae.bundled_models() and not os.path.exists(place):
        return _bundled(place, on, os.getpid())
    return load(place, on)


def encode(
    images: ArrayLike, model: AnyModel = PHOTOGRAPHS, *, device: str | None = None
) -> NDArray[np.float32]:
    """The codes of images, see `Model.encode`."""
    return _model(model, device).encode(images)


def decode(
    codes: ArrayLike, model: AnyModel, *, device: str | None = None
) -> NDArray[np.float32]:
    """The images of codes, see `Model.decode`.

    There is no default: the codes of `photographs` lack the mean of each image.
    """
    return _model(model, device).decode(codes)


def reconstruct(
    images: ArrayLike, model: AnyModel = PHOTOGRAPHS, *, device: str | None = None
) -> NDArray[np.float32]:
    """Encoded and decoded images, see `Model.reconstruct`."""
    return _model(model, device).reconstruct(images)


def features(
    images: ArrayLike,
    layer: str | None = None,
    model: AnyModel = PHOTOGRAPHS,
    *,
    device: str | None = None,
) -> NDArray[np.float32]:
    """The output of a layer for images, see `Model.features`."""
    return _model(model, device).features(images, layer)


def denoise(
    image: ArrayLike,
    sigma: float | None = None,
    *,
    ensemble: bool = False,
    model: AnyModel = "denoise",
    device: str | None = None,
) -> NDArray[Any]:
    """An image without its noise, see `Model.denoise`."""
    return _model(model, device).denoise(image, sigma, ensemble=ensemble)


def inpaint(
    image: ArrayLike,
    mask: ArrayLike | None = None,
    *,
    ensemble: bool = False,
    model: AnyModel = "inpaint",
    device: str | None = None,
) -> NDArray[Any]:
    """An image with its missing pixels filled, see `Model.inpaint`."""
    return _model(model, device).inpaint(image, mask, ensemble=ensemble)


def upscale(
    image: ArrayLike,
    scale: int = 2,
    *,
    ensemble: bool = False,
    model: AnyModel = "upscale",
    device: str | None = None,
) -> NDArray[Any]:
    """An image with both sides `scale` times as long, see `Model.upscale`."""
    return _model(model, device).upscale(image, scale, ensemble=ensemble)


def deblock(
    image: ArrayLike,
    quality: int,
    *,
    ensemble: bool = False,
    model: AnyModel = "dejpeg",
    device: str | None = None,
) -> NDArray[Any]:
    """An image without the artefacts of JPEG compression, see `Model.deblock`."""
    return _model(model, device).deblock(image, quality, ensemble=ensemble)


def devices() -> list[str]:
    """The names of the adapters (GPUs and software adapters), in the order of their numbers.

    The CPU path is always available, as "cpu", and not in the list.
    """
    with without_displays():
        return _csae.devices()


def bundled_models() -> list[str]:
    """The names of the bundled models, for `load`."""
    return _csae.bundled_models()


def presets() -> list[str]:
    """The names of the presets, for `Autoencoder`."""
    return _csae.presets()


def preset(name: str) -> str:
    """The description of a preset in TOML. Raises `ValueError` for an unknown name."""
    return _csae.preset(name)
