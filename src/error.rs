//! The library's error: one line that names the thing, what is wrong with it and what to do.

use std::fmt;

/// What kind of failure it was, which decides the exit status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The caller asked for something impossible: a bad flag, file, layer or shape. Exit status 2.
    Usage,
    /// The request was sound but it failed: I/O, adapter, numbers. Exit status 1.
    Failed,
}

/// An error of the library.
#[derive(Clone, Debug)]
pub struct Error {
    /// Usage or failure.
    pub kind: Kind,
    message: String,
}

impl Error {
    /// A request that cannot be met as it stands.
    pub fn usage(message: impl Into<String>) -> Self {
        Self { kind: Kind::Usage, message: message.into() }
    }

    /// A sound request that failed.
    pub fn failed(message: impl Into<String>) -> Self {
        Self { kind: Kind::Failed, message: message.into() }
    }

    /// Says where it happened, in front of what happened.
    #[must_use]
    pub fn at(mut self, place: impl fmt::Display) -> Self {
        self.message = format!("{place}: {}", self.message);
        self
    }

    /// An I/O error on a path.
    pub fn io(path: &std::path::Path, error: &std::io::Error) -> Self {
        let message = format!("{}: {error}", path.display());
        match error.kind() {
            std::io::ErrorKind::NotFound => Self::usage(message),
            _ => Self::failed(message),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

/// The library's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Returns early with a usage error.
#[macro_export]
macro_rules! bail_usage {
    ($($arg:tt)*) => { return Err($crate::error::Error::usage(format!($($arg)*))) };
}
