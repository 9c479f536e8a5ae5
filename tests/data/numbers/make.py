"""Makes the files of this folder with the libraries that users have, and `expected.json` with the
values that these libraries read from them.

    pip install numpy h5py netCDF4 scipy astropy tifffile imagecodecs soundfile pyarrow pillow hdf5plugin
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
        file.writestr(zipfile.ZipInfo("y.npy"), buffer.getvalue(), zipfile.ZIP_BZIP2)
    refuse("bzip2.npz", "compression")
    np.savez("none.npz")
    refuse("none.npz", "contains no array")


def hdf5():
    import h5py

    with h5py.File("types.h5", "w") as file:
        for dtype in ["?", "u1", "<i2", ">u2", ">i4", "<u8", "<f2", "<f4", ">f8"]:
            name = ("be_" if dtype[0] == ">" else "") + np.dtype(dtype).name
            file[name] = numbers((2, 3), dtype)
    with h5py.File("types.h5") as file:
        for name in file:
            expect("types.h5", file[name][()], inside=f"/{name}")
    refuse("types.h5", "has several arrays; append : and one of be_float64 (64-bit float 2x3)")
    refuse("types.h5", 'no array "zz"', inside="zz")
    with h5py.File("chunked.h5", "w") as file:
        group = file.create_group("images/raw")
        x = numbers((5, 4, 3), ">u2")
        group.create_dataset("gzip", data=x, chunks=(2, 3, 2), compression="gzip", shuffle=True)
        group.create_dataset("lzf", data=x * 0 + np.arange(3, dtype=">u2"), chunks=(5, 4, 3),
                             compression="lzf")
        group.create_dataset("fletcher", data=numbers((3, 3), "f4"), chunks=(2, 2),
                             fletcher32=True)
        group.create_dataset("filled", (4, 3), "i2", chunks=(2, 3), fillvalue=-7)[:1] = 5
        group.create_dataset("growing", data=numbers((4, 2), "u1"), chunks=(1, 2),
                             maxshape=(None, 2))
    with h5py.File("chunked.h5") as file:
        for name in file["images/raw"]:
            expect("chunked.h5", file["images/raw"][name][()], inside=f"images/raw/{name}")
    refuse("chunked.h5", "images is a group, not an array; it contains raw/filled (16-bit",
           inside="/images")
    # The newest version of the format has another index of chunks.
    with h5py.File("latest.h5", "w", libver="latest") as file:
        file.create_dataset("x", data=numbers((6, 4), "<i4"), chunks=(2, 2), compression="gzip")
        file["x"].dims[0].label = "time"
        file["x"].dims[1].label = "place"
    with h5py.File("latest.h5") as file:
        expect("latest.h5", file["x"][()], axes=["time", "place"])
    with h5py.File("others.h5", "w") as file:
        file["text"] = ["a", "bc"]
        file["complex"] = np.zeros(3, "c8")
        file["scalar"] = 3.0
        file["empty"] = np.zeros((0, 3))
        file["structured"] = np.zeros(2, dtype=[("a", "f4")])
    for name, message in [("text", "text"), ("complex", "complex"), ("scalar", "single number"),
                          ("empty", "empty"), ("structured", "structures")]:
        refuse("others.h5", message, inside=name)
    import hdf5plugin
    with h5py.File("filter.h5", "w") as file:
        values = np.arange(1024, dtype="u2").reshape(32, 32)
        file.create_dataset("x", data=values, chunks=(32, 32), **hdf5plugin.Blosc())
    refuse("filter.h5", "x: the filter Blosc is not supported")


def netcdf():
    import netCDF4

    with netCDF4.Dataset("sea.nc", "w") as file:
        for name, size in [("time", None), ("lat", 3), ("lon", 4)]:
            file.createDimension(name, size)
        for name in ["time", "lat"]:
            file.createVariable(name, "f8", (name,))[:] = np.arange(2 if name == "time" else 3)
        sst = file.createVariable("sst", "i2", ("time", "lat", "lon"), fill_value=-999, zlib=True)
        sst.scale_factor, sst.add_offset = 0.01, 20.0
        rng = np.random.default_rng(1)
        values = np.ma.array(rng.uniform(0, 30, (2, 3, 4)), mask=rng.random((2, 3, 4)) < 0.3)
        sst[:] = values
    with netCDF4.Dataset("sea.nc") as file:
        read = file["sst"][:].filled(np.nan).astype("f4")
        assert np.isnan(read).any()
        expect("sea.nc", read, axes=["time", "lat", "lon"], note="scale_factor 0.01 applied")
        expect("sea.nc", read, inside="sst", note="_FillValue -999 read as NaN")
        expect("sea.nc", np.asarray(file["lat"][:]), inside="lat")
    with netCDF4.Dataset("plain.nc", "w") as file:
        file.createDimension("y", 2)
        file.createDimension("x", 3)
        file.createVariable("u", "f4", ("y", "x"))[:] = numbers((2, 3), "f4")
        byte = file.createVariable("b", "i1", ("x",))
        byte._Unsigned = "true"
        byte.set_auto_maskandscale(False)
        byte[:] = np.array([-1, 0, 5], "i1")
    with netCDF4.Dataset("plain.nc") as file:
        expect("plain.nc", np.asarray(file["u"][:]), inside="u", axes=["y", "x"])
        expect("plain.nc", np.asarray(file["b"][:]), inside="b", note="_Unsigned")
    with netCDF4.Dataset("classic.nc", "w", format="NETCDF3_CLASSIC") as file:
        file.createDimension("x", 3)
        file.createVariable("u", "f4", ("x",))[:] = 1
    refuse("classic.nc", "nccopy")


def matlab_73():
    """MATLAB 7.3 writes HDF5 files with axes in its order and a user block of 512 bytes."""
    import h5py

    with h5py.File("v73.mat", "w", userblock_size=512) as file:
        x = numbers((2, 3, 4), "f8")
        file["x"] = x.T
        file["x"].attrs["MATLAB_class"] = np.bytes_("double")
        file["mask"] = np.array([[1, 0, 1]], "u1").T
        file["mask"].attrs["MATLAB_class"] = np.bytes_("logical")
        file["mask"].attrs["MATLAB_int_decode"] = np.int32(1)
        file["name"] = np.array([[72], [105]], "u2")
        file["name"].attrs["MATLAB_class"] = np.bytes_("char")
        file["none"] = np.array([0, 3], "u8")
        file["none"].attrs["MATLAB_class"] = np.bytes_("double")
        file["none"].attrs["MATLAB_empty"] = np.uint8(1)
        file.create_group("#refs#")["a"] = np.zeros(2)
        chunked = file.create_dataset("chunked", data=x.astype("u2").T, chunks=(2, 2, 2),
                                      compression="gzip")
        chunked.attrs["MATLAB_class"] = np.bytes_("uint16")
    with open("v73.mat", "r+b") as file:
        text = b"MATLAB 7.3 MAT-file, Platform: GLNXA64, Created on: Mon Jan  1 00:00:00 2024"
        file.write(text.ljust(124) + struct.pack("<HH", 0x0200, 0x4D49))
    note = "MATLAB's order of axes"
    expect("v73.mat", x, inside="x", note=note)
    expect("v73.mat", x.astype("u2"), inside="chunked", note=note)
    expect("v73.mat", np.array([[True, False, True]]), inside="mask")
    refuse("v73.mat", "MATLAB char", inside="name")
    refuse("v73.mat", "empty", inside="none")
    refuse("v73.mat", "has several arrays")


def big_endian_mat(file, name, values):
    """A file as MATLAB wrote it on big-endian machines; scipy reads it, and cannot write it."""
    kinds = {"f8": (6, 9), "i2": (10, 3)}
    kind, stored = kinds[values.dtype.str[1:]]

    def element(number, data):
        return struct.pack(">II", number, len(data)) + data + bytes(-len(data) % 8)

    matrix = element(6, struct.pack(">II", kind, 0))
    matrix += element(5, struct.pack(f">{values.ndim}i", *values.shape))
    matrix += struct.pack(">HH", len(name), 1) + name.encode().ljust(4, b"\0")
    matrix += element(stored, values.astype(values.dtype.newbyteorder(">")).tobytes("F"))
    with open(file, "wb") as out:
        out.write(b"MATLAB 5.0 MAT-file, Platform: SOL2".ljust(124) + b"\x01\x00MI")
        out.write(element(14, matrix))


def mat():
    from scipy import io as sio
    from scipy.sparse import eye

    # Times are no part of the test.
    header = b"MATLAB 5.0 MAT-file Platform: posix, Created on: Mon Jan  1 00:00:00 2024"

    def save(name, arrays, **options):
        sio.savemat(name, arrays, **options)
        with open(name, "r+b") as file:
            file.write(header.ljust(116))

    types = {f"x{np.dtype(t).name}": numbers((2, 3, 2), t)
             for t in ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8"]}
    types["flags"] = numbers((2, 3), "?")
    for name in ["plain5.mat", "packed5.mat"]:
        save(name, types, do_compression=name == "packed5.mat")
        for key in types:
            value = sio.loadmat(name)[key]
            expect(name, value.astype(bool) if key == "flags" else value, inside=key)
        refuse(name, "has several arrays; append : and one of xuint8 (8-bit unsigned 2x3x2)")
    big_endian_mat("big5.mat", "xy", numbers((3, 2), "f8"))
    expect("big5.mat", sio.loadmat("big5.mat")["xy"])
    big_endian_mat("big16.mat", "xy", numbers((1, 3), "i2"))
    expect("big16.mat", sio.loadmat("big16.mat")["xy"])
    # Only one of the variables is an array of numbers. MATLAB stores small integers in 8 bits.
    save("mixed5.mat", {"x": np.eye(2), "s": {"a": 1}, "c": np.array([1, "a"], dtype=object),
                        "t": "text", "e": eye(3).tocsc(), "z": np.zeros(2, "c16"),
                        "n": np.zeros((0, 0))})
    expect("mixed5.mat", sio.loadmat("mixed5.mat")["x"], inside="x")
    for name, message in [("s", "is a struct"), ("c", "is a cell array"), ("t", "is a text"),
                          ("e", "sparse array"), ("z", "complex"), ("n", "empty")]:
        refuse("mixed5.mat", message, inside=name)
    sio.savemat("v4.mat", {"x": np.eye(2)}, format="4")
    refuse("v4.mat", "version 4")


def fits():
    from astropy.io import fits as af

    hdus = [af.PrimaryHDU()]
    for dtype in ["u1", "i1", "u2", "i4", "u4", "u8", "f8"]:
        hdus.append(af.ImageHDU(numbers((2, 3), dtype), name=np.dtype(dtype).name))
    af.HDUList(hdus).writeto("types.fits", overwrite=True)
    with af.open("types.fits") as file:
        for hdu in file[1:]:
            expect("types.fits", hdu.data.astype(hdu.data.dtype.newbyteorder("=")),
                   inside=hdu.name.lower())
        expect("types.fits", file[2].data, inside="2", note="image INT8 of 7")
        expect("types.fits", file[1].data, note="image UINT8 of 7")
    refuse("types.fits", 'no array "zz"; it has UINT8 (8-bit unsigned 2x3), INT8 (8-bit', "zz")
    refuse("types.fits", "no image", "0")
    af.PrimaryHDU(numbers((4, 3, 2), "f4")).writeto("cube.fits", overwrite=True)
    expect("cube.fits", af.getdata("cube.fits").astype("f4"))
    scaled = af.PrimaryHDU(np.array([[1, 2, -5], [7, 300, 9]], "i2"))
    scaled.writeto("scaled.fits", overwrite=True)
    with open("scaled.fits", "r+b") as file:
        text = file.read(2880)
        cards = b"".join(f"{k:8}= {v:>20}".ljust(80).encode()
                         for k, v in [("BSCALE", "0.5"), ("BZERO", "1.0D1"), ("BLANK", "-5")])
        end = text.index(b"END     ")
        file.seek(end)
        file.write(cards + b"END")
    values = af.getdata("scaled.fits")
    assert np.isnan(values[0, 2])
    expect("scaled.fits", values.astype("f4"), note="BLANK -5 read as NaN")
    table = af.BinTableHDU.from_columns([af.Column("a", "E", array=np.zeros(3))])
    af.HDUList([af.PrimaryHDU(), table]).writeto("table.fits", overwrite=True)
    refuse("table.fits", "tables")
    refuse("table.fits", "tables", "1")
    af.HDUList([af.PrimaryHDU(), af.CompImageHDU(numbers((32, 32), "i2"))]).writeto(
        "compressed.fits", overwrite=True)
    refuse("compressed.fits", "funpack")


def wav():
    import soundfile

    rng = np.random.default_rng(3)
    wave = rng.uniform(-1, 1, (7, 2))
    axes = ["C", "L"]
    # soundfile reads PCM into the upper bits of 32-bit integers.
    for subtype, dtype, shift in [("PCM_U8", "i1", 24), ("PCM_16", "i2", 16), ("PCM_24", "i4", 8),
                                  ("PCM_32", "i4", 0)]:
        name = f"{subtype.lower()}.wav"
        soundfile.write(name, wave, 16000, subtype)
        values, rate = soundfile.read(name, dtype="int32", always_2d=True)
        expect(name, (values >> shift).astype(dtype).T, axes=axes, rate=rate)
    for subtype, dtype in [("FLOAT", "float32"), ("DOUBLE", "float64")]:
        name = f"{subtype.lower()}.wav"
        soundfile.write(name, wave[:, 0], 44100, subtype)
        values, rate = soundfile.read(name, dtype=dtype, always_2d=True)
        expect(name, values.T, rate=rate)
    for form, subtype in [("WAVEX", "PCM_24"), ("RF64", "PCM_16")]:
        name = f"{form.lower()}.wav"
        soundfile.write(name, wave, 8000, subtype, format=form)
        values, rate = soundfile.read(name, dtype="int32", always_2d=True)
        shift, dtype = (8, "i4") if subtype == "PCM_24" else (16, "i2")
        expect(name, (values >> shift).astype(dtype).T, rate=rate)
    soundfile.write("ulaw.wav", wave, 8000, "ULAW")
    refuse("ulaw.wav", "µ-law")
    # A recorder that was stopped leaves the length open.
    with open("pcm_16.wav", "rb") as file:
        data = bytearray(file.read())
    at = data.index(b"data")
    data[at + 4:at + 8] = b"\xff" * 4
    with open("open.wav", "wb") as file:
        file.write(data)
    values, rate = soundfile.read("pcm_16.wav", dtype="int16", always_2d=True)
    expect("open.wav", values.T, note="without a length")


def tiff():
    import tifffile

    def save(name, values, refused=None, expected=None, **options):
        options = {"photometric": "minisblack", "metadata": None} | options
        tifffile.imwrite(name, values, datetime=None, software=False, **options)
        if refused:
            return refuse(name, refused)
        series = tifffile.TiffFile(name).series
        values = series[0].asarray() if len(series) == 1 else tifffile.imread(name, key=range(99))
        expect(name, values if expected is None else expected)
        return values

    for dtype in ["u1", "i1", ">u2", "i2", "u4", ">i4", "f2", ">f4", "f8", "u8"]:
        name = f"{np.dtype(dtype).name}.tif"
        save(name, numbers((3, 4), dtype), byteorder=">" if dtype[0] == ">" else "<")
    save("pages.tif", numbers((3, 4, 5), "u2"), compression="zlib", predictor=True)
    save("lzw.tif", numbers((2, 4, 5), "f4"), compression="lzw")
    save("tiles.tif", numbers((2, 20, 18), "u2"), tile=(16, 16), compression="zlib")
    save("big.tif", numbers((2, 3, 4), "i2"), bigtiff=True)
    save("rgb.tif", numbers((2, 3, 4, 3), "u2"), photometric="rgb")
    save("planes.tif", numbers((5, 3, 4), "u2"), planarconfig="separate",
         expected=np.moveaxis(numbers((5, 3, 4), "u2"), 0, -1))
    save("bands.tif", numbers((3, 4, 5), "f4"), planarconfig="contig")
    save("bits.tif", numbers((5, 11), "?"), expected=numbers((5, 11), "?").astype("u1"))
    save("webp.tif", numbers((2, 4, 5, 3), "u1"), photometric="rgb", compression="webp",
         compressionargs={"lossless": True})
    save("zstd.tif", numbers((16, 16), "u1"), compression="zstd")
    save("zstd_pages.tif", numbers((3, 7, 5), "u2"), compression="zstd", predictor=True,
         rowsperstrip=3)
    save("zstd_tiles.tif", numbers((2, 20, 18), ">f4"), compression="zstd", predictor=True,
         tile=(16, 16), byteorder=">")
    save("zstd_big.tif", numbers((6, 4, 3), "u1"), compression="zstd", photometric="rgb",
         planarconfig="contig", rowsperstrip=2, bigtiff=True)
    save("zstd_planes.tif", numbers((3, 4, 5), "u2"), compression="zstd", photometric="rgb",
         planarconfig="separate", expected=np.moveaxis(numbers((3, 4, 5), "u2"), 0, -1))
    save("lzma.tif", numbers((4, 4), "u1"), compression="lzma", refused="compression LZMA")
    save("palette.tif", numbers((3, 4), "u1"), photometric="palette",
         colormap=numbers((3, 256), "u2"), refused="palette")
    with tifffile.TiffWriter("sizes.tif") as file:
        for size in [4, 4, 5]:
            file.write(numbers((size, 4), "u1"), photometric="minisblack", metadata=None)
    refuse("sizes.tif", "page 3 is 4x5 with 1 channels")
    stack = numbers((2, 3, 4, 6, 5), "u2")
    for axes, squeezed in [("TZCYX", "TZCYX"), ("TCYX", "TCYX"), ("ZYX", "ZYX")]:
        values = stack[(0,) * (5 - len(axes))]
        name = f"ome_{axes.lower()}.ome.tif"
        tifffile.imwrite(name, values, ome=True, photometric="minisblack",
                         metadata={"axes": axes, "Name": "x µm"}, software=False)
        with tifffile.TiffFile(name) as file:
            assert file.series[0].axes == squeezed
            expect(name, file.asarray(), axes=list(squeezed), note=f"axes {squeezed[:-2]} (OME)")
    tifffile.imwrite("ome_rgb.ome.tif", numbers((2, 3, 4, 3), "u1"), ome=True, photometric="rgb",
                     metadata={"axes": "ZYXS"}, software=False)
    with tifffile.TiffFile("ome_rgb.ome.tif") as file:
        expect("ome_rgb.ome.tif", file.asarray(), axes=list("ZYXS"))
    for axes in ["TZCYX", "CYX", "TYX"]:
        values = stack[(0,) * (5 - len(axes))]
        name = f"imagej_{axes.lower()}.tif"
        tifffile.imwrite(name, values, imagej=True, metadata={"axes": axes}, software=False)
        with tifffile.TiffFile(name) as file:
            expect(name, file.asarray(), axes=list(axes), note="(ImageJ)")
    # ImageJ writes stacks above 4 GB as one page with the others after it.
    with tifffile.TiffFile("imagej_tyx.tif") as file:
        entries = file.pages[0].offset
    with open("imagej_tyx.tif", "rb") as file:
        data = bytearray(file.read())
    order = ">" if data[:2] == b"MM" else "<"
    count = struct.unpack_from(order + "H", data, entries)[0]
    struct.pack_into(order + "I", data, entries + 2 + 12 * count, 0)
    with open("imagej_one.tif", "wb") as file:
        file.write(data)
    expect("imagej_one.tif", tifffile.imread("imagej_tyx.tif"), axes=list("TYX"))
    # tifffile describes the axes of its stacks in JSON.
    tifffile.imwrite("shaped.tif", stack[0], photometric="minisblack", software=False)
    expect("shaped.tif", tifffile.imread("shaped.tif"), note="axes 3x4 (tifffile)")
    with tifffile.TiffWriter("reduced.tif") as file:
        options = {"photometric": "minisblack", "metadata": None, "software": False}
        file.write(numbers((4, 4), "u2"), **options)
        file.write(numbers((2, 2), "u2"), subfiletype=1, **options)
        file.write(numbers((4, 4), "u2", seed=1), **options)
    expect("reduced.tif", np.stack([numbers((4, 4), "u2"), numbers((4, 4), "u2", seed=1)]),
           note="1 reduced copies")


def y4m():
    """Films by the definition of the format and of BT.601; ffmpeg reads and writes the same."""
    width, height, frames = 5, 3, 2

    def rgb(planes, bits, full, step_x, step_y):
        luma, blue, red = [plane.astype("f8") for plane in planes]
        rows, columns = np.arange(height) // step_y, np.arange(width) // step_x
        blue, red = [plane[:, rows][:, :, columns] for plane in [blue, red]]
        step, top = 2.0 ** (bits - 8), 2.0 ** bits - 1
        luma = luma / top if full else (luma - 16 * step) / (219 * step)
        blue, red = [(c - 128 * step) / (top if full else 224 * step) for c in [blue, red]]
        image = np.stack([luma + 1.402 * red, luma - 0.344136 * blue - 0.714136 * red,
                          luma + 1.772 * blue], -1)
        return np.rint(image.clip(0, 1) * top).astype("u1" if bits == 8 else "u2")

    for color, (x, y), bits, extra in [("420jpeg", (2, 2), 8, ""), ("422p10", (2, 1), 10, ""),
                                       ("444", (1, 1), 8, " XCOLORRANGE=FULL"),
                                       ("411", (4, 1), 8, " Ib"), ("mono", (0, 0), 8, ""),
                                       ("mono12", (0, 0), 12, ""), ("420p16", (2, 2), 16, "")]:
        rng = np.random.default_rng(4)
        dtype = "u1" if bits == 8 else "<u2"
        sizes = [(height, width)]
        if x:
            sizes += 2 * [(-(-height // y), -(-width // x))]
        planes = [rng.integers(0, 2 ** bits, (frames, *size)).astype(dtype) for size in sizes]
        name = f"{color}.y4m"
        with open(name, "wb") as file:
            file.write(f"YUV4MPEG2 W{width} H{height} F25:1 A1:1 C{color}{extra}\n".encode())
            for frame in range(frames):
                file.write(b"FRAME Ip\n" if frame else b"FRAME\n")
                file.write(b"".join(plane[frame].tobytes() for plane in planes))
        if x:
            note = "RGB by BT.601 from the " + ("full range" if "FULL" in extra else "limited")
            expect(name, rgb(planes, bits, "FULL" in extra, x, y), axes=list("TYXS"), note=note)
            expect(name, planes[0], inside="luma", note="luma alone")
        else:
            expect(name, planes[0], axes=list("TYX"))
    with open("strange.y4m", "wb") as file:
        file.write(b"YUV4MPEG2 W2 H2 Cbgr\nFRAME\n" + bytes(12))
    refuse("strange.y4m", 'colour format "bgr"')


MAKERS = [npy, npz, hdf5, netcdf, matlab_73, mat, fits, wav, tiff, y4m]

if __name__ == "__main__":
    for make in MAKERS:
        make()
    with open("expected.json", "w") as file:
        file.write("[\n" + ",\n".join(json.dumps(row) for row in ROWS) + "\n]\n")
