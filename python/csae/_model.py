"""The class of loaded models."""

from __future__ import annotations

import errno
import os
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import _csae
from ._arrays import Pictures, batch, codes, flat, numbers, pack, unpack
from ._drivers import without_displays

__all__ = ["Model", "load"]


class Model:
    """A convolutional sparse autoencoder on a device. `csae.load` makes one.

    Images are arrays (N, C, H, W), or one image (H, W, C) or (H, W): anything that
    `numpy.asarray` takes. uint8 and uint16 are divided by 255 and 65535. Floats of pictures are on
    the scale 0 to 1. A model of data of another range takes and returns values in the units that
    it was trained on.

    Results are arrays of float32 in C order; those of `denoise`, `inpaint` and `upscale` have the
    type of the image.

    The methods release the interpreter's lock while they compute, and Ctrl-C stops them. Several
    threads can use one model, one after another. Models can be pickled and copied.
    """

    def __init__(self, core: _csae.Core, device: str, max_memory: int | None) -> None:
        self._core = core
        self._opened = (device, max_memory)

    def __repr__(self) -> str:
        return (
            f"<csae.Model: input {self.input_shape}, code {self.code_shape}, "
            f"{self.parameter_count} parameters, on {self.device}>"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return _of_bytes, (self.to_bytes(), *self._opened)

    @property
    def device(self) -> str:
        """Name of the device: the adapter's, or the CPU with its number of threads."""
        return self._core.device()

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Shape of the input (C, H, W) that the model was made for."""
        return self._core.input_shape()

    @property
    def code_shape(self) -> tuple[int, ...]:
        """Shape of the code for that input: (C, H, W), or (D,) for a flat code."""
        return _without_ones(self._core.code_shape())

    @property
    def layers(self) -> dict[str, tuple[int, ...]]:
        """The shape of each layer's output for that input, by name, in order."""
        return {name: _without_ones(shape) for name, shape in self._core.layers()}

    @property
    def parameter_count(self) -> int:
        """Number of parameters."""
        return self._core.parameter_count()

    @property
    def description(self) -> str:
        """The layers and the settings of training, in TOML."""
        return self._core.description()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes a model file, which `csae.load` and the program read. It replaces a file.

        Raises `FileNotFoundError` if the folder does not exist.
        """
        folder = os.path.dirname(os.path.abspath(os.fspath(path)))
        if not os.path.isdir(folder):
            raise FileNotFoundError(errno.ENOENT, "No such folder; create it first", folder)
        self._core.save(os.fspath(path))

    def to_bytes(self) -> bytes:
        """The bytes of the model file."""
        return self._core.to_bytes()

    def encode(self, images: ArrayLike) -> NDArray[np.float32]:
        """The codes of images: (N, D) if they are flat, otherwise (N, C, H, W).

        Images of another size than `input_shape` are encoded if all layers allow it, as
        convolutions do. Raises `ValueError` for another shape and for values that are not finite,
        `TypeError` for a type that has no range.
        """
        given = batch(images, self.input_shape)
        return flat(unpack(self._core.encode(pack(given))))

    def decode(self, codes_: ArrayLike) -> NDArray[np.float32]:
        """The images (N, C, H, W) of codes, as `encode` returns them. Values are not clipped.

        Raises `ValueError` if the codes have another shape than the model's, or codes alone do not
        determine an image.
        """
        given = codes(codes_, self._core.code_shape())
        return unpack(self._core.decode(pack(given)))

    def reconstruct(self, images: ArrayLike) -> NDArray[np.float32]:
        """Encoded and decoded images of any size, in the layout of `images`. Not clipped.

        Raises as `encode` does.
        """
        shape = numbers(images, "images").shape
        given = batch(images, self.input_shape)
        found = unpack(self._core.reconstruct(pack(given)))
        if len(shape) == 3:
            return np.ascontiguousarray(np.moveaxis(found[0], 0, 2))
        return found.reshape(shape)

    def features(self, images: ArrayLike, layer: str | None = None) -> NDArray[np.float32]:
        """The output of a layer for images: (N, D) or (N, C, H, W).

        Without `layer` it is the code before any winner-take-all selection, as in `csae features`.
        Raises `ValueError` if there is no such layer, and as `encode` does.
        """
        given = batch(images, self.input_shape)
        return flat(unpack(self._core.features(pack(given), layer)))

    def denoise(
        self, image: ArrayLike, sigma: float | None = None, *, ensemble: bool = False
    ) -> NDArray[Any]:
        """An image without its noise, in the layout and type of `image`.

        `image` is (H, W), (H, W, 1), (H, W, 3), or several (N, C, H, W); uint8, uint16 or floats on
        the scale 0 to 1. `sigma` is the standard deviation of the noise on the scale 0 to 255 for
        all types; `None` estimates it from each image. `ensemble` averages over flips and
        rotations: slower, a little better. Floats are not clipped.

        Raises `ValueError` if the model is not for noise, or for an invalid shape, range or sigma.
        """
        if sigma is not None:
            sigma = _number(sigma, "sigma")
            if not 0.0 <= sigma <= 255.0:
                raise ValueError(f"sigma: {sigma:g} is not from 0 to 255")
        pictures = Pictures(image)
        pictures.check()
        done = [
            unpack(self._core.denoise(pack(one[None]), sigma, bool(ensemble)))
            for one in pictures.pixels
        ]
        return pictures.restored(done)

    def inpaint(
        self, image: ArrayLike, mask: ArrayLike | None = None, *, ensemble: bool = False
    ) -> NDArray[Any]:
        """An image with its missing pixels filled, in the layout and type of `image`.

        `image` is as in `denoise`. `mask` is (H, W), or (N, H, W) for several images: pixels where
        it is not 0 are missing. Without a mask, pixels that are NaN are missing. Other pixels do
        not change.

        Raises `ValueError` if the model is not for missing pixels, all pixels are missing, or for
        an invalid shape or range.
        """
        pictures = Pictures(image)
        masks = pictures.mark(mask)
        pictures.check()
        done = [
            unpack(self._core.inpaint(pack(one[None]), pack(missing[None]), bool(ensemble)))
            for one, missing in zip(pictures.pixels, masks, strict=True)
        ]
        return pictures.filled(done, masks)

    def upscale(
        self, image: ArrayLike, scale: int = 2, *, ensemble: bool = False
    ) -> NDArray[Any]:
        """An image with both sides `scale` times as long, in the type of `image`.

        `image` is as in `denoise`. The bundled model takes scales of 2, 3 and 4.

        Raises `ValueError` if the model is not for this scale, or for an invalid shape or range.
        """
        if isinstance(scale, bool) or int(_number(scale, "scale")) != scale or scale < 1:
            raise ValueError(f"scale: {scale} is not a whole number above 0")
        pictures = Pictures(image)
        pictures.check()
        done = [
            unpack(self._core.upscale(pack(one[None]), int(scale), bool(ensemble)))
            for one in pictures.pixels
        ]
        return pictures.restored(done)

    def deblock(
        self, image: ArrayLike, quality: int, *, ensemble: bool = False
    ) -> NDArray[Any]:
        """An image without the artefacts of JPEG compression, in the layout and type of `image`.

        `image` is as in `denoise`. `quality` is that of the compression, 1 to 100. Of colour images
        the luma is restored. The model is the bundled `dejpeg` or one of
        `csae train DATA --task dejpeg`.

        Raises `ValueError` if the model is not for JPEG, or for an invalid shape, range or quality.
        """
        whole = not isinstance(quality, bool) and int(_number(quality, "quality")) == quality
        if not whole or not 1 <= quality <= 100:
            raise ValueError(f"quality: {quality} is not a whole number from 1 to 100")
        pictures = Pictures(image)
        pictures.check()
        done = [
            unpack(self._core.deblock(pack(one[None]), int(quality), bool(ensemble)))
            for one in pictures.pixels
        ]
        return pictures.restored(done)


def load(
    path: str | os.PathLike[str], device: str = "auto", *, max_memory: int | None = None
) -> Model:
    """Loads a model: a model file, the folder of a run, or a bundled model by its name.

    `csae.bundled_models()` lists the names. `device` is "auto" (a GPU, or else the CPU), "cpu",
    "gpu", part of an adapter's name, or its number in `csae.devices()`. `max_memory` limits the
    memory on the device, in bytes.

    Raises `FileNotFoundError` if there is no such file, `ValueError` if it is not a model, and
    `RuntimeError` if there is no such device.
    """
    place = os.fspath(path)
    if isinstance(place, bytes):
        place = os.fsdecode(place)
    if not os.path.exists(place) and place not in _csae.bundled_models():
        names = ", ".join(_csae.bundled_models())
        raise FileNotFoundError(
            errno.ENOENT, f"No such file, and the bundled models are {names}", place
        )
    if os.path.isfile(place):
        # Python's own error if the file must not be read.
        open(place, "rb").close()
    device = str(device)
    with without_displays():
        return Model(_csae.Core.load(place, device, max_memory), device, max_memory)


def create(
    description: str,
    settings: dict[str, str],
    size: tuple[int, int, int],
    seed: int,
    device: str,
) -> Model:
    """A model with random parameters. The values of `settings` are TOML."""
    with without_displays():
        core = _csae.Core.create(description, list(settings.items()), size, seed, device, None)
    return Model(core, device, None)


def _of_bytes(content: bytes, device: str, max_memory: int | None) -> Model:
    """A model from its bytes. Where its device does not exist, `auto` chooses one."""
    with without_displays():
        try:
            core = _csae.Core.of_bytes(content, device, max_memory)
        except RuntimeError:
            if device in ("auto", "cpu"):
                raise
            device = "auto"
            core = _csae.Core.of_bytes(content, device, max_memory)
    return Model(core, device, max_memory)


def _without_ones(shape: tuple[int, int, int]) -> tuple[int, ...]:
    c, h, w = shape
    return (c,) if (h, w) == (1, 1) else shape


def _number(value: Any, what: str) -> float:
    """A finite number, or `TypeError`."""
    array = numbers(value, what)
    if array.ndim != 0:
        raise TypeError(f"{what}: an array of shape {array.shape}, not one number")
    return float(array)
