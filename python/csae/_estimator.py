"""What an estimator of scikit-learn needs: from scikit-learn, or a small stand-in without it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["Base", "check_fitted", "check_input", "seed"]

try:
    from sklearn.base import (
        BaseEstimator,
        ClassNamePrefixFeaturesOutMixin,
        TransformerMixin,
    )
    from sklearn.utils import check_random_state
    from sklearn.utils.validation import check_is_fitted as check_fitted
    from sklearn.utils.validation import validate_data

    class Base(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
        """The base of estimators that transform."""

        def __sklearn_tags__(self) -> Any:
            tags = super().__sklearn_tags__()
            # Results are 32-bit floats, as the models compute.
            tags.transformer_tags.preserves_dtype = ["float32"]
            return tags

    def check_input(estimator: Any, x: ArrayLike, *, fits: bool) -> NDArray[Any]:
        """`x` as an array of two or more axes; `fits` records its number of features."""
        array: NDArray[Any] = validate_data(
            estimator, x, reset=fits, allow_nd=True, dtype="numeric"
        )
        return array

    def seed(random_state: Any) -> int:
        """A seed of 31 bits: the integer, or a number drawn from a generator."""
        if isinstance(random_state, (int, np.integer)):
            return int(random_state)
        return int(check_random_state(random_state).randint(2**31 - 1))

except ImportError:
    import inspect

    class Base:  # type: ignore[no-redef]
        """The base of estimators that transform."""

        @classmethod
        def _names(cls) -> list[str]:
            return list(inspect.signature(cls).parameters)

        def get_params(self, deep: bool = True) -> dict[str, Any]:
            """The parameters by name."""
            return {name: getattr(self, name) for name in self._names()}

        def set_params(self, **parameters: Any) -> Any:
            """Sets parameters by name. Raises `ValueError` for an unknown one."""
            for name, value in parameters.items():
                if name not in self._names():
                    raise ValueError(f"no parameter is called {name!r}: {self._names()}")
                setattr(self, name, value)
            return self

        def fit_transform(self, X: ArrayLike, y: Any = None, **options: Any) -> NDArray[Any]:
            """Fits and transforms the same samples."""
            estimator: Any = self
            found: NDArray[Any] = estimator.fit(X, y, **options).transform(X)
            return found

        def __repr__(self) -> str:
            given = ", ".join(f"{name}={value!r}" for name, value in self.get_params().items())
            return f"{type(self).__name__}({given})"

    def check_fitted(estimator: Any) -> None:
        """Raises `ValueError` before `fit`."""
        if not hasattr(estimator, "model_"):
            raise ValueError(f"this {type(estimator).__name__} is not fitted yet; call fit first")

    def check_input(estimator: Any, x: ArrayLike, *, fits: bool) -> NDArray[Any]:
        """`x` as an array of two or more axes; `fits` records its number of features."""
        array = np.asarray(x)
        if array.dtype.kind not in "biuf":
            raise ValueError(f"X: an array of {array.dtype}, not of real numbers")
        if array.ndim < 2 or array.size == 0:
            raise ValueError(
                f"X: shape {array.shape}, but samples are (N, features) or (N, C, H, W)"
            )
        if not np.isfinite(array).all():
            raise ValueError("X: a value is NaN or infinite; replace it first")
        if fits:
            estimator.n_features_in_ = array.shape[1]
        elif array.shape[1] != estimator.n_features_in_:
            raise ValueError(
                f"X has {array.shape[1]} features, but {type(estimator).__name__} is expecting "
                f"{estimator.n_features_in_} features as input"
            )
        return array

    def seed(random_state: Any) -> int:
        """A seed of 31 bits: the integer, or a number drawn from a generator."""
        if isinstance(random_state, (int, np.integer)):
            return int(random_state)
        if random_state is None:
            return int(np.random.randint(2**31 - 1))
        return int(random_state.randint(2**31 - 1))
