#!/usr/bin/env python3
"""How `csae denoise` fares on noisy photographs of random quality, and on clean ones.

    benches/noise_levels_random.py CSAE WORK PHOTO...

CSAE is a `csae` binary, WORK a new folder. Of every photograph it writes two JPEG files (quality 60
to 98, chroma 4:2:0 or 4:4:4) and a PNG file with noise of 5 to 50, denoises them, and prints how
many estimates are more than 15 % wrong without a word of doubt, how many results are worse than
their inputs by more than 0.05 dB, and the mean gain. Needs Pillow and NumPy.
"""
import json
import pathlib
import subprocess
import sys

import numpy as np
from PIL import Image


def load(path):
    return np.asarray(Image.open(path).convert("RGB")).astype(float)


def psnr(a, b):
    return 10 * np.log10(255**2 / ((a - b) ** 2).mean())


def main():
    csae, work, photos = sys.argv[1], pathlib.Path(sys.argv[2]), sys.argv[3:]
    (work / "noisy").mkdir(parents=True)
    rng = np.random.default_rng(11)
    images = {}  # by the name without its ending: noisy file, photograph, sigma
    for photo in map(pathlib.Path, photos):
        clean = load(photo)
        for i in range(3):
            sigma = float(rng.choice([5, 8, 15, 25, 40, 50]))
            quality = int(rng.choice([60, 70, 75, 80, 85, 90, 95, 98]))
            noisy = np.clip(clean + rng.normal(0, sigma, clean.shape), 0, 255).round()
            file = work / "noisy" / f"{photo.stem}_{i}.{'png' if i == 2 else 'jpg'}"
            save = {"quality": quality, "subsampling": int(rng.choice([0, 2]))} if i < 2 else {}
            Image.fromarray(noisy.astype(np.uint8)).save(file, **save)
            images[file.stem] = file, photo, sigma
    command = [csae, "denoise", work / "noisy", "--out", work / "out", "--device", "cpu", "--json"]
    run = subprocess.run(command, check=True, capture_output=True, text=True)
    lines = [json.loads(line) for line in run.stdout.splitlines()]
    wrong, worse, gains = 0, 0, []
    for line in (line for line in lines if "sigma" in line):
        file, photo, sigma = images[pathlib.Path(line["file"]).stem]
        clean = load(photo)
        before, after = psnr(load(file), clean), psnr(load(line["file"]), clean)
        is_wrong = abs(line["sigma"] / sigma - 1) > 0.15 and line["at_most"] is None
        wrong, worse = wrong + is_wrong, worse + (after < before - 0.05)
        gains.append(after - before)
        if is_wrong or after < before - 0.05:
            print(f"{file.name}, noise {sigma}, estimate {line['sigma']:.1f}: {before:.2f} to {after:.2f} dB")
    print(f"{len(gains)} images: {wrong} wrong without doubt, {worse} worse, mean gain {np.mean(gains):.2f} dB")


main()
