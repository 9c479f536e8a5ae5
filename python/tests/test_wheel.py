"""Models of the wheel: equal to the program, with arrays and errors as Python has them."""

from __future__ import annotations

import copy
import importlib.util
import os
import pickle
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import png
import pytest
from wheel import pictures, program, run

if importlib.util.find_spec("csae._csae") is None:
    pytest.skip("the wheel is not installed", allow_module_level=True)

import csae


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of gray images of 16×16 with a flat code."""
    folder = tmp_path_factory.mktemp("trained")
    np.save(folder / "x.npy", pictures(40, 1, 16, 16))
    program(
        "train", folder / "x.npy", "--layout", "NCHW", "--preset", "sparse", "--steps", 20,
        "--device", "cpu", "-q", "-o", folder / "run",
    )
    return folder / "run"


def answer(
    folder: Path, command: str, model: object, x: np.ndarray, *options: object
) -> np.ndarray:
    """The program's output for an array (N, C, H, W)."""
    np.save(folder / "in.npy", x)
    program(
        command, model, folder / "in.npy", "-o", folder / "out.npy", "--force", "--layout", "NCHW",
        "--device", "cpu", *options,
    )
    return np.load(folder / "out.npy")


@pytest.mark.parametrize("kind", [np.float32, np.uint8, np.uint16])
def test_features_and_reconstructions_are_the_programs(
    trained: Path, tmp_path: Path, kind: type
) -> None:
    x = pictures(7, 1, 16, 16, 1)
    x = x if kind == np.float32 else (x * np.iinfo(kind).max).astype(kind)
    model = csae.load(trained, "cpu")
    assert model.input_shape == (1, 16, 16) and model.code_shape == (128,)
    codes = model.encode(x)
    assert codes.dtype == np.float32 and codes.shape == (7, 128) and codes.flags.c_contiguous
    np.testing.assert_array_equal(codes, answer(tmp_path, "features", trained, x))
    np.testing.assert_array_equal(model.features(x), codes)
    layer = next(iter(model.layers))
    maps = answer(tmp_path, "features", trained, x, "--layer", layer)
    np.testing.assert_array_equal(model.features(x, layer), maps)
    assert maps.shape[1:] == model.layers[layer]
    y = model.reconstruct(x)
    np.testing.assert_array_equal(model.decode(codes), y)
    wanted = answer(tmp_path, "reconstruct", trained, x)
    if kind != np.float32:
        # The program writes the type of the samples.
        y = np.floor(y.clip(0.0, 1.0) * np.float32(np.iinfo(kind).max) + 0.5).astype(kind)
    np.testing.assert_array_equal(y, wanted)
    # The comparison can fail.
    assert (model.encode(x[::-1]) != codes).any()


@pytest.mark.parametrize("colour", [False, True])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_restored_images_are_the_programs(tmp_path: Path, colour: bool, kind: type) -> None:
    image = np.moveaxis(pictures(1, 3, 40, 52)[0], 0, 2)
    image = image if colour else image[..., 0]
    image = (image * np.iinfo(kind).max).astype(kind)
    png.write(tmp_path / "in.png", image)
    mask = np.zeros(image.shape[:2], bool)
    mask[10:14, 5:30] = True
    png.write(tmp_path / "mask.png", (mask * 255).astype(np.uint8))
    for command, options, found in (
        ("denoise", (), csae.denoise(image, device="cpu")),
        ("denoise", ("--sigma", 15), csae.denoise(image, 15, device="cpu")),
        ("inpaint", ("--mask", tmp_path / "mask.png"), csae.inpaint(image, mask, device="cpu")),
        ("upscale", ("--scale", 3), csae.upscale(image, 3, device="cpu")),
    ):
        program(command, tmp_path / "in.png", "-o", tmp_path / "out.png", "--force", "--device",
                "cpu", *options)
        wanted = png.read(tmp_path / "out.png")
        assert found.dtype == kind and found.flags.c_contiguous
        np.testing.assert_array_equal(found, wanted, err_msg=command)
    np.testing.assert_array_equal(csae.inpaint(image, mask, device="cpu")[~mask], image[~mask])


