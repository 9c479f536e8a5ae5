"""Convolutional sparse autoencoders on any GPU, and on the CPU.

>>> import csae
>>> clean = csae.denoise(noisy)                     # an image: (H, W) or (H, W, 3)
>>> model = csae.load("runs/001")                   # a run, a model file, or a bundled model
>>> codes = model.encode(images)                    # (N, C, H, W)
>>> codes = csae.Autoencoder(32).fit_transform(X)   # in scikit-learn's form

The program `csae` comes with the package. `csae.torch` needs PyTorch (`pip install csae[torch]`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._autoencoder import Autoencoder, Progress
    from ._functions import (
        bundled_models,
        deblock,
        decode,
        denoise,
        devices,
        encode,
        features,
        inpaint,
        preset,
        presets,
        reconstruct,
        upscale,
    )
    from ._model import Model, load

#: The module of each public name. They are imported at their first use: scikit-learn, which
#: `Autoencoder` takes its base from, needs a second, and `csae.torch` works without the others.
_PLACES = {
    "Autoencoder": "_autoencoder",
    "Model": "_model",
    "Progress": "_autoencoder",
    "bundled_models": "_functions",
    "deblock": "_functions",
    "decode": "_functions",
    "denoise": "_functions",
    "devices": "_functions",
    "encode": "_functions",
    "features": "_functions",
    "inpaint": "_functions",
    "load": "_model",
    "preset": "_functions",
    "presets": "_functions",
    "reconstruct": "_functions",
    "upscale": "_functions",
}

__all__ = [
    "Autoencoder",
    "Model",
    "Progress",
    "bundled_models",
    "deblock",
    "decode",
    "denoise",
    "devices",
    "encode",
    "features",
    "inpaint",
    "load",
    "preset",
    "presets",
    "reconstruct",
    "upscale",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("csae")
    place = _PLACES.get(name)
    if place is None:
        raise AttributeError(f"module 'csae' has no attribute {name!r}")
    from importlib import import_module

    try:
        module = import_module(f".{place}", __name__)
    except ModuleNotFoundError as error:
        if error.name != "csae._csae" and "_csae" not in str(error):
            raise
        raise ImportError(
            f"csae.{name} needs the compiled part of the package, which these sources lack; "
            "install the wheel (pip install csae, or tests/wheel in a clone)"
        ) from error
    found = getattr(module, name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})
