"""The page of the guide about model files: its lines run, and it names every layer and tensor."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import numpy as np
import pytest
from cases import CASES
from safetensors.numpy import load_file
from support import ROOT, csae, error, images, random_model

import csae.torch as ct
from csae.torch.description import OPERATIONS, SIGNAL_LAYERS
from csae.torch.file import hash_of

PAGE = (ROOT / "src" / "guide" / "model-file.md").read_text(encoding="utf-8")
TOLERANCE = 1e-5


def blocks() -> list[str]:
    """The lines of Python on the page."""
    return re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def run_page(folder: Path, monkeypatch: pytest.MonkeyPatch, lines: str) -> dict[str, object]:
    """Runs lines in a folder, and returns their variables."""
    monkeypatch.chdir(folder)
    names: dict[str, object] = {}
    exec(compile(lines, "model-file.md", "exec"), names)
    return names


@pytest.mark.parametrize("preset", ["plain", "pyramid"])
def test_the_lines_encode_as_the_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, preset: str
) -> None:
    csae("train", "photos", "--preset", preset, "--steps", 2, "--batch", 4, "-q", "-o",
         tmp_path / "runs" / "mine")
    np.save(tmp_path / "images.npy", images(3, (3, 40, 56)))
    csae("features", tmp_path / "runs" / "mine", tmp_path / "images.npy", "-o",
         tmp_path / "features.npy")
    wanted = np.load(tmp_path / "features.npy")
    lines = "".join(blocks())
    assert error(run_page(tmp_path, monkeypatch, lines)["x"], wanted) <= TOLERANCE
    # The comparison can fail.
    wrong = run_page(tmp_path, monkeypatch, lines.replace("(x, 0)", "(x, 1e-3)"))["x"]
    assert error(wrong, wanted) > TOLERANCE


def test_the_lines_read_every_tensor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "runs" / "mine"
    folder.mkdir(parents=True)
    for case in ("lista", "whiten", "linear/shared", "batch_top_k"):
        made = random_model(CASES[case])
        ct.save(made, folder / "model.safetensors")
        names = run_page(tmp_path, monkeypatch, blocks()[0])
        assert names["model"] == made.description
        weights = names["weights"]
        for name, values in load_file(folder / "model.safetensors").items():
            assert np.array_equal(weights.pop(name), values)
        assert not weights


def test_every_layer_is_described() -> None:
    for name in (*OPERATIONS, "lista", *(f"{layer}1d" for layer in SIGNAL_LAYERS)):
        plain = name in ("conv2d", "max_pool2d", "avg_pool2d", "upsample_nearest2d")
        assert f"`{name}`" in PAGE or plain, name


def test_every_tensor_has_the_shape_of_the_page() -> None:
    """The table of tensors against those of a small model of each layer."""
    table = PAGE.split("## Tensors")[1].split("## ")[0]
    for case in CASES.values():
        made = random_model(case)
        for layer in made.description["layers"]:
            op = re.sub("1d$", "2d", layer["op"])
            row = next((line for line in table.splitlines() if line.startswith(f"| `{op}`")), "")
            found = [spec for one in made._plan.layers for spec in one.tensors.values()
                     if spec.name.startswith(layer["name"] + ".")]
            for spec in found:
                # Of names within layers of other names, such as a.b of a, only the end counts.
                pattern = re.sub(r"\.\d+\.", ".i.", spec.name.removeprefix(layer["name"]))
                if f"`N{pattern}`" not in row:
                    assert any(other["name"] != layer["name"]
                               and spec.name.startswith(other["name"])
                               for other in made.description["layers"]), spec.name
                    continue
                axes = re.search(rf"`N{re.escape(pattern)}` \(([^)]*)\)", row)
                assert axes and axes[1].count(",") + 1 == len(spec.shape), spec.name


def test_the_hash_is_that_of_the_page() -> None:
    """The hash by the words of the page, written again."""
    tensors = {"b": np.arange(3, dtype=np.float32), "a": np.ones((1, 2), dtype=np.float32)}
    state = 0xCBF29CE484222325
    for name in ("a", "b"):
        sizes = b"".join(size.to_bytes(8, "little") for size in tensors[name].shape)
        for part in (name.encode(), sizes, tensors[name].tobytes()):
            padded = part + bytes(8 - len(part) % 8)
            words = [padded[i : i + 8] for i in range(0, len(padded), 8)]
            for word in (*words, len(part).to_bytes(8, "little")):
                state = ((state ^ int.from_bytes(word, "little")) * (2**40 + 0x1B3)) % 2**64
                state ^= state >> 32
    assert hash_of(tensors) == f"{state:016x}"


def test_a_model_of_spectrograms_warns_that_it_takes_no_recordings(tmp_path: Path) -> None:
    description = next(iter(CASES.values()))
    path = tmp_path / "model.safetensors"
    ct.save(random_model(description), path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ct.load(path)
    ct.save(random_model({**description, "spectrogram": {"rate": 16000}}), path)
    with pytest.warns(UserWarning, match="spectrograms in dB, not recordings.*'rate': 16000"):
        ct.load(path)
