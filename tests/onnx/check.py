"""Checks ONNX files and compares what onnxruntime computes with stored arrays.

Reads a case of JSON from each line of standard input:
  model   the ONNX file
  inputs  for each input a .npy file, or a list of numbers
  want    the .npy file of the output
Arrays of signals (N,C,L) are images of one row.
Writes a line of JSON for each: `error`, the largest difference from the stored array divided by its
largest value, over the whole batch; `alone`, the same for the first sample as a batch of one; or
`fault`, what is wrong.
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


def run(case):
    check(case["model"])
    model = session(case["model"])
    inputs = {name: rows(np.load(value)) if isinstance(value, str) else np.array(value, np.float32)
              for name, value in case["inputs"].items()}
    want = rows(np.load(case["want"]))
    names = [one.name for one in model.get_inputs()]
    assert names == list(inputs), f"inputs {names} instead of {list(inputs)}"
    (got,) = model.run(None, inputs)
    (alone,) = model.run(None, {name: value[:1] for name, value in inputs.items()})
    return {"error": difference(got, want), "alone": difference(alone, want[:1])}


for line in sys.stdin:
    try:
        answer = run(json.loads(line))
    except Exception as error:
        answer = {"fault": f"{type(error).__name__}: {error}"}
    print(json.dumps(answer), flush=True)