@pytest.mark.parametrize("colour", [False, True])
def test_artefacts_of_jpeg_are_removed_as_by_the_program(tmp_path: Path, colour: bool) -> None:
    image = np.moveaxis(pictures(1, 3, 40, 52)[0], 0, 2)
    image = ((image if colour else image[..., 0]) * 255).astype(np.uint8)
    png.write(tmp_path / "in.png", image)
    program(
        "deblock", tmp_path / "in.png", "--jpeg-quality", 30, "-o", tmp_path / "out.png",
        "--device", "cpu",
    )
    model = csae.load("dejpeg", "cpu")
    found = csae.deblock(image, 30, device="cpu")
    np.testing.assert_array_equal(found, png.read(tmp_path / "out.png"))
    assert (model.deblock(image, 60) != found).any()
    for quality in (0, 101, 2.5, True):
        with pytest.raises(ValueError, match="quality"):
            model.deblock(image, quality)
    with pytest.raises(ValueError, match="trained"):
        csae.load("denoise", "cpu").deblock(image, 30)


def test_a_run_and_a_model_file_are_one_model(trained: Path, tmp_path: Path) -> None:
    x = pictures(3, 1, 16, 16, 2)
    model = csae.load(str(trained), device="cpu")
    model.save(tmp_path / "copy.safetensors")
    bytes_ = (trained / "model.safetensors").read_bytes()
    assert (tmp_path / "copy.safetensors").read_bytes() == bytes_ == model.to_bytes()
    wanted = model.encode(x)
    for other in (
        csae.load(tmp_path / "copy.safetensors", "cpu"),
        pickle.loads(pickle.dumps(model)),
        copy.deepcopy(model),
    ):
        np.testing.assert_array_equal(other.encode(x), wanted)
    assert "cpu" in repr(model) and "[model]" in model.description


def test_whatever_numpy_takes(trained: Path) -> None:
    model = csae.load(trained, "cpu")
    x = pictures(2, 1, 16, 16, 3)
    wanted = model.encode(x)
    wide = np.zeros((2, 1, 32, 48), np.float32)
    wide[:, :, ::2, ::3] = x
    for same in (
        x.tolist(), x.astype(np.float64), x.astype(">f4"), wide[:, :, ::2, ::3],
        np.asfortranarray(x),
    ):
        np.testing.assert_array_equal(model.encode(same), wanted)
    np.testing.assert_array_equal(model.encode(x[0, 0]), wanted[:1])
    np.testing.assert_array_equal(model.encode(x[0, 0, :, :, None]), wanted[:1])
    assert model.reconstruct(x[0, 0]).shape == (16, 16)
    assert model.reconstruct(x[0, 0, :, :, None]).shape == (16, 16, 1)
    half = (x > 0.5)
    np.testing.assert_array_equal(model.encode(half), model.encode(half.astype(np.float32)))
    # Results are writable and nobody else's.
    y = model.reconstruct(x)
    y[:] = 0.0
    before = x.copy()
    model.reconstruct(x)
    np.testing.assert_array_equal(x, before)


@pytest.mark.parametrize("kind", ["uint8", "uint16", ">u2", "float16", "float32", "float64"])
def test_restorers_keep_type_and_layout(kind: str) -> None:
    gray = pictures(1, 1, 20, 24)[0, 0]
    scale = np.iinfo(kind).max if np.dtype(kind).kind == "u" else 1
    image = (gray * scale).astype(kind)
    rgb = np.repeat(image[:, :, None], 3, axis=2)
    for one in (image, image[:, :, None], rgb, rgb.transpose(2, 0, 1)[None], image[None, None]):
        before = one.copy()
        clean = csae.denoise(one, 10.0, device="cpu")
        assert clean.dtype == np.dtype(kind).newbyteorder("=") and clean.shape == one.shape
        np.testing.assert_array_equal(one, before)
        assert (clean != one).any()
    assert csae.upscale(rgb, 2, device="cpu").shape == (40, 48, 3)
    many = np.stack([image, image.T.copy().reshape(20, 24)])[:, None]
    both = csae.denoise(many, 10.0, device="cpu")
    np.testing.assert_array_equal(both[1, 0], csae.denoise(many[1, 0], 10.0, device="cpu"))
    if np.dtype(kind).kind == "f":
        holes = image.copy()
        holes[3:6, 4:9] = np.nan
        filled = csae.inpaint(holes, device="cpu")
        known = ~np.isnan(holes)
        np.testing.assert_array_equal(filled[known], holes[known])
        assert np.isfinite(filled).all()
        np.testing.assert_array_equal(filled, csae.inpaint(image, np.isnan(holes), device="cpu"))


