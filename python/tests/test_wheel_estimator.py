"""`csae.Autoencoder` as an estimator of scikit-learn."""

from __future__ import annotations

import importlib.util
import pickle
import subprocess
import sys
from pathlib import Path
from unittest import SkipTest

import numpy as np
import pytest
from wheel import pictures, program

if importlib.util.find_spec("csae._csae") is None:
    pytest.skip("the wheel is not installed", allow_module_level=True)
sklearn = pytest.importorskip("sklearn", minversion="1.6")

from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import estimator_checks_generator

import csae


def quick(n_components: int | None = 4, **parameters: object) -> csae.Autoencoder:
    """An estimator that trains in an instant."""
    return csae.Autoencoder(n_components, **{"epochs": 2, "device": "cpu", **parameters})


#: Checks of scikit-learn that cannot pass, with the reasons.
EXPECTED_FAILURES: dict[str, str] = {}


def test_the_checks_of_scikit_learn() -> None:
    failures, skipped, passed = [], [], 0
    for estimator, check in estimator_checks_generator(quick()):
        name = check.func.__name__
        try:
            check(estimator)
            passed += 1
            assert name not in EXPECTED_FAILURES, f"{name} passes: remove it from the list"
        except SkipTest:
            skipped.append(name)
        except Exception as error:
            if name not in EXPECTED_FAILURES:
                failures.append(f"{name}: {type(error).__name__}: {error}")
    assert not failures, "\n".join(failures)
    # scikit-learn skips what needs other packages (pandas, array libraries).
    assert passed > 40 and len(skipped) < 6, skipped


def digits() -> tuple[np.ndarray, np.ndarray]:
    return load_digits(return_X_y=True)


def test_codes_of_digits_are_sparse_and_reconstruct() -> None:
    x, y = digits()
    model = csae.Autoencoder(32, epochs=30, random_state=0, device="cpu").fit(x)
    codes = model.transform(x)
    assert codes.shape == (len(x), 32) and codes.dtype == np.float32 and (codes >= 0).all()
    assert (codes == 0).mean() > 0.5
    assert model.score(x) > 0.6
    found = model.inverse_transform(codes)
    assert found.shape == x.shape and found.dtype == np.float32
    np.testing.assert_array_equal(found, model.reconstruct(x))
    assert model.report_["steps"] == 30 * 28 and not model.report_["stopped"]
    # An untrained model explains less: the score can fail.
    assert quick(32, random_state=0).fit(x[:64]).score(x) < model.score(x) - 0.1
    named = clone(model).set_params(n_active=6, alpha=None).fit(x)
    assert ((named.transform(x) != 0).sum(axis=1) <= 6).all()
    assert named.get_feature_names_out()[0] == "autoencoder0"


def test_pipelines_and_grids() -> None:
    x, y = digits()
    pipeline = make_pipeline(
        csae.Autoencoder(48, epochs=15, random_state=0, device="cpu"),
        LogisticRegression(max_iter=500),
    ).fit(x[:900], y[:900])
    assert pipeline.score(x[900:], y[900:]) > 0.8
    grid = GridSearchCV(
        quick(epochs=30, random_state=0),
        {"n_components": [2, 24], "alpha": [0.1]},
        cv=2,
        n_jobs=2,
    ).fit(x[:300])
    assert grid.best_params_["n_components"] == 24
    assert grid.best_estimator_.transform(x[:3]).shape == (3, 24)


def test_images_use_presets() -> None:
    x = pictures(60, 1, 16, 16)
    flat = quick(24, random_state=1).fit(x)
    assert flat.transform(x).shape == (60, 24) and flat.n_features_in_ == 1
    assert flat.inverse_transform(flat.transform(x)).shape == x.shape
    assert np.isfinite(flat.score(x))
    top = quick(24, preset="top-k", n_active=3, random_state=1).fit(x)
    assert ((top.transform(x) != 0).sum(axis=1) <= 3).all()
    maps = quick(None, preset="paint-1", random_state=1).fit(np.repeat(x, 3, axis=1))
    assert maps.transform(np.repeat(x, 3, axis=1)).shape == (60, 32 * 16 * 16)
    own = quick(None, preset=csae.preset("sparse"), settings={"optimizer.kind": "sgd"})
    assert own.fit((x * 255).astype(np.uint8)).transform(x).shape == (60, 128)
    with pytest.raises(ValueError, match=r"\(N, 1, 16, 16\)"):
        flat.transform(pictures(2, 1, 20, 16))


def test_every_preset_has_a_key_for_its_units() -> None:
    from csae._autoencoder import units_key

    for name in csae.presets():
        key = units_key(csae.preset(name))
        assert key.startswith("model.layers.") and key.endswith((".units", ".filters")), name


