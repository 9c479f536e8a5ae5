"""Makes the files of this folder with the libraries that users have, and `expected.json` with the
values that these libraries read from them.

    pip install numpy h5py netCDF4 scipy astropy tifffile imagecodecs soundfile pyarrow pillow
    python tests/data/numbers/make.py

The files are small: the tests read each of them many times.
"""

import io
import json
import os
import struct
import zipfile

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
os.chdir(HERE)
ROWS = []
NAMES = {
    "bool": "boolean",
    "uint8": "8-bit unsigned", "int8": "8-bit signed",
    "uint16": "16-bit unsigned", "int16": "16-bit signed",
    "uint32": "32-bit unsigned", "int32": "32-bit signed",
    "uint64": "64-bit unsigned", "int64": "64-bit signed",
    "float16": "16-bit float", "float32": "32-bit float", "float64": "64-bit float",
}


def expect(file, values, inside=None, axes=None, note=None, rate=None):
    """The values as the library of the format reads them."""
    values = np.asarray(values)
    little = np.ascontiguousarray(values.astype(values.dtype.newbyteorder("<")))
    row = {
        "file": file,
        "inside": inside,
        "element": NAMES[values.dtype.name],
        "shape": list(values.shape),
        "values": little.tobytes().hex(),
    }
    row |= {k: v for k, v in [("axes", axes), ("note", note), ("rate", rate)] if v is not None}
    ROWS.append(row)


def refuse(file, message, inside=None):
    """A file that is refused, with a part of the message."""
    ROWS.append({"file": file, "inside": inside, "refused": message})


def numbers(shape, dtype, seed=0):
    """Numbers over the whole range of a type."""
    rng = np.random.default_rng(seed)
    dtype = np.dtype(dtype)
    if dtype.kind == "b":
        return rng.integers(0, 2, shape).astype(bool)
    if dtype.kind == "f":
        return (rng.standard_normal(shape) * 100).astype(dtype)
    info = np.iinfo(dtype)
    values = rng.integers(info.min, info.max, shape, dtype=dtype.newbyteorder("="), endpoint=True)
    return values.astype(dtype)


def npy():
    for dtype in ["?", "u1", "i1", "<u2", "<i2", ">u2", "<u4", ">i4", "<u8", ">i8", "<f2", ">f2",
                  "<f4", ">f4", "<f8", ">f8"]:
        name = f"{np.dtype(dtype).name}_{'big' if dtype[0] == '>' else 'little'}.npy"
        np.save(name, numbers((2, 3, 2), dtype))
        expect(name, np.load(name))
    np.save("fortran.npy", np.asfortranarray(numbers((2, 3, 4), ">i2")))
    expect("fortran.npy", np.load("fortran.npy"))
    np.save("vector.npy", numbers((5,), "f4"))
    expect("vector.npy", np.load("vector.npy"))
    for version in [(2, 0), (3, 0)]:
        name = f"version{version[0]}.npy"
        with open(name, "wb") as file:
            np.lib.format.write_array(file, numbers((2, 3), "u2"), version=version)
        expect(name, np.load(name))
    for name, values, message in [
        ("object.npy", np.array([{"a": 1}], dtype=object), "Python objects"),
        ("structured.npy", np.zeros(2, dtype=[("a", "f4"), ("b", "i2")]), "structured types"),
        ("text.npy", np.array(["ab", "c"]), "text"),
        ("bytes.npy", np.array([b"ab", b"c"]), "text"),
        ("complex.npy", np.zeros(2, dtype="c8"), "complex"),
        ("date.npy", np.array(["2001-01-01"], dtype="M8[D]"), "dates"),
        ("scalar.npy", np.float32(3), "single number"),
        ("empty.npy", np.zeros((0, 3), "f4"), "empty"),
    ]:
        np.save(name, values)
        refuse(name, message)


def npz():
    x, y = numbers((3, 4), "f4"), numbers((5, 2), "u2")
    np.savez("stored.npz", x=x, y=y)
    np.savez_compressed("deflated.npz", x=np.asfortranarray(x), y=y)
    for name in ["stored.npz", "deflated.npz"]:
        for key in "xy":
            expect(name, np.load(name)[key], inside=key)
        refuse(name, "x (32-bit float 3x4), y (16-bit unsigned 5x2)")
        refuse(name, 'no array "z"; it has x', inside="z")
    # numpy.savez writes each member with the ZIP64 extension; a single array needs no name.
    np.savez("single.npz", y)
    expect("single.npz", np.load("single.npz")["arr_0"])
    buffer = io.BytesIO()
    np.save(buffer, y)
    with zipfile.ZipFile("bzip2.npz", "w", zipfile.ZIP_BZIP2) as file:
        file.writestr("y.npy", buffer.getvalue())
    refuse("bzip2.npz", "compression")
    np.savez("none.npz")
    refuse("none.npz", "contains no array")


MAKERS = [npy, npz]

if __name__ == "__main__":
    for make in MAKERS:
        make()
    with open("expected.json", "w") as file:
        file.write("[\n" + ",\n".join(json.dumps(row) for row in ROWS) + "\n]\n")
