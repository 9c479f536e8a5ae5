"""Makes the files of this folder with the libraries that users have, and `expected.json` with the
images and labels that these libraries read from them.

    pip install datasets pyarrow polars pillow
    python tests/data/containers/make.py
"""

import io
import json
import os
import tarfile

import numpy as np
import polars
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import ClassLabel, Dataset, Features, Image
from PIL import Image as Pillow

HERE = os.path.dirname(os.path.abspath(__file__))
os.chdir(HERE)
ROWS = []
CLASSES = ["cat", "dog", "emu"]


def expect(file, names, images, classes=None, labels=None, inside=None, note=None):
    ROWS.append({"file": file, "inside": inside, "names": names, "classes": classes,
                 "labels": labels, "images": [image.hex() for image in images], "note": note})


def refuse(file, message, inside=None):
    ROWS.append({"file": file, "inside": inside, "refused": message})


def png(number):
    rng = np.random.default_rng(number)
    buffer = io.BytesIO()
    Pillow.fromarray(rng.integers(0, 256, (3, 2, 3)).astype("u1")).save(buffer, "png")
    return buffer.getvalue()


IMAGES = [png(number) for number in range(7)]
LABELS = [2, 0, 1, 1, 0, 2, 0]


def hugging_face():
    """As `push_to_hub` and the parquet conversion of the hub write them."""
    features = Features({"image": Image(), "label": ClassLabel(names=CLASSES)})
    paths = [f"train/{i}.png" for i in range(7)]
    rows = {"image": [{"bytes": b, "path": p} for b, p in zip(IMAGES, paths)], "label": LABELS}
    data = Dataset.from_dict(rows, features=features)
    data.to_parquet("hub.parquet", batch_size=3)
    table = pq.read_table("hub.parquet").to_pylist()
    assert [row["image"]["bytes"] for row in table] == IMAGES
    expect("hub.parquet", paths, IMAGES, CLASSES, LABELS, note="labels of the column label")
    schema = pq.read_schema("hub.parquet")
    unlabelled = pa.table(
        {"image": [{"bytes": b, "path": None} for b in IMAGES[:3]], "label": [-1, 0, -1]},
        schema=schema)
    pq.write_table(unlabelled, "unlabelled.parquet")
    expect("unlabelled.parquet", ["0", "1", "2"], IMAGES[:3], note="2 of 3 images have no label")


def tables():
    struct = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    column = pa.array([{"bytes": b, "path": None} for b in IMAGES], struct)
    names = [str(i) for i in range(7)]
    table = pa.table({"id": list(range(7)), "img": column, "cls": [f"c{x}" for x in LABELS]})
    written = {
        "plain.parquet": {"compression": "none", "use_dictionary": False},
        "gzip.parquet": {"compression": "gzip", "row_group_size": 3},
        "zstd.parquet": {"compression": "zstd", "row_group_size": 3},
        "zstd2.parquet": {"compression": "zstd", "data_page_version": "2.0",
                          "data_page_size": 100},
        "lz4.parquet": {"compression": "lz4"},
        "pages2.parquet": {"data_page_version": "2.0", "data_page_size": 100},
        "small.parquet": {"data_page_size": 1, "write_batch_size": 2, "use_dictionary": False},
    }
    for name, options in written.items():
        pq.write_table(table, name, **options)
        expect(name, names, IMAGES, ["c0", "c1", "c2"], [int(x) for x in LABELS])
    pq.write_table(table, "brotli.parquet", compression="brotli")
    refuse("brotli.parquet", "compression Brotli")
    required = pa.schema([pa.field("image", pa.binary(), nullable=False),
                          pa.field("label", pa.int32(), nullable=False)])
    pq.write_table(pa.table({"image": IMAGES, "label": [9, 9, 5, 5, 9, 5, 9]}, schema=required),
                   "required.parquet")
    expect("required.parquet", names, IMAGES, ["5", "9"], [1, 1, 0, 0, 1, 0, 1])
    two = pa.table({"first": IMAGES, "second": IMAGES[::-1], "n": LABELS})
    pq.write_table(two, "two.parquet")
    refuse("two.parquet", "append : and one of first, second")
    refuse("two.parquet", 'no column of images "n"', inside="n")
    expect("two.parquet", names, IMAGES[::-1], inside="second")
    pq.write_table(pa.table({"n": LABELS}), "none.parquet")
    refuse("none.parquet", "has no column of images")
    pq.write_table(table.slice(0, 0), "empty.parquet")
    refuse("empty.parquet", "contains no image")
    polars.DataFrame({"image": IMAGES, "label": LABELS}).write_parquet(
        "polars.parquet", compression="snappy")
    expect("polars.parquet", names, IMAGES, ["0", "1", "2"], LABELS)


def archive(name, members, form=tarfile.USTAR_FORMAT):
    with tarfile.open(name, "w", format=form) as file:
        for path, data in members:
            member = tarfile.TarInfo(path)
            member.size = len(data)
            file.addfile(member, io.BytesIO(data))
    # Only two empty blocks at the end, to keep the file small.
    with open(name, "rb") as file:
        data = file.read().rstrip(b"\0")
    with open(name, "wb") as file:
        file.write(data + bytes(-len(data) % 512 + 1024))


def web_dataset():
    members = []
    for i in range(4):
        members += [(f"./a/{i:04}.png", IMAGES[i]), (f"./a/{i:04}.cls", f"{LABELS[i]}\n".encode())]
    archive("cls.tar", members)
    names = [f"a/{i:04}.png" for i in range(4)]
    expect("cls.tar", names, IMAGES[:4], ["0", "1", "2"], LABELS[:4])
    members = [("b.json", b'{"label": "dog", "x": 1}'), ("b.JPG", IMAGES[0]),
               ("c.jpg", IMAGES[1]), ("c.json", b'{"label": "cat"}'), ("c.mask.png", IMAGES[2]),
               ("README", b"none"), ("d.txt", b"x"), (".hidden.png", b"x")]
    archive("json.tar", members, tarfile.PAX_FORMAT)
    expect("json.tar", ["b.jpg", "c.jpg"], IMAGES[:2], ["cat", "dog"], [1, 0],
           note="1 further images")
    long = "é/" + "n" * 120
    members = [(f"{long}{i}.{kind}", data) for i in range(3)
               for kind, data in [("png", IMAGES[i]), ("txt", f"A photo of {i}.".encode())]]
    for name, form in [("pax.tar", tarfile.PAX_FORMAT), ("gnu.tar", tarfile.GNU_FORMAT)]:
        archive(name, members, form)
        expect(name, [f"{long}{i}.png" for i in range(3)], IMAGES[:3], note="captions")
    archive("nothing.tar", [("a.txt", b"x")])
    refuse("nothing.tar", "contains no image")
    archive("broken.tar", [("a.png", IMAGES[0]), ("a.json", b"{")])
    refuse("broken.tar", "the JSON of a is damaged")
    with open("packed.tar.gz", "wb") as file:
        file.write(bytes.fromhex("1f8b0800000000000003") + b"\x03\0" + bytes(8))
    refuse("packed.tar.gz", "gunzip")


for make in [hugging_face, tables, web_dataset]:
    make()
with open("expected.json", "w") as file:
    file.write("[\n" + ",\n".join(json.dumps(row) for row in ROWS) + "\n]\n")
