"""Checks ONNX files and compares what onnxruntime computes with stored arrays.

Reads a case of JSON from each line of standard input:
  model   the ONNX file
  inputs  for each input a .npy file, or a list of numbers
  want    the .npy file of each output
Arrays of signals (N,C,L) are images of one row.
Writes a line of JSON for each:
  error   the largest difference from the stored arrays divided by the largest value of an array
  alone   the same for the first sample as a batch of one
  scale   the factor by which programs see that the model enlarges images, or null
  fault   instead of these, what is wrong
"""

import json
import sys

import numpy as np
import onnx
import onnxruntime


def rows(array):
    return array[:, :, None, :] if array.ndim == 3 else array


def check(path):
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    assert model.ir_version == 8 and model.opset_import[0].version == 17, "another version"


def scale(path):
    """The factor by which a model enlarges images, as image programs find it: from the shape of its
    output for inputs of fixed sizes, without running it. None if they do not find it.
    """
    factors = {factor for side in (16, 64, 256) for factor in factors_at(path, side)}
    return factors.pop() or None if len(factors) == 1 else None


def factors_at(path, side):
    """The factors of height and width for square images. 0 where they are not known."""
    model = onnx.load(path)
    given = model.graph.input[0].type.tensor_type.shape.dim
    if len(given) != 4:
        return [0]
    for axis, size in ((0, 1), (2, side), (3, side)):
        if given[axis].HasField("dim_param"):
            given[axis].dim_value = size
    model = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    found = model.graph.output[0].type.tensor_type.shape.dim
    if len(found) != 4:
        return [0]
    return [found[axis].dim_value / given[axis].dim_value for axis in (2, 3)]


def session(path):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def difference(got, want):
    if got.shape != want.shape:
        raise AssertionError(f"shape {got.shape} instead of {want.shape}")
    if not np.isfinite(got).all():
        raise AssertionError("values that are not finite")
    return float(np.abs(got.astype(np.float64) - want).max() / max(np.abs(want).max(), 1e-30))


def first_sample(array, output):
    # Rows of detections begin with the number of the sample.
    return array[:1] if output.shape[0] == "batch_size" else array[array[:, 0] == 0]


def run(case):
    check(case["model"])
    model = session(case["model"])
    inputs = {name: rows(np.load(value)) if isinstance(value, str) else np.array(value, np.float32)
              for name, value in case["inputs"].items()}
    wants = [rows(np.load(path)) for path in case["want"]]
    names = [one.name for one in model.get_inputs()]
    assert names == list(inputs), f"inputs {names} instead of {list(inputs)}"
    all_samples = model.run(None, inputs)
    first = model.run(None, {name: value[:1] for name, value in inputs.items()})
    assert len(all_samples) == len(wants), f"{len(all_samples)} outputs instead of {len(wants)}"
    return {"scale": scale(case["model"]),
            "error": max(map(difference, all_samples, wants)),
            "alone": max(map(difference, first, map(first_sample, wants, model.get_outputs())))}


for line in sys.stdin:
    try:
        answer = run(json.loads(line))
    except Exception as error:
        answer = {"fault": f"{type(error).__name__}: {error}"}
    print(json.dumps(answer), flush=True)
