"""The random numbers of the program's training steps, to repeat a step elsewhere.

`src/rng.rs`, `src/ops/corrupt.rs`, `src/ops/mask.rs`, `src/ops/missing.rs` and `src/ops/bicubic.rs`
define them.
"""

from __future__ import annotations

import numpy as np

#: Streams of the noise, of its levels, of masks and of their pixels, and of scales.
NOISE, LEVELS, MASKS, PIXELS, SCALES = 0x6E6F6973, 0x6C657665, 0x6D61736B, 0x70697873, 0x7363616C

#: Coefficients of erfinv's polynomials in the centre and in the tails, highest power first.
CENTRE = (2.81022636e-8, 3.43273939e-7, -3.5233877e-6, -4.39150654e-6, 0.00021858087,
          -0.00125372503, -0.00417768164, 0.246640727, 1.50140941)
TAIL = (-0.000200214257, 0.000100950558, 0.00134934322, -0.00367342844, 0.00573950773,
        -0.0076224613, 0.00943887047, 1.00167406, 2.83297682)


def words(index: np.ndarray, step: int, stream: int, seed: int = 0) -> np.ndarray:
    """Four random words for each index, by the hash pcg4d: (4, …)."""
    v = [np.asarray(index, dtype=np.uint32)]
    v += [np.full_like(v[0], one) for one in (step, stream, seed)]
    with np.errstate(over="ignore"):
        v = [x * np.uint32(1_664_525) + np.uint32(1_013_904_223) for x in v]
        for rounds in (0, 1):
            v[0] = v[0] + v[1] * v[3]
            v[1] = v[1] + v[2] * v[0]
            v[2] = v[2] + v[0] * v[1]
            v[3] = v[3] + v[1] * v[2]
            if rounds == 0:
                v = [x ^ (x >> np.uint32(16)) for x in v]
    return np.stack(v)


def _indices(shape: tuple[int, ...]) -> np.ndarray:
    return np.arange(np.prod(shape), dtype=np.uint32).reshape(shape)


def dropout_mask(shape: tuple[int, ...], p: float, layer: int) -> np.ndarray:
    """1 where dropout keeps an element in the first step; `layer` counts the layers from 1."""
    return (words(_indices(shape), 0, layer)[0] >= np.uint64(p * 2.0**32)).astype(np.float64)


def noisy(x: np.ndarray, sigma: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Images with the noise of the first step, and the level of each."""
    share = (words(np.arange(len(x)), 0, LEVELS)[0] >> np.uint32(8)) / 2.0**24
    low, high = (one / 255.0 for one in sigma)
    level = low + (high - low) * share
    word = words(_indices(x.shape), 0, NOISE)[0]
    uniform = ((word ^ np.uint32(1 << 31)).view(np.int32).astype(np.float64) + 0.5) / 2.0**31
    w = -np.log((1.0 - uniform) * (1.0 + uniform))
    normal = np.where(w < 5.0, np.polyval(CENTRE, w - 2.5),
                      np.polyval(TAIL, np.sqrt(w) - 3.0)) * uniform * np.sqrt(2.0)
    return x + level[:, None, None, None] * normal, level


def missing_pixels(shape: tuple[int, ...], share: float) -> np.ndarray:
    """Missing pixels (N, 1, H, W) of the first step, for masks of single pixels."""
    n, _, h, w = shape
    limit = np.uint32(round(share * 65536.0))
    return words(_indices((n, 1, h, w)), 0, PIXELS)[0] >> np.uint32(16) < limit


def enlarged(x: np.ndarray, scale: int) -> np.ndarray:
    """Images shrunk by a scale and enlarged again, by bicubic interpolation."""
    for axis in (2, 3):
        side = x.shape[axis]
        matrix = resize_matrix(side // scale, side, scale) @ resize_matrix(side, side // scale, 1.0 / scale)
        x = np.moveaxis(np.moveaxis(x, axis, -1) @ matrix.T, -1, axis)
    return x


def resize_matrix(before: int, after: int, scale: float) -> np.ndarray:
    """The matrix that resizes a side, as MATLAB's `imresize` does."""
    stretch, matrix = min(scale, 1.0), np.zeros((after, before))
    for i in range(after):
        centre = (i + 0.5) / scale - 0.5
        reach = 2.0 / stretch
        for j in range(int(np.floor(centre - reach)), int(np.ceil(centre + reach)) + 1):
            at = j % (2 * before)
            matrix[i, min(at, 2 * before - 1 - at)] += _cubic(stretch * abs(centre - j))
    return matrix / matrix.sum(1, keepdims=True)


def _cubic(x: float) -> float:
    if x <= 1.0:
        return (1.5 * x - 2.5) * x * x + 1.0
    return ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0 if x <= 2.0 else 0.0