def test_a_bundled_model_encodes_photographs() -> None:
    photo = np.moveaxis(pictures(1, 3, 64, 80)[0], 0, 2)
    codes = csae.encode(photo, device="cpu")
    assert codes.ndim == 4 and len(codes) == 1
    with pytest.raises(ValueError, match="reconstruct"):
        csae.decode(codes, "photographs", device="cpu")
    maps = csae.encode(photo, "paint-1", device="cpu")
    assert csae.decode(maps, "paint-1", device="cpu").shape == (1, 3, 64, 80)
    assert csae.reconstruct(photo, device="cpu").shape == photo.shape
    assert csae.features(photo, device="cpu").shape == codes.shape
    assert "photographs" in csae.bundled_models() and "sparse" in csae.presets()
    assert "[model]" in csae.preset("sparse")
    assert all(isinstance(name, str) for name in csae.devices())


def test_wrong_arrays_are_errors_that_name_the_shape(trained: Path) -> None:
    model = csae.load(trained, "cpu")
    x = pictures(2, 1, 16, 16)
    for wrong, error, words in (
        (x[:, 0], ValueError, r"\(N, 1, H, W\).*x\[:, None\]"),
        (np.repeat(x, 3, axis=1), ValueError, r"shape \(2, 3, 16, 16\).*\(N, 1, H, W\)"),
        (x.transpose(0, 2, 3, 1), ValueError, "moveaxis"),
        (x[0, 0, 0], ValueError, r"\(H, W\)"),
        (x[:0], ValueError, "empty"),
        (pictures(2, 1, 24, 16), ValueError, "16x16"),
        (x.astype(np.int64), TypeError, "uint8"),
        (x.astype(complex), TypeError, "complex"),
        (np.array([["a"]]), TypeError, "real numbers"),
        (None, TypeError, "real numbers"),
        ([[0.1], [0.2, 0.3]], TypeError, "array"),
        (np.where(x > 0.5, np.nan, x), ValueError, "NaN"),
        (x.astype(np.float64) * 1e300, ValueError, "float32"),
    ):
        with pytest.raises(error, match=words):
            model.encode(wrong)
    with pytest.raises(ValueError, match=r"\(N, 128\)"):
        model.decode(np.zeros((2, 127)))
    with pytest.raises(ValueError, match="layer"):
        model.features(x, "no-such-layer")
    with pytest.raises(ValueError, match="noise|denoise"):
        model.denoise(x[0, 0])


def test_wrong_images_are_errors() -> None:
    gray = pictures(1, 1, 20, 24)[0, 0]
    for wrong, error, words in (
        (np.zeros((20, 24, 4), np.uint8), ValueError, r"x\[\.\.\., :3\]"),
        (np.zeros((3, 20, 24), np.uint8), ValueError, r"x\[None\]"),
        (np.zeros((1, 20, 24, 3), np.uint8), ValueError, "moveaxis"),
        (np.zeros(20), ValueError, r"\(H, W, 3\)"),
        (gray * 255, ValueError, "255"),
        (gray > 0.5, TypeError, "bool"),
        (gray.astype(np.int32), TypeError, "int32"),
        (np.full((20, 24), np.nan), ValueError, "NaN"),
    ):
        with pytest.raises(error, match=words):
            csae.denoise(wrong, device="cpu")
    with pytest.raises(ValueError, match="0 to 255"):
        csae.denoise(gray, -1, device="cpu")
    with pytest.raises(TypeError, match="sigma"):
        csae.denoise(gray, "strong", device="cpu")
    with pytest.raises(ValueError, match=r"\(20, 24\)"):
        csae.inpaint(gray, np.zeros((24, 20)), device="cpu")
    with pytest.raises(ValueError, match="missing"):
        csae.inpaint(gray, np.ones((20, 24)), device="cpu")
    with pytest.raises(ValueError, match="pass a mask"):
        csae.inpaint((gray * 255).astype(np.uint8), device="cpu")
    for scale in (0, 2.5, 7, True):
        with pytest.raises(ValueError, match="scale"):
            csae.upscale(gray, scale, device="cpu")


