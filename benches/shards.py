"""Many images in shards, each of which is killed once: are all results there, and the same?

    python3 benches/shards.py CSAE FOLDER [--images 10000] [--shards 8] [--seed 1]
        [--command denoise | --command 'reconstruct photographs']

Makes noisy gray images of 64x64 pixels in FOLDER/in. One process runs the command for all of them,
with results in FOLDER/whole. Then shards do so, two at a time, with results in FOLDER/shards. Each
is killed (SIGKILL) once after a random number of results, and started again with --skip-existing. The
results must be the same files with the same bytes, no result is written twice, and nothing else is
left. Features are extracted in shards, too, killed at random moments, and joined.
"""

import argparse
import concurrent.futures
import os
import pathlib
import random
import struct
import subprocess
import time
import zlib

SIDE = 64


def png(pixels):
    """A gray PNG file of SIDE x SIDE pixels."""
    rows = b"".join(b"\0" + pixels[y * SIDE:][:SIDE] for y in range(SIDE))

    def chunk(name, data):
        check = struct.pack(">I", zlib.crc32(name + data))
        return struct.pack(">I", len(data)) + name + data + check

    header = struct.pack(">IIBBBBB", SIDE, SIDE, 8, 0, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(rows, 1)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def make(folder, count, seed):
    """Gradients of random directions with noise."""
    folder.mkdir(parents=True)
    for number in range(count):
        draw = random.Random(f"{seed} {number}")
        down, across, noise = draw.random(), draw.random(), draw.randbytes(SIDE * SIDE)
        slope = [[int(40 + 64 * (down * y + across * x) / SIDE) for x in range(SIDE)]
                 for y in range(SIDE)]
        flat = [value for row in slope for value in row]
        pixels = bytes(value + (byte & 63) for value, byte in zip(flat, noise))
        (folder / f"{number:05}.png").write_bytes(png(pixels))


def own(shard, of, count):
    """The numbers of the images of a shard."""
    return range((shard - 1) * count // of, shard * count // of)


def killed_and_continued(command, moment):
    """Starts a command, kills it when `moment` says so, and starts it again. Returns whether it ran
    when it was killed, and the files that it had finished, with their times."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    finished = moment(process)
    runs = process.poll() is None
    process.kill()
    process.wait()
    before = finished()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return runs, before


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("csae")
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--images", type=int, default=10000)
    parser.add_argument("--shards", type=int, default=8)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--command", default="denoise")
    args = parser.parse_args()
    count, of, folder = args.images, args.shards, args.folder
    draw = random.Random(args.seed)
    images, whole, out = folder / "in", folder / "whole", folder / "shards"
    make(images, count, args.seed)
    flags = ["--device", "cpu", "--quiet"]

    start = time.monotonic()
    work = [args.csae, *args.command.split(), images, *flags]
    subprocess.run([*work, "-o", whole, "--threads", "2"], check=True)
    print(f"one process with two threads: {time.monotonic() - start:.0f} s")

    def times(shard):
        paths = [out / f"{number:05}.png" for number in own(shard, of, count)]
        return {path: path.stat().st_mtime_ns for path in paths if path.exists()}

    # The random numbers are chosen in one thread, so that a seed repeats them.
    plans = {shard: (draw.randrange(1, len(own(shard, of, count))), draw.random() / 50)
             for shard in range(1, of + 1)}

    def process(shard):
        results, delay = plans[shard]

        def moment(child):
            while len(times(shard)) < results and child.poll() is None:
                time.sleep(0.005)
            time.sleep(delay)
            return lambda: times(shard)

        command = [*work, "-o", out, "--shard", f"{shard}/{of}", "--skip-existing",
                   "--threads", "1"]
        runs, before = killed_and_continued(command, moment)
        after = times(shard)
        again = sum(after[path] != written for path, written in before.items())
        return runs, len(before), again

    start = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        found = list(pool.map(process, range(1, of + 1)))
    print(f"{of} shards, two at a time with one thread each: {time.monotonic() - start:.0f} s")
    print(f"killed while they ran: {sum(runs for runs, _, _ in found)} of {of}, "
          f"after {', '.join(str(results) for _, results, _ in found)} results")
    print(f"results written twice: {sum(again for _, _, again in found)}")
    names = [sorted(os.listdir(place)) for place in (whole, out)]
    differ = [name for name in names[0]
              if name not in names[1] or (whole / name).read_bytes() != (out / name).read_bytes()]
    print(f"files: {len(names[0])} and {len(names[1])}, same names: {names[0] == names[1]}, "
          f"other bytes: {len(differ)}")

    table = folder / "features.npy"
    single = folder / "single" / "features.npy"
    single.parent.mkdir()
    extract = [args.csae, "features", "photographs", images, "--pool", "max", "--grid", "2", *flags]
    start = time.monotonic()
    subprocess.run([*extract, "-o", single, "--threads", "2"], check=True)
    seconds = time.monotonic() - start
    print(f"features in one process with two threads: {seconds:.0f} s")
    delays = [draw.uniform(0.1, 0.9) * seconds * 2 / of for _ in range(of)]

    def features(shard):
        def moment(process):
            time.sleep(delays[shard - 1])
            return dict

        command = [*extract, "-o", table, "--shard", f"{shard}/{of}", "--skip-existing",
                   "--threads", "1"]
        return killed_and_continued(command, moment)[0]

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        runs = list(pool.map(features, range(1, of + 1)))
    parts = sorted(folder.glob("features.part-*.npy"))
    subprocess.run([args.csae, "join", *parts, "-o", table, "--quiet"], check=True)
    same = all(one.read_bytes() == other.read_bytes() for one, other in [
        (table, single), (folder / "features.names.txt", single.with_suffix(".names.txt"))])
    print(f"features of {of} shards, {sum(runs)} killed while they ran; joined: same file: {same}")
    all_same = names[0] == names[1] and not differ and same
    raise SystemExit(0 if all_same and len(names[0]) == count else 1)


if __name__ == "__main__":
    main()
