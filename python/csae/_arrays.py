"""What users pass as the arrays of the compiled part, and results as users expect them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

#: A shape (N, C, H, W) and the bytes of 32-bit floats.
Packed = tuple[tuple[int, int, int, int], bytes]

#: What becomes 1: the largest integer of the type.
FULL_SCALE = {"uint8": 255, "uint16": 65535}

#: Samples of images as floats go from 0 to 1, and a little beyond with noise.
FAR = 16.0


def numbers(x: ArrayLike, what: str) -> NDArray[Any]:
    """The array of real numbers that `x` is. Raises `TypeError` if it is none."""
    if hasattr(x, "toarray") and not isinstance(x, np.ndarray):
        raise TypeError(f"{what}: a sparse matrix; convert it with toarray()")
    try:
        array = np.asarray(x)
    except (ValueError, TypeError) as error:
        raise TypeError(f"{what}: not an array of numbers ({error})") from error
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{what}: an array of {array.dtype}, not of real numbers")
    return array


def samples(array: NDArray[Any], what: str) -> NDArray[np.float32]:
    """Samples as 32-bit floats: integers on the scale 0 to 1, floats as they are."""
    kind = array.dtype
    if kind.kind == "b" or kind.kind == "f":
        with np.errstate(over="ignore"):
            return array.astype(np.float32)
    scale = FULL_SCALE.get(kind.newbyteorder("=").name)
    if scale is None:
        raise TypeError(
            f"{what}: {kind} has no range of samples; convert to uint8 (0 to 255), uint16 "
            "(0 to 65535) or a float type"
        )
    found: NDArray[np.float32] = array.astype(np.float32) / np.float32(scale)
    return found


def check_finite(array: NDArray[np.float32], what: str) -> None:
    """Raises `ValueError` for NaN and infinite values."""
    if not np.isfinite(array).all():
        raise ValueError(f"{what}: a value is NaN, infinite or beyond float32; replace it first")


def pack(array: NDArray[np.float32]) -> Packed:
    """The shape and the bytes of an array (N, C, H, W)."""
    n, c, h, w = array.shape
    return (n, c, h, w), array.astype(np.float32, copy=False).tobytes()


def unpack(packed: tuple[Sequence[int], bytearray]) -> NDArray[np.float32]:
    """The array of a shape and bytes."""
    shape, content = packed
    return np.frombuffer(content, np.float32).reshape(tuple(shape))


def batch(x: ArrayLike, size: Sequence[int], what: str = "images") -> NDArray[np.float32]:
    """Images (N, C, H, W) for a model with inputs of `size` (C, H, W).

    Takes (N, C, H, W); one image (H, W, C), or (H, W) if C is 1; and vectors (N, C) if H and W
    are 1.
    """
    array = numbers(x, what)
    c, h, w = size
    is_vector = (h, w) == (1, 1)
    channels_last = "; move the channels: numpy.moveaxis(x, -1, 1)"
    if array.ndim == 4 and array.shape[1] == c:
        found = array
    elif is_vector and array.ndim == 2 and array.shape[1] == c:
        found = array[:, :, None, None]
    elif not is_vector and array.ndim == 3 and array.shape[2] == c:
        found = np.moveaxis(array, 2, 0)[None]
    elif not is_vector and array.ndim == 2 and c == 1:
        found = array[None, None]
    else:
        wanted = [f"(N, {c}, H, W)"]
        wanted += [f"(N, {c})"] if is_vector else [f"(H, W, {c})"]
        wanted += ["(H, W)"] if c == 1 and not is_vector else []
        last = array.ndim == 4 and array.shape[3] == c
        first = "; add an axis: x[:, None]" if array.ndim == 3 and c == 1 else ""
        raise ValueError(
            f"{what}: shape {array.shape}, but the model takes {' or '.join(wanted)}"
            f"{channels_last if last else first}"
        )
    if found.size == 0:
        raise ValueError(f"{what}: an array of shape {array.shape} is empty")
    found = samples(found, what)
    check_finite(found, what)
    return found


def codes(x: ArrayLike, size: Sequence[int]) -> NDArray[np.float32]:
    """Codes (N, C, H, W) from (N, C, H, W) or, for flat codes, (N, D)."""
    array = numbers(x, "codes")
    c, h, w = size
    if array.ndim == 2 and (h, w) == (1, 1):
        array = array[:, :, None, None]
    if array.ndim != 4 or array.shape[1] != c or array.size == 0:
        wanted = f"(N, {c})" if (h, w) == (1, 1) else f"(N, {c}, H, W), such as (N, {c}, {h}, {w})"
        raise ValueError(f"codes: shape {np.shape(x)}, but the model's codes are {wanted}")
    found = array.astype(np.float32)
    check_finite(found, "codes")
    return found


def flat(array: NDArray[np.float32]) -> NDArray[np.float32]:
    """An array (N, D) of vectors (N, D, 1, 1), and other arrays unchanged."""
    n, c, h, w = array.shape
    return array.reshape(n, c) if (h, w) == (1, 1) else array


class Pictures:
    """Gray or RGB images to restore: (H, W), (H, W, 1), (H, W, 3) or (N, C, H, W).

    `pixels` are 32-bit floats (N, C, H, W); integers are on the scale 0 to 1.
    """

    def __init__(self, x: ArrayLike) -> None:
        array = numbers(x, "image")
        self.given, self.shape, self.dtype = array, array.shape, array.dtype
        if array.ndim == 2:
            array = array[None, None]
        elif array.ndim == 3 and array.shape[2] in (1, 3):
            array = np.moveaxis(array, 2, 0)[None]
        elif array.ndim != 4 or array.shape[1] not in (1, 3):
            raise ValueError(
                f"image: shape {self.shape}, but images are (H, W), (H, W, 1), (H, W, 3) or "
                f"(N, C, H, W) with C of 1 or 3{self._advice()}"
            )
        if array.size == 0:
            raise ValueError(f"image: an array of shape {self.shape} is empty")
        self.pixels = samples(array, "image")
        if self.dtype.kind == "b":
            raise TypeError("image: an array of bool; convert it to uint8 or to a float type")

    def _advice(self) -> str:
        if len(self.shape) == 3 and self.shape[2] == 4:
            return "; leave the transparency out: x[..., :3]"
        if len(self.shape) == 4 and self.shape[3] in (1, 3):
            return "; move the channels: numpy.moveaxis(x, -1, 1)"
        if len(self.shape) == 3 and self.shape[0] in (1, 3):
            return "; add an axis: x[None]"
        return ""

    def mark(self, mask: ArrayLike | None) -> NDArray[np.float32]:
        """Masks (N, 1, H, W) of ones where pixels are missing, which become 0 in `pixels`.

        `mask` is (H, W), (H, W, 1), (N, H, W) or (N, 1, H, W); what is not 0 is missing. `None`
        marks NaN.
        """
        n, _, h, w = self.pixels.shape
        if mask is None:
            if self.dtype.kind != "f":
                raise ValueError(
                    f"mask: none, and an image of {self.dtype} has no NaN that marks missing "
                    "pixels; pass a mask"
                )
            found = np.isnan(self.pixels).any(axis=1, keepdims=True)
        else:
            given = numbers(mask, "mask")
            found = np.isnan(given) | (given != 0) if given.dtype.kind == "f" else given != 0
            if found.shape in ((h, w), (h, w, 1)):
                found = np.broadcast_to(found.reshape(1, 1, h, w), (n, 1, h, w))
            elif found.shape in ((n, h, w), (n, 1, h, w)) and len(self.shape) == 4:
                found = found.reshape(n, 1, h, w)
            else:
                raise ValueError(
                    f"mask: shape {given.shape}, but the image has {h} rows and {w} columns; "
                    f"pass a mask of shape ({h}, {w})"
                )
        self.pixels[np.broadcast_to(found, self.pixels.shape)] = 0.0
        return found.astype(np.float32)

    def check(self) -> None:
        """Raises `ValueError` for values that are no samples of an image."""
        check_finite(self.pixels, "image")
        if self.dtype.kind == "f":
            low, high = float(self.pixels.min()), float(self.pixels.max())
            if low < -FAR or high > FAR:
                raise ValueError(
                    f"image: values from {low:g} to {high:g}, but floats are on the scale 0 to 1; "
                    "divide by the value of white, such as 255"
                )

    def filled(
        self, results: list[NDArray[np.float32]], masks: NDArray[np.float32]
    ) -> NDArray[Any]:
        """As `restored`, but pixels that `masks` (N, 1, H, W) does not mark are those given."""
        found = self.restored(results)
        missing = masks != 0.0
        if len(self.shape) < 4:
            missing = missing[0, 0] if len(self.shape) == 2 else missing[0, 0, :, :, None]
        return np.where(missing, found, self.given.astype(found.dtype, copy=False))

    def restored(self, results: list[NDArray[np.float32]]) -> NDArray[Any]:
        """Restored images (1, C, H, W) in the layout and type of the images."""
        found = np.concatenate(results)
        if len(self.shape) == 3:
            found = np.moveaxis(found[0], 0, 2)
        elif len(self.shape) == 2:
            found = found[0, 0]
        scale = FULL_SCALE.get(self.dtype.newbyteorder("=").name)
        if scale is None:
            return np.ascontiguousarray(found, self.dtype.newbyteorder("="))
        # As the program rounds: half away from 0. The sum is exact in 64 bits.
        levels = (found * np.float32(scale)).astype(np.float64)
        levels = np.floor(np.clip(levels, 0.0, scale) + 0.5)
        return np.ascontiguousarray(levels, self.dtype.newbyteorder("="))
