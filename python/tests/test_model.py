"""Files, errors, training mode and the state of models."""

from __future__ import annotations

import copy
import json
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cases import AUTOENCODERS, COLOUR, FIELD, conv, model
from safetensors.numpy import load_file
from safetensors.torch import save_file
from support import (
    MODELS,
    Program,
    configuration,
    csae,
    csae_run,
    error,
    images,
    random_model,
    tensor_of,
)

import csae.torch as ct
from csae.torch.file import hash_of, read, to_json, write

TOLERANCE = 1e-5
PHOTOGRAPHS = MODELS / "photographs.safetensors"


# ---- files ---------------------------------------------------------------------------------


def test_changed_models_are_read_by_the_program(tmp_path: Path) -> None:
    changed = ct.load(PHOTOGRAPHS)
    optimizer = torch.optim.Adam(changed.parameters(), 1e-3)
    x = torch.from_numpy(images(4, (3, 32, 32)))
    losses = []
    changed.train()
    for _ in range(5):
        optimizer.zero_grad()
        loss = ((changed(x) - x) ** 2).sum() / len(x)
        loss.backward()
        optimizer.step()
        changed.constrain()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    changed.eval()
    program, samples = Program(tmp_path, changed), images(2, (3, 40, 36))
    found = tensor_of(changed, samples)
    assert error(found, program.ask("reconstruct", samples)) <= TOLERANCE
    assert error(found, tensor_of(ct.load(PHOTOGRAPHS), samples)) > 1e-3
    lines = csae("eval", program.model, "photos", "--json").splitlines()
    assert any("psnr" in json.loads(line) for line in lines)
    # Training continues in the program, too.
    csae("train", "photos", "--from", program.model, "--steps", 1, "--batch", 4, "-q", "-o",
         tmp_path / "run")


def test_files_are_safetensors_files(tmp_path: Path) -> None:
    made = random_model(AUTOENCODERS["winners"])
    ct.save(made, tmp_path / "made.safetensors")
    tensors = load_file(tmp_path / "made.safetensors")
    assert {f"layers.{name}" for name in tensors} == set(made.state_dict())
    for name, values in tensors.items():
        assert np.array_equal(values, made.state_dict()[f"layers.{name}"].numpy())


def test_hashes_are_those_of_the_program() -> None:
    for path in MODELS.glob("*.safetensors"):
        _, tensors = read(path)
        text = path.read_bytes()[:4000].decode("utf-8", "replace")
        assert f'hash\\":\\"{hash_of(tensors)}\\"' in text


@pytest.mark.parametrize("value, text", [
    (0.0, "0.0"), (-0.0, "-0.0"), (1.0, "1.0"), (0.05, "0.05"), (1e-5, "0.00001"), (1e-6, "1e-6"),
    (1.5e-7, "1.5e-7"), (123456.75, "123456.75"), (1e15, "1000000000000000.0"), (1e16, "1e16"),
    (-2.5e300, "-2.5e300"), (0.10000000149011612, "0.10000000149011612"),
])
def test_numbers_are_written_as_by_the_program(value: float, text: str) -> None:
    assert to_json(value) == text and json.loads(text) == value


def test_numbers_of_a_model_survive_the_program(tmp_path: Path) -> None:
    slopes = [0.2, 1e-5, 1.5e-6, 0.1 + 0.2, 12345678.0]
    layers = [conv(f"a{i}", 2, activation={"kind": "leaky_relu", "slope": slope})
              for i, slope in enumerate(slopes)]
    description = model((3, 8, 8), *layers, conv("image", "input"), code="a4")
    csae("train", "photos", "--config", configuration(tmp_path, description), "--steps", 1, "--set",
         "optimizer.lr=0", "--batch", 2, "-q", "-o", tmp_path / "run")
    loaded = ct.load(tmp_path / "run")
    found = [layer["activation"]["slope"] for layer in loaded.description["layers"][:5]]
    assert found == slopes
    ct.save(loaded, tmp_path / "b.safetensors")
    written = (tmp_path / "run" / "model.safetensors").read_bytes()
    assert (tmp_path / "b.safetensors").read_bytes() == written


# ---- errors --------------------------------------------------------------------------------


def header_of(path: Path) -> tuple[dict[str, Any], bytes]:
    """The header of a safetensors file and the bytes after it."""
    data = path.read_bytes()
    (length,) = struct.unpack_from("<Q", data)
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def with_header(path: Path, header: dict[str, Any], values: bytes) -> Path:
    """A file with this header."""
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + values)
    return path


