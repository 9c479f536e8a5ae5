"""Writes arrays for measurements of samples that are not 8-bit pictures.

    pip install numpy
    python benches/make_samples.py FOLDER

`flow.npy`, `flow_test.npy`: fields of Taylor-Green-like vortices (N,4,32,32), 32-bit floats: two
velocities (m/s), pressure (Pa, around 100,000) and temperature (K, around 300).

`vortices.npy`, `vortices_test.npy`: Taylor-Green vortices (N,4,32,32) of random wavelength (a quarter
of the domain to all of it), direction, place and age, two in each field: two velocities, gauge
pressure and vorticity.

`signals.npy`, `signals_test.npy`, `signals_odd.npy`: signals (N,3,1024), 32-bit floats: bursts of
three frequencies that reach all channels; the last file has a step in each signal.

`cells16.npy`, `cells16_test.npy`: dim cells of 12 bits (N,128,128), 16-bit integers from 100 to
about 260, with shot noise. `cells8.npy`: the same divided by 16, as 8-bit files would hold them.
"""

import sys
from pathlib import Path

import numpy as np


def signals(rng, count, odd=False):
    t = np.arange(1024)
    out = np.zeros((count, 3, 1024), np.float32)
    gains = np.array([1, 0.6, -0.4], np.float32)[:, None]
    for x in out:
        for _ in range(rng.integers(4, 9)):
            centre, width = rng.integers(0, 1024), rng.uniform(15, 60)
            frequency, phase = rng.choice([0.05, 0.11, 0.23]), rng.uniform(0, 2 * np.pi)
            wave = np.sin(2 * np.pi * frequency * (t - centre) + phase)
            x += rng.normal() * np.exp(-(((t - centre) / width) ** 2)) * wave * gains
        x += rng.normal(0, 0.02, x.shape)
        if odd:
            at = rng.integers(100, 900)
            x[:, at : at + 20] += np.sign(rng.normal()) * 1.5
    return 40 * out + 5


def flow(rng, count):
    grid = np.linspace(0, 2 * np.pi, 32, endpoint=False)
    x, y = np.meshgrid(grid, grid)
    out = np.zeros((count, 4, 32, 32), np.float32)
    for field in out:
        u, v, p = (np.zeros((32, 32)) for _ in range(3))
        for _ in range(2):
            kx, ky = rng.integers(1, 4, 2)
            a, (px, py) = rng.normal(), rng.uniform(0, 2 * np.pi, 2)
            u += a * ky * np.cos(kx * x + px) * np.sin(ky * y + py)
            v -= a * kx * np.sin(kx * x + px) * np.cos(ky * y + py)
            p -= a * a / 4 * (np.cos(2 * kx * x + 2 * px) + np.cos(2 * ky * y + 2 * py))
        field[:] = np.stack([u, v, 1e3 * p + 1e5, 300 + 5 * np.sin(u) + 0.5 * v])
    return out


def vortices(rng, count):
    """G. I. Taylor, A. E. Green, Proc. R. Soc. A 158 (1937): u = cos x sin y, v = -sin x cos y,
    decaying as exp(-2 nu t), here turned, scaled and shifted. The pressure is that of each flow."""
    side = (np.arange(32) + 0.5) / 32
    x, y = np.meshgrid(side, side)
    out = np.zeros((count, 4, 32, 32), np.float32)
    for field in out:
        for _ in range(2):
            k, angle = 2 * np.pi * rng.uniform(1, 4), rng.uniform(0, 2 * np.pi)
            age, (px, py) = rng.uniform(0, 0.02), rng.uniform(0, 2 * np.pi, 2)
            a = np.exp(-2 * 0.1 * k * k * age)
            cos, sin = np.cos(angle), np.sin(angle)
            s, t = k * (cos * x + sin * y) + px, k * (cos * y - sin * x) + py
            along, across = a * np.cos(s) * np.sin(t), -a * np.sin(s) * np.cos(t)
            field[0] += cos * along - sin * across
            field[1] += sin * along + cos * across
            field[2] -= a * a / 4 * (np.cos(2 * s) + np.cos(2 * t))
            field[3] -= 2 * k * a * np.cos(s) * np.cos(t)
    return out


def cells(rng, count):
    side = np.arange(128)
    x, y = np.meshgrid(side, side)
    out = np.zeros((count, 128, 128), np.uint16)
    for frame in out:
        mean = np.full((128, 128), 8.0)
        for _ in range(rng.integers(6, 16)):
            cx, cy = rng.uniform(0, 128, 2)
            a, b = rng.uniform(4, 10, 2)
            angle, bright = rng.uniform(0, np.pi), rng.uniform(15, 70)
            u = (x - cx) * np.cos(angle) + (y - cy) * np.sin(angle)
            v = -(x - cx) * np.sin(angle) + (y - cy) * np.cos(angle)
            radius = np.sqrt((u / a) ** 2 + (v / b) ** 2)
            texture = 0.8 + 0.2 * np.cos(0.9 * u) * np.cos(0.9 * v)
            mean += bright / (1 + np.exp(6 * (radius - 1))) * texture
        noisy = rng.poisson(4 * mean) / 4 + 100 + rng.normal(0, 0.5, mean.shape)
        frame[:] = np.clip(noisy, 0, 4095)
    return out


def main():
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(1)
    np.save(folder / "signals.npy", signals(rng, 600))
    np.save(folder / "signals_test.npy", signals(rng, 100))
    np.save(folder / "signals_odd.npy", signals(rng, 100, odd=True))
    np.save(folder / "flow.npy", flow(rng, 2000))
    np.save(folder / "flow_test.npy", flow(rng, 400))
    frames = cells(rng, 300)
    np.save(folder / "cells16.npy", frames)
    np.save(folder / "cells8.npy", (frames >> 4).astype(np.uint8))
    np.save(folder / "cells16_test.npy", cells(rng, 60))
    rng = np.random.default_rng(2)
    np.save(folder / "vortices.npy", vortices(rng, 8000))
    np.save(folder / "vortices_test.npy", vortices(rng, 400))


if __name__ == "__main__":
    main()
