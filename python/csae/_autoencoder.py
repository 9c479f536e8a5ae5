"""An autoencoder as an estimator of scikit-learn."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import _csae
from ._arrays import check_finite, flat, pack, samples, unpack
from ._estimator import Base, check_fitted, check_input, seed
from ._model import create

#: Vectors: one fully connected layer each way. Atoms have a bounded norm, so that a small code with
#: large atoms cannot evade the penalty. Channels are standardised.
VECTORS = """
[model]
code = "{code}"

[[model.layers]]
name = "code"
op = "linear"
units = {units}
activation = "{activation}"
{selection}
[[model.layers]]
name = "decoder"
op = "linear"
shape = [{features}, 1, 1]
max_norm = 1.0

[data]
validation = 0
normalize = "standard"

[sparsity]
penalty = "{penalty}"
lambda = 1.0
warmup_epochs = 2.0
aux_alpha = {aux}

[optimizer]
kind = "adam"
lr = 3e-3
clip_norm = 50.0

[schedule]
kind = "cosine"

[train]
batch = 64
epochs = 50
"""

SELECTION = """
[[model.layers]]
name = "selected"
op = "top_k"
k = {k}
"""

#: Default of `preset` for images.
IMAGES = "sparse"
#: Steps between two calls of a callback, at most; at least one call in an epoch.
EVERY = 50


class Progress(NamedTuple):
    """Progress of a training. Losses are means over the steps since the last call."""

    #: Steps so far, and in all.
    step: int
    total: int
    #: Epochs so far.
    epoch: float
    #: Reconstruction loss and sparsity penalty of a sample.
    loss: float
    sparsity: float
    #: Active units (not 0) in a sample's code.
    active: float
    learning_rate: float
    images_per_second: float


class Autoencoder(Base):
    """A sparse autoencoder in scikit-learn's form.

    `X` is (N, features): a fully connected autoencoder of standardised features; or (N, C, H, W): a
    convolutional one. In images, uint8 and uint16 are divided by 255 and 65535.

    Parameters
    ----------
    n_components : units of the code; by default the preset's, or 64 for vectors.
    preset : for images, a name of `csae.presets()` or the text of a description in TOML. By
        default "sparse", for images whose sides are multiples of 4.
    alpha : weight λ of the L1 penalty on the code. By default the preset's, or 1 for vectors.
    n_active : units that are active in each sample, instead of a penalty. For vectors, and for
        presets with a layer `top_k`.
    epochs, batch_size, learning_rate : by default the preset's, or 50, 64 and 0.003 for vectors. A
        batch is at most all samples.
    validation : share of the samples that is held out, on which `report_` is measured. By default
        the preset's, or 0 for vectors.
    random_state : seed, generator or `None`. The same seed gives the same model on one device.
    device : "auto", "cpu", "gpu", part of an adapter's name or its number.
    settings : more keys of the description, such as {"optimizer.kind": "sgd"}. The page
        "Configuration" of csae's guide lists them.
    verbose : whether `fit` prints its progress.

    Attributes
    ----------
    model_ : the trained `csae.Model`.
    report_ : steps, seconds, psnr, ssim, active, dead (units) and others, by name.
    sample_shape_ : shape of a sample: (features,) or (C, H, W).
    n_features_in_ : features, or channels of images.
    """

    def __init__(
        self,
        n_components: int | None = None,
        *,
        preset: str | None = None,
        alpha: float | None = None,
        n_active: int | None = None,
        epochs: float | None = None,
        batch_size: int | None = None,
        learning_rate: float | None = None,
        validation: float | None = None,
        random_state: Any = None,
        device: str = "auto",
        settings: Mapping[str, Any] | None = None,
        verbose: bool = False,
    ) -> None:
        self.n_components = n_components
        self.preset = preset
        self.alpha = alpha
        self.n_active = n_active
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.validation = validation
        self.random_state = random_state
        self.device = device
        self.settings = settings
        self.verbose = verbose

    def fit(
        self, X: ArrayLike, y: Any = None, *, callback: Callable[[Progress], Any] | None = None
    ) -> Autoencoder:
        """Trains a new model on `X`; `y` is ignored.

        `callback` is called at least once in an epoch; returning `False` ends the training, with
        the model so far. An exception in it, or Ctrl-C, ends `fit` without a model.

        Raises `ValueError` for an invalid parameter or `X`, `RuntimeError` if the training diverges
        or there is no such device.
        """
        array = check_input(self, X, fits=True)
        shape = array.shape[1:]
        if len(shape) not in (1, 3):
            raise ValueError(
                f"X: shape {array.shape}, but samples are (N, features) or (N, C, H, W)"
            )
        images = self._samples(array, shape)
        size = shape if len(shape) == 3 else (shape[0], 1, 1)
        text, settings = self._description(shape)
        batch = min(int(self._batch(text)), len(images))
        settings["train.batch"] = toml(batch)
        settings.setdefault("train.log_every", toml(min(EVERY, len(images) // batch)))
        number = seed(self.random_state)
        if number < 0:
            raise ValueError(f"random_state: {number} is not a seed; use 0 or more")
        model = create(text, settings, size, number, str(self.device))
        report = model._core.train(pack(images), [], self._on_progress(callback))
        self.model_, self.report_, self.sample_shape_ = model, report, shape
        self._n_features_out = int(np.prod(model.code_shape))
        return self

    def transform(self, X: ArrayLike) -> NDArray[np.float32]:
        """The codes of samples, (N, units); codes of several axes are flattened."""
        check_fitted(self)
        codes = unpack(self.model_._core.encode(pack(self._known(X))))
        return codes.reshape(len(codes), -1)

    def inverse_transform(self, X: ArrayLike) -> NDArray[np.float32]:
        """The samples of codes (N, units), in the units of the training samples."""
        check_fitted(self)
        codes = np.asarray(X, dtype=np.float32)
        if codes.ndim != 2 or codes.shape[1] != self._n_features_out or codes.size == 0:
            raise ValueError(
                f"X: shape {codes.shape}, but codes are (N, {self._n_features_out})"
            )
        check_finite(codes, "X")
        codes = codes.reshape(-1, *self.model_._core.code_shape())
        return self._of_samples(unpack(self.model_._core.decode(pack(codes))))

    def reconstruct(self, X: ArrayLike) -> NDArray[np.float32]:
        """Encoded and decoded samples."""
        check_fitted(self)
        return self._of_samples(unpack(self.model_._core.reconstruct(pack(self._known(X)))))

    def score(self, X: ArrayLike, y: Any = None) -> float:
        """Explained variance of the reconstructions: 1 - Σ‖x - x̂‖² / Σ‖x - mean‖², at most 1."""
        check_fitted(self)
        given = self._known(X).astype(np.float64)
        found = self.reconstruct(X).reshape(given.shape)
        total = float(((given - given.mean(axis=0)) ** 2).sum())
        missed = float(((given - found) ** 2).sum())
        return 1.0 - missed / total if total > 0.0 else float(missed == 0.0)

    def _known(self, X: ArrayLike) -> NDArray[np.float32]:
        """Samples of the kind that the model was fitted to."""
        array = check_input(self, X, fits=False)
        if array.shape[1:] != self.sample_shape_:
            wanted = ", ".join(map(str, ("N", *self.sample_shape_)))
            raise ValueError(f"X: shape {array.shape}, but the model takes ({wanted})")
        return self._samples(array, array.shape[1:])

    @staticmethod
    def _samples(array: NDArray[Any], shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Samples (N, C, H, W). The numbers of vectors are no samples of images: they stay."""
        if len(shape) == 3:
            found = samples(array, "X")
        else:
            with np.errstate(over="ignore"):
                found = array.astype(np.float32)[:, :, None, None]
        check_finite(found, "X")
        return found

    def _of_samples(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        return flat(images) if len(self.sample_shape_) == 1 else images

    def _description(self, shape: tuple[int, ...]) -> tuple[str, dict[str, str]]:
        """A description in TOML, and the keys that the parameters set."""
        given: dict[str, Any] = {}
        if len(shape) == 1:
            if self.preset is not None:
                raise ValueError(
                    "preset: presets are for images; reshape X to (N, C, H, W), or leave it out"
                )
            text = vectors(shape[0], self.n_active is not None)
        else:
            preset = IMAGES if self.preset is None else self.preset
            text = preset if "[model]" in preset else _csae.preset(preset)
        if self.n_components is not None:
            given[units_key(text)] = whole(self.n_components, "n_components")
        if self.n_active is not None:
            given[active_key(text)] = whole(self.n_active, "n_active")
        if self.alpha is not None:
            if self.n_active is not None:
                raise ValueError("alpha: a penalty and n_active exclude each other; set one")
            given |= {"sparsity.penalty": "l1", "sparsity.lambda": self.alpha}
        keys = {"optimizer.lr": self.learning_rate, "data.validation": self.validation}
        given |= {key: value for key, value in keys.items() if value is not None}
        if self.epochs is not None:
            given |= {"train.epochs": self.epochs, "train.steps": 0}
        given |= self.settings or {}
        return text, {key: toml(value) for key, value in given.items()}

    def _batch(self, text: str) -> int:
        """Samples in a batch, before the limit of all samples."""
        given = (self.settings or {}).get("train.batch", self.batch_size)
        if given is not None:
            return whole(given, "batch_size")
        found = re.search(r"^batch = (\d+)", text, re.MULTILINE)
        return int(found.group(1)) if found else 128

    def _on_progress(
        self, callback: Callable[[Progress], Any] | None
    ) -> Callable[[dict[str, Any]], bool] | None:
        if callback is None and not self.verbose:
            return None

        def called(now: dict[str, Any]) -> bool:
            progress = Progress(**now)
            if self.verbose:
                print(
                    f"step {progress.step}/{progress.total}  epoch {progress.epoch:.2f}  "
                    f"loss {progress.loss:.4g}  sparsity {progress.sparsity:.4g}  "
                    f"active {progress.active:.1f}"
                )
            answer = None if callback is None else callback(progress)
            # An array or another object is no answer.
            return not (isinstance(answer, (bool, np.bool_)) and not answer)

        return called


def vectors(features: int, selects: bool) -> str:
    """The description of an autoencoder of vectors; `selects`: a TopK code instead of a penalty."""
    return VECTORS.format(
        code="selected" if selects else "code",
        units=64,
        activation="identity" if selects else "relu",
        selection=SELECTION.format(k=8) if selects else "",
        features=features,
        penalty="none" if selects else "l1",
        aux=1.0 if selects else 0.0,
    )


def layers(text: str) -> list[dict[str, str]]:
    """The layers of a description: their keys on lines of their own, and the values in TOML."""
    blocks = re.split(r"^\[\[model\.layers\]\]$", text, flags=re.MULTILINE)[1:]
    own = [re.split(r"^\[", block, maxsplit=1, flags=re.MULTILINE)[0] for block in blocks]
    return [dict(re.findall(r"^(\w+) *= *(.+?) *$", block, re.MULTILINE)) for block in own]


def units_key(text: str) -> str:
    """The key with the number of units of the code: of the last layer with one up to the code."""
    code = re.search(r'^code *= *"(.+?)"', text, re.MULTILINE)
    key = None
    for layer in layers(text):
        name = layer.get("name", "").strip('"')
        for size in ("units", "filters"):
            if layer.get(size, "").isdigit():
                key = f"model.layers.{name}.{size}"
        if code and name == code.group(1):
            break
    if key is None:
        raise ValueError("n_components: no layer of the preset has a number of units; use settings")
    return key


def active_key(text: str) -> str:
    """The key with the number of active units."""
    for layer in layers(text):
        if layer.get("op") == '"top_k"' and "k" in layer:
            return f"model.layers.{layer['name'].strip(chr(34))}.k"
    raise ValueError('n_active: the preset has no layer top_k; use preset="top-k", or alpha')


def whole(value: Any, what: str) -> int:
    """A whole number above 0."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise ValueError(f"{what}: {value!r} is not a whole number above 0")
    return int(value)


def toml(value: Any) -> str:
    """A value in TOML."""
    if isinstance(value, (bool, np.bool_)):
        return "true" if value else "false"
    if isinstance(value, (int, np.integer)):
        return str(int(value))
    if isinstance(value, (float, np.floating)):
        return repr(float(value))
    if isinstance(value, str):
        quoted = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{quoted}"'
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key} = {toml(one)}" for key, one in value.items()) + "}"
    raise ValueError(f"settings: {value!r} is not a number, text, list or table")