def refused(path: Path) -> str:
    """The error for a file, which the program refuses, too."""
    with pytest.raises(ct.ModelFileError) as error_info:
        ct.load(path)
    assert csae_run("inspect", path, "-o", path.parent / "out").returncode != 0
    return str(error_info.value)


def test_files_that_are_not_models_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.safetensors").write_text("no model")
    assert "not a model file" in refused(tmp_path / "text.safetensors")
    (tmp_path / "empty.safetensors").write_bytes(b"")
    assert "not a model file" in refused(tmp_path / "empty.safetensors")
    save_file({"w": torch.zeros(3)}, tmp_path / "other.safetensors")
    assert "without the architecture" in refused(tmp_path / "other.safetensors")
    (tmp_path / "cut.safetensors").write_bytes(PHOTOGRAPHS.read_bytes()[:-4])
    assert "outside of the file" in refused(tmp_path / "cut.safetensors")
    (tmp_path / "folder").mkdir()
    assert "name the folder of a run" in refused(tmp_path / "folder")


def test_damaged_and_newer_files_are_refused(tmp_path: Path) -> None:
    header, values = header_of(PHOTOGRAPHS)
    flipped = bytearray(values)
    flipped[1000] ^= 1
    damaged = with_header(tmp_path / "damaged.safetensors", header, bytes(flipped))
    assert "the file is damaged" in refused(damaged)
    inner = json.loads(header["__metadata__"]["csae"])

    def changed(**more: Any) -> Path:
        text = json.dumps({**inner, **more})
        new = {**header, "__metadata__": {"csae": text}}
        return with_header(tmp_path / "changed.safetensors", new, values)

    assert "format 2, but this version reads 1" in refused(changed(format=2))
    # A file without a hash is read.
    assert tensor_of(ct.load(changed(hash=None)), images(1, (3, 16, 16))).shape == (1, 3, 16, 16)
    layers = copy.deepcopy(inner["model"]["layers"])
    layers[1]["op"] = "fourier"
    assert "layer rectified: op 'fourier'" in refused(changed(model={**inner["model"],
                                                                     "layers": layers}))
    layers = copy.deepcopy(inner["model"]["layers"])
    layers[0]["filters"] = 64
    assert "tensor " in refused(changed(model={**inner["model"], "layers": layers}))
    layers = copy.deepcopy(inner["model"]["layers"])
    layers[1]["shape"] = 3
    assert "layer rectified: option shape" in refused(changed(model={**inner["model"],
                                                                     "layers": layers}))


@pytest.mark.parametrize("layer, words", [
    ({"name": "b", "op": "add", "from": ["a"]}, "layer b"),
    ({"name": "a", "op": "spatial_wta"}, "layer a"),
    ({"name": "b", "op": "max_unpool2d", "switches": "a"}, "layer b: switches = 'a'"),
    ({"name": "b", "op": "pixel_shuffle", "scale": 3}, "layer b: scale = 3"),
    ({"name": "b", "op": "linear"}, "layer b: set units, shape"),
    ({"name": "b", "op": "top_k", "k": 2, "per_position": 0.5}, "layer b: set either k"),
    ({"name": "b", "op": "activation", "activation": "swish"}, "layer b: activation 'swish'"),
    ({"name": "b", "op": "conv2d", "kernel": 3}, "layer b: option filters is missing"),
    ({"name": "b", "op": "known"}, "layer b: the mask"),
])
def test_layers_that_do_not_fit_are_named(layer: dict[str, Any], words: str) -> None:
    with pytest.raises(ct.ModelFileError, match=words):
        ct.Model(model(COLOUR, conv("a"), layer))


