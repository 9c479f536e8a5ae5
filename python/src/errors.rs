//! The library's errors as Python's exceptions.

use csae::{Error, ErrorKind};
use pyo3::PyErr;
use pyo3::exceptions::{PyRuntimeError, PyValueError};

/// A `ValueError` for an invalid request, otherwise a `RuntimeError`.
pub fn convert(error: &Error) -> PyErr {
    // Users of Python see a method with a dot.
    let message = error.to_string().replace("Model::", "Model.");
    match error.kind {
        ErrorKind::Usage => PyValueError::new_err(message),
        _ => PyRuntimeError::new_err(message),
    }
}