def test_a_seed_gives_the_programs_model(tmp_path: Path) -> None:
    """The same samples, description, seed and device make the same bytes."""
    x = pictures(48, 1, 16, 16)
    np.save(tmp_path / "x.npy", x)
    program(
        "train", tmp_path / "x.npy", "--layout", "NCHW", "--preset", "sparse", "--epochs", 2,
        "--batch", 16, "--seed", 5, "--device", "cpu", "-q", "-o", tmp_path / "run",
    )
    one = quick(None, batch_size=16, random_state=5).fit(x)
    assert one.model_.to_bytes() == (tmp_path / "run" / "model.safetensors").read_bytes()
    other = quick(None, batch_size=16, random_state=6).fit(x)
    assert other.model_.to_bytes() != one.model_.to_bytes()


def test_pickles_and_clones() -> None:
    x, _ = digits()
    model = quick(random_state=0).fit(x[:100])
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.transform(x), model.transform(x))
    with pytest.raises(NotFittedError):
        clone(model).transform(x)
    assert clone(model).get_params() == model.get_params()


def test_callbacks_see_progress_and_stop() -> None:
    x, _ = digits()
    seen: list[csae.Progress] = []
    quick(epochs=3, random_state=0).fit(x, callback=seen.append)
    # 28 whole batches of 64 in an epoch; the samples that remain differ from epoch to epoch.
    assert [progress.step for progress in seen] == [28, 56, 84]
    assert [progress.epoch for progress in seen] == [1.0, 2.0, 3.0] and seen[0].total == 84
    assert seen[-1].loss < seen[0].loss and seen[0].learning_rate > 0.0
    calls: list[int] = []

    def stop(progress: csae.Progress) -> bool:
        calls.append(progress.step)
        return False

    model = quick(epochs=1000).fit(x, callback=stop)
    assert len(calls) == 1 and model.report_["stopped"]
    assert model.report_["steps"] < 1000 and model.transform(x).shape == (len(x), 4)

    def fail(progress: csae.Progress) -> None:
        raise KeyError("mine")

    failed = quick(epochs=1000)
    with pytest.raises(KeyError, match="mine"):
        failed.fit(x, callback=fail)
    assert not hasattr(failed, "model_")


def test_verbose_prints(capsys: pytest.CaptureFixture[str]) -> None:
    quick(verbose=True).fit(digits()[0][:100])
    assert "loss" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"n_components": 0}, "n_components"),
        ({"n_components": 2.5}, "n_components"),
        ({"n_active": 0}, "n_active"),
        ({"alpha": -1.0}, "lambda"),
        ({"alpha": 1.0, "n_active": 2}, "alpha"),
        ({"epochs": -1}, "epochs"),
        ({"batch_size": 0}, "batch_size"),
        ({"learning_rate": -0.1}, "lr"),
        ({"preset": "sparse"}, "preset"),
        ({"random_state": -1}, "random_state"),
        ({"settings": {"optimizer.sigmma": 1}}, "sigmma"),
        ({"settings": {"train.batch": object()}}, "settings"),
    ],
)
def test_wrong_parameters_are_errors(parameters: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        quick(**{"n_components": 4, **parameters}).fit(digits()[0][:50])


def test_a_missing_device_and_wrong_presets() -> None:
    x = digits()[0][:50]
    with pytest.raises(RuntimeError, match="no-such-card"):
        quick(device="no-such-card").fit(x)
    images = pictures(4, 1, 16, 16)
    with pytest.raises(ValueError, match="did you mean sparse"):
        quick(preset="sparce").fit(images)
    with pytest.raises(ValueError, match="top-k"):
        quick(None, n_active=3).fit(images)
    with pytest.raises(ValueError, match=r"\(N, C, H, W\)"):
        quick().fit(images[:, 0])


def test_works_without_scikit_learn() -> None:
    """The estimator has the same methods if scikit-learn is not installed."""
    code = """
import sys
sys.modules["sklearn"] = None
import numpy as np, pickle, csae
x = np.random.default_rng(0).normal(size=(60, 5))
model = csae.Autoencoder(3, epochs=2, device="cpu", random_state=0)
assert model.set_params(alpha=0.2) is model and model.get_params()["alpha"] == 0.2
codes = model.fit_transform(x)
assert codes.shape == (60, 3) and np.isfinite(model.score(x))
assert (pickle.loads(pickle.dumps(model)).transform(x) == codes).all()
for call in (lambda: csae.Autoencoder().transform(x), lambda: model.transform(x[:, :4]),
             lambda: model.fit(x[0]), lambda: model.fit(x * np.nan), lambda: model.set_params(a=1)):
    try: call()
    except ValueError: pass
    else: raise AssertionError
print(model)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and "alpha=0.2" in done.stdout, done