def test_arguments_that_do_not_fit_are_refused() -> None:
    fixed = random_model(AUTOENCODERS["vectors"])
    with pytest.raises(ValueError, match=r"takes \(N, 2, H, W\)"):
        fixed(torch.zeros(1, 3, 5, 7))
    with pytest.raises(ValueError, match="layer a works for 5x7 only"):
        fixed(torch.zeros(1, 2, 6, 7))
    with pytest.raises(TypeError, match=r"x.float\(\) / 255"):
        fixed(torch.zeros(1, 2, 5, 7, dtype=torch.uint8))
    with pytest.raises(ValueError, match="sigma has no effect"):
        fixed(torch.zeros(1, 2, 5, 7), sigma=25.0)
    with pytest.raises(ValueError, match="missing has no effect"):
        fixed(torch.zeros(1, 2, 5, 7), missing=torch.ones(5, 7))
    denoiser = ct.load(MODELS / "denoise.safetensors")
    with pytest.raises(ValueError, match="sigma and level exclude each other"):
        denoiser(torch.zeros(1, 1, 8, 8), sigma=25.0, level=0.1)
    with pytest.raises(ct.ModelFileError, match="no layer 'nothing'; its layers are"):
        fixed.features(torch.zeros(1, 2, 5, 7), "nothing")
    with pytest.raises(TypeError, match="takes a csae.torch.Model, not Linear"):
        ct.save(torch.nn.Linear(1, 1), "x")  # type: ignore[arg-type]


def test_values_that_are_not_finite_are_not_saved(tmp_path: Path) -> None:
    made = random_model(AUTOENCODERS["vectors"])
    with torch.no_grad():
        made.tensor("a.bias")[0] = float("nan")
    with pytest.raises(ct.ModelFileError, match="tensor a.bias is not finite"):
        ct.save(made, tmp_path / "x.safetensors")
    assert list(tmp_path.iterdir()) == []


# ---- modules -------------------------------------------------------------------------------


def test_state_dicts_have_the_names_of_the_file() -> None:
    loaded = ct.load(PHOTOGRAPHS)
    names = set(load_file(PHOTOGRAPHS))
    assert set(loaded.state_dict()) == {f"layers.{name}" for name in names}
    other = ct.Model(loaded.description)
    other.load_state_dict(loaded.state_dict())
    x = images(1, (3, 16, 16))
    assert np.array_equal(tensor_of(other.eval(), x), tensor_of(loaded, x))
    for again in (copy.deepcopy(loaded), pickle.loads(pickle.dumps(loaded))):
        assert np.array_equal(tensor_of(again, x), tensor_of(loaded, x))


def test_modules_work_with_the_tools_of_pytorch() -> None:
    loaded, x = ct.load(PHOTOGRAPHS), torch.from_numpy(images(2, (3, 16, 16)))
    # Functional calls replace parameters.
    zeros = {name: torch.zeros_like(p) for name, p in loaded.named_parameters()}
    with torch.no_grad():
        y = torch.func.functional_call(loaded, zeros, (x,))
        assert torch.allclose(y, x.mean((2, 3), keepdim=True).expand_as(y), atol=1e-6)
        # Hooks see the output of a layer.
        seen = []
        loaded.get_submodule("layers.code").register_forward_hook(
            lambda module, inputs, output: seen.append(output)
        )
        assert torch.equal(loaded.encode(x), seen[0])
        assert loaded.double()(x.double()).dtype == torch.float64
        assert loaded.bfloat16()(x.bfloat16()).dtype == torch.bfloat16


def test_decoding_codes_is_the_second_half_of_a_pass() -> None:
    for name, needs_images in (("winners", True), ("vectors", False)):
        made = random_model(AUTOENCODERS[name])
        x = torch.from_numpy(images(3, made.input_size))
        with torch.no_grad():
            y, code = made(x, return_code=True)
            assert torch.equal(made.encode(x), code)
            assert error(made.decode(code, x), y) <= 1e-6
            if needs_images:
                with pytest.raises(ValueError, match="also reads .*pool.*given"):
                    made.decode(code)
            else:
                assert error(made.decode(code), y) <= 1e-6
    signals = random_model(model((2, 1, 16), {"name": "a", "op": "conv1d", "filters": 2,
                                              "kernel": 3, "padding": "same"}, code="a"))
    x = torch.from_numpy(images(3, (2, 1, 16))[:, :, 0])
    with torch.no_grad():
        assert signals(x).shape == x.shape
        assert torch.equal(signals.decode(signals.encode(x)), signals(x))
        assert torch.equal(signals(x.unsqueeze(2)).squeeze(2), signals(x))


