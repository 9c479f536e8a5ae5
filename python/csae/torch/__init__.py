"""Models of csae as PyTorch modules.

>>> import csae.torch
>>> model = csae.torch.load("runs/001")        # the folder of a run, or a model file
>>> code = model.encode(images)                # images: floats (N, C, H, W)
>>> csae.torch.save(model, "changed.safetensors")

It needs PyTorch 2 and numpy, and nothing else of csae.
"""

from __future__ import annotations

import os
import warnings

from .file import ModelFileError, locate, read, write
from .model import Model
from .restoration import fill, restore

__all__ = ["Model", "ModelFileError", "fill", "load", "restore", "save"]


def load(path: str | os.PathLike[str]) -> Model:
    """Rebuilds the model of a file or of the folder of a run, in evaluation mode.

    Raises `ModelFileError` for files that are not model files, are damaged, or hold a layer that
    this version does not know; the message names it. Warns if the model was trained on spectrograms
    of recordings: it takes the spectrograms, which this package does not compute.
    """
    description, tensors = read(path)
    try:
        model = Model(description, tensors).eval()
    except ModelFileError as error:
        raise ModelFileError(f"{locate(path)}: {error}") from error
    if "spectrogram" in description:
        warnings.warn(
            f"{locate(path)}: the model takes log-mel spectrograms in dB, not recordings; "
            f"description['spectrogram'] has their settings: {description['spectrogram']}",
            stacklevel=2,
        )
    return model


def save(module: Model, path: str | os.PathLike[str]) -> None:
    """Writes a model file that csae reads, atomically. It replaces an existing file.

    The description is `module.description`. Values are stored as 32-bit floats. Raises
    `ModelFileError` if a value is not finite, since csae refuses such files.
    """
    if not isinstance(module, Model):
        raise TypeError(f"csae.torch.save takes a csae.torch.Model, not {type(module).__name__}")
    tensors = module.tensors()
    Model(module.description, tensors)
    write(path, module.description, tensors)
