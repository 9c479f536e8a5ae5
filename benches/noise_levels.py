#!/usr/bin/env python3
"""How well `csae denoise` estimates noise that is not white, and whether a result is ever worse.

    benches/noise_levels.py CSAE CLEAN WORK

CSAE is a `csae` binary, CLEAN a folder of at least ten clean colour photographs, WORK a new folder.
Writes 40 noisy JPEG files (quality 75 to 98, chroma 4:2:0 and 4:4:4, standard deviation of the noise
5 to 50) and, as PNG, eight demosaiced images, eight with bars and eight with a black half. Denoises
all and prints a table. Needs Pillow and NumPy.
"""
import json
import pathlib
import subprocess
import sys

import numpy as np
from PIL import Image

JPEGS = [(q, sub, s) for q in (75, 85, 90, 98) for sub in ("420", "444") for s in (5, 15, 25, 50)]


def noisy(clean, sigma, rng):
    return np.clip(clean + rng.normal(0, sigma, clean.shape), 0, 255).round()


def demosaiced(image):
    """Bilinear interpolation of a Bayer mosaic (RGGB)."""
    h, w, _ = image.shape
    mosaic = np.zeros_like(image)
    for channel, y, x in ((0, 0, 0), (1, 0, 1), (1, 1, 0), (2, 1, 1)):
        mosaic[y::2, x::2, channel] = image[y::2, x::2, channel]
    cross = np.array([[0, 1, 0], [1, 4, 1], [0, 1, 0]]) / 4
    square = np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]]) / 4

    def filtered(plane, kernel):
        wide = np.pad(plane, 1, mode="reflect")
        return sum(kernel[i, j] * wide[i : i + h, j : j + w] for i in range(3) for j in range(3))

    planes = [filtered(mosaic[..., c], cross if c == 1 else square) for c in range(3)]
    return np.clip(np.stack(planes, 2), 0, 255).round()


def half_black(image):
    black = image.copy()
    black[:, : black.shape[1] // 2] = 0
    return black


def with_bars(image):
    return np.pad(image, ((80, 80), (0, 0), (0, 0)))


def load(path):
    return np.asarray(Image.open(path).convert("RGB")).astype(float)


def psnr(a, b):
    return 10 * np.log10(255**2 / ((a - b) ** 2).mean())


def main():
    csae, photos, work = sys.argv[1], pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3])
    (work / "noisy").mkdir(parents=True)
    rng = np.random.default_rng(7)
    files = sorted(p for p in photos.iterdir() if p.suffix in (".png", ".tif", ".jpg"))
    images = []  # name, clean image, sigma

    def add(name, clean, sigma, degraded, **save):
        Image.fromarray(degraded.astype(np.uint8)).save(work / "noisy" / name, **save)
        images.append((name, clean, sigma))

    for i in range(40):
        clean = load(files[i % 10])
        quality, chroma, sigma = JPEGS[(i * 7 + i // 32) % 32]
        name = f"jpeg-{i:02}-q{quality}-{chroma}-{sigma}.jpg"
        sampling = {"420": 2, "444": 0}[chroma]
        add(name, clean, sigma, noisy(clean, sigma, rng), quality=quality, subsampling=sampling)
    for i in range(8):
        clean, sigma = load(files[i]), (5, 15, 25, 50)[i % 4]
        image = noisy(clean, sigma, rng)
        add(f"demosaiced-{i}-{sigma}.png", clean, sigma, demosaiced(image))
        add(f"bars-{i}-{sigma}.png", with_bars(clean), sigma, with_bars(image))
        add(f"black-{i}-{sigma}.png", half_black(clean), sigma, half_black(image))
    command = [csae, "denoise", work / "noisy", "--out", work / "out", "--device", "cpu", "--json"]
    run = subprocess.run(command, check=True, capture_output=True, text=True)
    lines = [json.loads(line) for line in run.stdout.splitlines()]
    found = {pathlib.Path(line["file"]).stem: line for line in lines if "file" in line}
    print("| image | σ | estimate | doubtful | dB before | dB after |\n|---|---|---|---|---|---|")
    outside, worse = 0, 0
    for name, clean, sigma in images:
        line = found[pathlib.Path(name).stem]
        before, after = psnr(load(work / "noisy" / name), clean), psnr(load(line["file"]), clean)
        doubt = "" if line["at_most"] is None else f"up to {line['at_most']:.1f}"
        outside += abs(line["sigma"] / sigma - 1) > 0.15 and not doubt
        worse += after < before - 0.05
        print(f"| {name} | {sigma} | {line['sigma']:.1f} | {doubt} | {before:.2f} | {after:.2f} |")
    print(f"\n{len(images)} images: {outside} estimates wrong by more than 15 % and not doubtful, {worse} results worse")


if __name__ == "__main__":
    main()
