"""PNG files of 8 and 16 bits, gray and RGB, without interlacing."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np

SIGNATURE = b"\x89PNG\r\n\x1a\n"


def write(path: Path, pixels: np.ndarray) -> None:
    """Writes integers (H, W) or (H, W, 3), of 8 or 16 bits."""
    h, w = pixels.shape[:2]
    depth = 8 * pixels.dtype.itemsize
    rows = pixels.astype(pixels.dtype.newbyteorder(">")).reshape(h, -1)
    data = b"".join(b"\0" + row.tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", w, h, depth, 2 if pixels.ndim == 3 else 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(data)), (b"IEND", b""))
    path.write_bytes(SIGNATURE + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    ))


def read(path: Path) -> np.ndarray:
    """Reads what `write` writes, with any filter: (H, W) or (H, W, 3)."""
    data, at, body = path.read_bytes(), len(SIGNATURE), b""
    while at < len(data):
        (length,) = struct.unpack_from(">I", data, at)
        kind, chunk = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        if kind == b"IHDR":
            w, h, depth, colour = struct.unpack_from(">IIBB", chunk)
        elif kind == b"IDAT":
            body += chunk
        at += length + 12
    channels = {0: 1, 2: 3}[colour]
    step = channels * depth // 8
    raw = np.frombuffer(zlib.decompress(body), dtype=np.uint8).reshape(h, 1 + w * step)
    above, rows = np.zeros(w * step, dtype=int), []
    for kind, line in zip(raw[:, 0], raw[:, 1:].astype(int)):
        row = np.zeros_like(line)
        for i, value in enumerate(line):
            a, b = (row[i - step] if i >= step else 0), above[i]
            c = above[i - step] if i >= step else 0
            paeth = min((abs(b - c), 0, a), (abs(a - c), 1, b), (abs(a + b - 2 * c), 2, c))[2]
            row[i] = (value + (0, a, b, (a + b) // 2, paeth)[kind]) & 255
        rows.append(row)
        above = row
    found = np.array(rows, dtype=np.uint8).tobytes()
    shape = (h, w) if channels == 1 else (h, w, channels)
    return np.frombuffer(found, dtype=">u2" if depth == 16 else np.uint8).reshape(shape)