def test_a_normalization_is_a_part_of_the_model(tmp_path: Path) -> None:
    fields = 40.0 * images(12, (4, 16, 16)) - np.float32(7.0)
    np.save(tmp_path / "fields.npy", fields)
    csae("train", tmp_path / "fields.npy", "--layout", "NCHW", "--preset", "plain", "--set",
         "data.crop=16", "--steps", 3, "--batch", 4, "-q", "-o", tmp_path / "run")
    loaded = ct.load(tmp_path / "run")
    assert loaded.description["normalization"]["offset"]
    program = Program(tmp_path, tmp_path / "run" / "model.safetensors")
    found = tensor_of(loaded, fields)
    assert error(found, program.ask("reconstruct", fields)) <= TOLERANCE
    assert error(tensor_of(loaded.encode, fields), program.ask("features", fields)) <= TOLERANCE
    x = torch.from_numpy(fields)
    assert error(loaded.denormalize(loaded.normalize(x)), x) <= 1e-6
    ct.save(loaded, tmp_path / "copy.safetensors")
    assert (tmp_path / "copy.safetensors").read_bytes() == program.model.read_bytes()


# ---- training mode -------------------------------------------------------------------------


def test_layers_for_training_act_only_in_training() -> None:
    torch.manual_seed(0)
    x = torch.from_numpy(images(10, FIELD)) + 0.1
    dropout = random_model(model(FIELD, {"name": "a", "op": "dropout", "p": 0.4}))
    assert torch.equal(dropout(x), x)
    y = dropout.train()(x)
    kept = y != 0
    assert abs(kept.float().mean() - 0.6) < 0.05 and torch.allclose(y[kept], x[kept] / 0.6)
    wins = random_model(model(FIELD, {"name": "a", "op": "lifetime_wta", "rate": 0.21}))
    assert torch.equal(wins(x), x)
    kept = (wins.train()(x) != 0).flatten(2).all(2)
    assert kept.sum(0).tolist() == [3] * FIELD[0]
    sums = x.sum((2, 3))
    assert all(sums[kept[:, c], c].min() >= sums[~kept[:, c], c].max() for c in range(FIELD[0]))


def test_batch_top_k_moves_its_threshold_in_training() -> None:
    made = random_model(model((1, 1, 4), {"name": "a", "op": "batch_top_k", "k": 2, "rate": 0.25}))
    threshold = made.tensor("a.threshold")
    threshold.zero_()
    x = torch.tensor([[[[4.0, 3.0, 2.0, -1.0]]], [[[8.0, 6.0, 5.0, 7.0]]]])
    made.train()
    assert made(x).flatten().tolist() == [0, 0, 0, 0, 8, 6, 5, 7]
    assert threshold.item() == 5.0
    made(x[:1] * 3.0)
    assert threshold.item() == 5.0 + 0.25 * (9.0 - 5.0)
    made(-x.abs())
    assert threshold.item() == 6.0
    assert made.eval()(x).flatten().tolist() == [0, 0, 0, 0, 8, 6, 0, 7]


def test_ties_go_to_the_lowest_index() -> None:
    x = torch.tensor([[[[1.0, 2.0], [2.0, 2.0]], [[2.0, 1.0], [0.0, 0.0]]]])
    for options, kept in (
        ({"op": "top_k", "k": 2}, [0, 2, 2, 0, 0, 0, 0, 0]),
        ({"op": "spatial_wta"}, [0, 2, 0, 0, 2, 0, 0, 0]),
    ):
        made = random_model(model((2, 2, 2), {"name": "a", **options}))
        assert made(x).flatten().tolist() == kept


def test_frozen_and_fixed_tensors_are_not_learned() -> None:
    frozen = random_model(AUTOENCODERS["frozen"])
    assert [n for n, p in frozen.named_parameters() if not p.requires_grad] == [
        "layers.a.weight", "layers.a.bias"]
    prepared = random_model(AUTOENCODERS["prepared"])
    assert {n for n, _ in prepared.named_buffers() if n.startswith("layers.")} == {
        f"layers.white.{part}" for part in ("weight", "shift", "scale")}


def test_large_images_are_encoded_as_a_whole(tmp_path: Path) -> None:
    """The program cuts them into tiles, which overlap so that their borders do not matter."""
    loaded, x = ct.load(MODELS / "paint-1.safetensors"), images(1, (3, 90, 620))
    wanted = Program(tmp_path, Path("paint-1")).ask("reconstruct", x)
    assert error(tensor_of(loaded, x), wanted) <= TOLERANCE


def test_writing_replaces_a_file_at_once(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_text("old")
    with pytest.raises(TypeError):
        write(path, {"bad": object()}, {})
    assert path.read_text() == "old" and len(list(tmp_path.iterdir())) == 1
    ct.save(random_model(AUTOENCODERS["frozen"]), path)
    (tmp_path / "other").touch()
    assert path.stat().st_mode == (tmp_path / "other").stat().st_mode
