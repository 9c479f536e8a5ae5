"""Reads and writes model files: safetensors files with the architecture in their metadata.

The page `model-file` of the guide documents the format.
"""

from __future__ import annotations

import json
import os
import struct
import tempfile
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np

#: Key of the safetensors metadata that holds the architecture.
KEY = "csae"
#: Version of the format that this module reads and writes.
FORMAT = 1
#: Files of a run folder that hold a model, best first.
RUN_FILES = ("model.safetensors", "best.safetensors")
#: Longest header that readers of safetensors files accept, in bytes.
MAX_HEADER = 100_000_000


class ModelFileError(ValueError):
    """A file is not a model file, is damaged, or holds a model that cannot be rebuilt."""


def locate(path: str | os.PathLike[str]) -> Path:
    """Returns the model file: `path` itself, or the one in the run folder `path`."""
    path = Path(path)
    if not path.is_dir():
        return path
    for name in RUN_FILES:
        if (path / name).is_file():
            return path / name
    raise ModelFileError(
        f"{path}: no {RUN_FILES[0]}, nor {RUN_FILES[1]}; name the folder of a run, or a model file"
    )


def read(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Reads a model file. Returns the model description and the tensors by name.

    Raises `ModelFileError` if it is not a model file of this format, or its hash does not match.
    """
    path = locate(path)
    data = path.read_bytes()
    try:
        entries, start = _header(data)
        text = entries.pop("__metadata__", {}).get(KEY)
        if text is None:
            raise ModelFileError(
                f"{path}: a safetensors file without the architecture that csae writes; name a "
                "model written by csae, or a run folder"
            )
        header = json.loads(text)
        tensors = {name: _tensor(path, data, start, name, entry)
                   for name, entry in entries.items()}
    except ModelFileError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
        raise ModelFileError(
            f"{path}: not a model file ({error}); name a model written by csae, or a run folder"
        ) from error
    if header.get("format") != FORMAT:
        raise ModelFileError(
            f"{path}: it has format {header.get('format')}, but this version reads {FORMAT}"
        )
    # Files without a hash are not checked.
    if header.get("hash") not in (None, hash_of(tensors)):
        raise ModelFileError(f"{path}: its values do not match their hash: the file is damaged")
    if not isinstance(header.get("model"), dict):
        raise ModelFileError(f"{path}: its header describes no model")
    return header["model"], tensors


def write(
    path: str | os.PathLike[str], model: Mapping[str, Any], tensors: Mapping[str, np.ndarray]
) -> None:
    """Writes a model file atomically. Equal models have equal bytes, as those of the program."""
    path = Path(path)
    tensors = {name: np.ascontiguousarray(tensors[name], dtype="<f4") for name in sorted(tensors)}
    header = {"format": FORMAT, "hash": hash_of(tensors), "model": model}
    entries: dict[str, Any] = {"__metadata__": {KEY: to_json(header, sort=True)}}
    end = 0
    for name, values in tensors.items():
        begin, end = end, end + values.nbytes
        entries[name] = {
            "dtype": "F32", "shape": list(values.shape), "data_offsets": [begin, end],
        }
    text = to_json(entries).encode()
    # Padded with spaces, so that the values are aligned to 8 bytes.
    text += b" " * (-len(text) % 8)
    if len(text) > MAX_HEADER:
        raise ModelFileError(f"{path}: the names are too long for a safetensors file")
    descriptor, partial = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            for values in tensors.values():
                file.write(values.tobytes())
        # A temporary file is private; a model file has the permissions of other new files.
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(partial, 0o666 & ~mask)
        os.replace(partial, path)
    except BaseException:
        os.unlink(partial)
        raise


def hash_of(tensors: Mapping[str, np.ndarray]) -> str:
    """Hash of the names, shapes and values of tensors, sorted by name: 16 hexadecimal digits."""
    state = 0xCBF2_9CE4_8422_2325
    for name in sorted(tensors, key=str.encode):
        values = np.ascontiguousarray(tensors[name], dtype="<f4")
        shape = np.array(values.shape, dtype="<u8").tobytes()
        for part in (name.encode(), shape, values.tobytes()):
            state = _add(state, part)
    return f"{state:016x}"


def _add(state: int, data: bytes) -> int:
    """FNV-1a over words of 8 bytes, the last one padded with zeros, and the number of bytes."""
    words = np.frombuffer(data[: len(data) // 8 * 8], dtype="<u8").tolist()
    rest = int.from_bytes(data[len(words) * 8 :], "little")
    for word in (*words, rest, len(data)):
        state = (state ^ word) * 0x100_0000_01B3 & 0xFFFF_FFFF_FFFF_FFFF
        state ^= state >> 32
    return state


def _header(data: bytes) -> tuple[dict[str, Any], int]:
    """The header of a safetensors file, and the offset of the values."""
    (length,) = struct.unpack_from("<Q", data)
    if length > min(MAX_HEADER, len(data) - 8):
        raise ValueError("its header is longer than the file")
    header = json.loads(data[8 : 8 + length])
    if not isinstance(header, dict):
        raise ValueError("its header is not an object")
    return header, 8 + length


def _tensor(
    path: Path, data: bytes, start: int, name: str, entry: Mapping[str, Any]
) -> np.ndarray:
        dtype = {"F32": "<f4", "F16": "<f2"}.get(entry["dtype"])
    if dtype is None:
        raise ModelFileError(f"{path}: tensor {name} has type {entry['dtype']}, not F32 or F16")

    begin, end = entry["data_offsets"]
    if not 0 <= begin <= end <= len(data) - start:
        raise ValueError(f"tensor {name} lies outside of the file")
    values = np.frombuffer(data[start + begin : start + end], dtype=dtype)
    return values.reshape(entry["shape"]).astype(np.float32)


def to_json(value: Any, sort: bool = False) -> str:
    """Compact JSON with the number format of the program, so that files have the same bytes."""
    if isinstance(value, Mapping):
        keys = sorted(value) if sort else value
        pairs = (f"{_text(key)}:{to_json(value[key], sort)}" for key in keys)
        return "{" + ",".join(pairs) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(to_json(one, sort) for one in value) + "]"
    if isinstance(value, float):
        return _number(value)
    return _text(value)


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _number(value: float) -> str:
    """The shortest digits that give the same number, with an exponent outside of 1e-5…1e16."""
    sign, digits, exponent = Decimal(repr(value)).normalize().as_tuple()
    text, point = "".join(map(str, digits)), len(digits) + int(exponent)
    if value == 0.0:
        body = "0.0"
    elif len(text) <= point <= 16:
        body = text + "0" * (point - len(text)) + ".0"
    elif 0 < point <= 16:
        body = f"{text[:point]}.{text[point:]}"
    elif -5 < point <= 0:
        body = "0." + "0" * -point + text
    else:
        body = text[0] + ("." + text[1:] if len(text) > 1 else "") + f"e{point - 1}"
    return ("-" if sign else "") + body