def test_wrong_files_and_devices_are_errors(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="photographs") as missing:
        csae.load(tmp_path / "none.safetensors")
    assert missing.value.filename == str(tmp_path / "none.safetensors")
    (tmp_path / "text.safetensors").write_text("no model")
    with pytest.raises(ValueError, match="not a model"):
        csae.load(tmp_path / "text.safetensors")
    with pytest.raises(ValueError, match="model.safetensors"):
        csae.load(tmp_path)
    with pytest.raises(RuntimeError, match="no-such-card"):
        csae.load("denoise", "no-such-card")
    with pytest.raises(TypeError):
        csae.load(7)
    with pytest.raises(ValueError, match="device"):
        csae.denoise(pictures(1, 1, 20, 20)[0, 0], model=csae.load("denoise", "cpu"), device="cpu")
    with pytest.raises(FileNotFoundError, match="folder"):
        csae.load("denoise", "cpu").save(tmp_path / "none" / "x.safetensors")


def test_the_gpu_is_required_only_where_asked(tmp_path: Path) -> None:
    """Without a driver of a GPU, `auto` is the CPU path and `gpu` an error."""
    code = (
        "import csae\n"
        "assert csae.load('denoise').device.startswith('cpu')\n"
        "try: csae.load('denoise', 'gpu')\n"
        "except RuntimeError as error: print(error)\n"
    )
    none = str(tmp_path / "none.json")
    hidden = {"VK_DRIVER_FILES": none, "VK_ICD_FILENAMES": none, "XDG_RUNTIME_DIR": "/tmp",
              "LIBGL_DRIVERS_PATH": none, "__EGL_VENDOR_LIBRARY_FILENAMES": none}
    if sys.platform != "linux":
        pytest.skip("drivers are hidden by variables of Linux")
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **hidden}, capture_output=True, text=True
    )
    assert done.returncode == 0 and "GPU" in done.stdout, done


def test_threads_share_a_model() -> None:
    model = csae.load("denoise", "cpu")
    images = [(pictures(1, 1, 24, 24, seed)[0, 0]) for seed in range(4)]
    wanted = [model.denoise(image) for image in images]
    found: list[np.ndarray | None] = [None] * 4

    def work(i: int) -> None:
        found[i] = model.denoise(images[i])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_a_forked_process_gets_an_error_instead_of_waiting() -> None:
    code = (
        "import os, sys, csae, numpy as np\n"
        "csae.denoise(np.full((20, 20), 0.5), 10, device='cpu')\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    try: csae.denoise(np.full((20, 20), 0.5), 10, device='cpu')\n"
        "    except RuntimeError as error: os._exit(7 if 'spawn' in str(error) else 1)\n"
        "    os._exit(1)\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], timeout=60, capture_output=True, text=True)
    assert done.returncode == 7, done


def test_a_gpu_adapter_agrees_with_the_cpu() -> None:
    device = os.environ.get("CSAE_DEVICE")
    if os.environ.get("CSAE_GPU") != "require" or not device:
        pytest.skip("no adapter is named: CSAE_GPU=require CSAE_DEVICE=NAME")
    image = pictures(1, 1, 40, 40)[0, 0]
    found = csae.denoise(image, 20, device=device)
    np.testing.assert_allclose(found, csae.denoise(image, 20, device="cpu"), atol=2e-5)
    assert run("devices").returncode == 0
