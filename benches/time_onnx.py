"""Times the bundled denoiser in onnxruntime beside the program, in turn, with two threads.

    pip install onnxruntime numpy pillow
    python benches/time_onnx.py target/release/csae IMAGE FOLDER

Writes noisy copies of the gray image and their results into the folder. The time of the program for
an image is that for nine files less that for one, so that it contains reading and writing a file,
but not the start. The time of onnxruntime is that of the model alone.
"""

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image

program, image, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
clean = np.array(Image.open(image).convert("L"), np.float64)
noise = np.random.default_rng(0)
for name, count in (("one", 1), ("nine", 9)):
    (folder / name).mkdir(parents=True, exist_ok=True)
    for number in range(count):
        noisy = (clean + 25 * noise.standard_normal(clean.shape)).clip(0, 255)
        Image.fromarray(noisy.astype(np.uint8)).save(folder / name / f"{number}.png")


def run(*arguments):
    start = time.perf_counter()
    variables = {**os.environ, "CSAE_CACHE": "off"}
    subprocess.run([program, *arguments, "--force", "-q"], check=True, env=variables)
    return time.perf_counter() - start


def denoise(name):
    flags = "--sigma 25 --device cpu --threads 2 -o".split()
    return run("denoise", str(folder / name), *flags, str(folder / "results"))


model = str(folder / "denoise.onnx")
run("export", "denoise", "-o", model, "--sigma", "25")
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 2
session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
x = (clean / 255).astype(np.float32)[None, None]
session.run(None, {"input": x})
theirs, ours = [], []
for _ in range(7):
    start = time.perf_counter()
    for _ in range(8):
        session.run(None, {"input": x})
    theirs.append((time.perf_counter() - start) / 8)
    ours.append((denoise("nine") - denoise("one")) / 8)
ratio = statistics.median(a / b for a, b in zip(theirs, ours))
print(f"onnxruntime {1e3 * statistics.median(theirs):.0f} ms, csae "
      f"{1e3 * statistics.median(ours):.0f} ms, ratio {ratio:.2f}")
