"""Restoration of images as the commands `denoise`, `inpaint` and `upscale` do it."""

from __future__ import annotations

import torch
from torch import Tensor

from .model import Model

#: Noise between these standard deviations, on the 0–255 scale, is removed only in part: a model
#: errs by about 2 itself.
WEAK_NOISE = (1.5, 4.0)


@torch.no_grad()
def restore(
    model: Model, x: Tensor, *, sigma: float | None = None, scale: float | None = None,
    missing: Tensor | None = None,
) -> Tensor:
    """Restores images (N, C, H, W; 0 to 1). Pass what the model was trained to undo.

    `sigma` is the standard deviation of noise on the 0–255 scale. `scale` is the factor by which
    the images were enlarged by bicubic interpolation. `missing` is true at missing pixels, which
    can hold any values; the others stay unchanged. Results are not clipped.

    A gray model fills and enlarges each channel of colour images by itself, and removes noise from
    their luma and chroma.
    """
    n, c, h, w = x.shape
    if c != model.input_size[0] and model.input_size[0] == 1:
        if missing is not None:
            missing = missing.reshape(-1, 1, h, w).expand(n, c, h, w).reshape(n * c, 1, h, w)
        # The noise of images with equal channels is the same in all of them.
        apart = (x == x[:, :1]).flatten(1).all(dim=1).reshape(n, 1, 1, 1) | (sigma is None)
        planes = torch.where(apart, x, to_opponent(x)).reshape(n * c, 1, h, w)
        y = restore(model, planes, sigma=sigma, scale=scale, missing=missing).reshape(n, c, h, w)
        return torch.where(apart, y, from_opponent(y))
    if missing is not None:
        lost = missing.to(device=x.device, dtype=torch.bool)
        lost = lost.reshape(-1, *(lost.shape[1:] if lost.dim() == 4 else (1, *x.shape[2:])))
        filled = fill(x, lost)
        guess: Tensor = model(filled, missing=lost)
        return torch.where(lost, guess, x)
    y: Tensor = model(x, sigma=sigma, scale=scale)
    if sigma is None:
        return y
    removed = min(max((sigma - WEAK_NOISE[0]) / (WEAK_NOISE[1] - WEAK_NOISE[0]), 0.0), 1.0) ** 2
    return (1.0 - removed) * x + removed * y


def _opponent(like: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of an orthonormal transform of colours, and the values for sums of 0.

    The middle gray is 0.5 in luma and in both chroma planes.
    """
    rows = torch.tensor(
        [[1.0, 1.0, 1.0], [1.0, 0.0, -1.0], [1.0, -2.0, 1.0]], dtype=like.dtype, device=like.device
    )
    rows = rows / rows.norm(dim=1, keepdim=True)
    return rows, 0.5 * (1.0 - rows.sum(dim=1)).reshape(1, 3, 1, 1)


def to_opponent(x: Tensor) -> Tensor:
    """Luma and chroma planes (N, 3, H, W) of colour images."""
    rows, zero = _opponent(x)
    return torch.einsum("pc,nchw->nphw", rows, x) + zero


def from_opponent(planes: Tensor) -> Tensor:
    """Colour images (N, 3, H, W) of luma and chroma planes."""
    rows, zero = _opponent(planes)
    return torch.einsum("pc,nphw->nchw", rows, planes - zero)


def fill(x: Tensor, missing: Tensor) -> Tensor:
    """Replaces missing pixels (N, C, H, W) by a smooth guess, by the pull–push algorithm.

    Pull: a pixel of the next coarser level is the mean of its known children. Push: an unknown
    pixel takes the bilinear interpolation of the coarser level (Gortler et al., "The Lumigraph",
    SIGGRAPH 1996).
    """
    known = ~missing.to(device=x.device, dtype=torch.bool).expand_as(x)
    return _pull_push(x, known)


def _pull_push(x: Tensor, known: Tensor) -> Tensor:
    h, w = x.shape[2:]
    if h * w == 1:
        return torch.where(known, x, 0.0)
    # An odd side gets a row or column of unknown pixels.
    pad = (0, w % 2, 0, h % 2)
    values = torch.nn.functional.pad(torch.where(known, x, 0.0), pad)
    counts = torch.nn.functional.pad(known.to(x.dtype), pad)

    def children(of: Tensor) -> Tensor:
        rows = of[:, :, 0::2] + of[:, :, 1::2]
        return rows[..., 0::2] + rows[..., 1::2]

    count = children(counts)
    coarse = _pull_push(children(values) / count.clamp_min(1.0), count > 0)
    for axis, side in ((2, h), (3, w)):
        # The centre of a pixel is a quarter of a coarse pixel from the centre of its parent, hence
        # the weights 3/4 and 1/4 for the parent and its neighbour on that side.
        at = torch.arange(side, device=x.device)
        last = coarse.shape[axis] - 1
        other = torch.where(at % 2 == 0, at // 2 - 1, at // 2 + 1).clamp(0, last)
        coarse = (0.75 * coarse.index_select(axis, at // 2)
                  + 0.25 * coarse.index_select(axis, other))
    return torch.where(known, x, coarse)
