//! The library's error: one line that names the thing, what is wrong with it and what to do.

use std::fmt;

/// What kind of failure an [`Error`] is. It decides the exit status of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// The request cannot be met as it stands: a wrong option, file, layer or shape. Exit status 2.
    Usage,
    /// The request was sound but failed, for example because a disk is full. Exit status 1.
    Failed,
    /// The adapter or its driver failed. Exit status 1.
    Adapter,
    /// Training diverged: a non-finite value, or a large drop in quality. Exit status 1.
    Diverged,
    /// An image file that training reads has changed or gone since training began. Exit status 1.
    Data,
}

/// Why the library could not do something.
///
/// The message is one line: what is wrong, where, and what to do next.
///
/// # Examples
///
/// ```
/// let error = csae::Model::load("no-such-file").unwrap_err();
/// assert_eq!(error.kind, csae::ErrorKind::Usage);
/// assert!(error.to_string().starts_with("no-such-file: "));
/// ```
#[derive(Clone, Debug)]
pub struct Error {
    /// What kind of failure it is.
    pub kind: Kind,
    message: String,
}

impl Error {
    /// A request that cannot be met as it stands.
    #[doc(hidden)]
    pub fn usage(message: impl Into<String>) -> Self {
        Self { kind: Kind::Usage, message: message.into() }
    }

    /// A sound request that failed.
    #[doc(hidden)]
    pub fn failed(message: impl Into<String>) -> Self {
        Self { kind: Kind::Failed, message: message.into() }
    }

    /// An adapter that failed.
    #[doc(hidden)]
    pub fn adapter(message: impl Into<String>) -> Self {
        Self { kind: Kind::Adapter, message: message.into() }
    }

    /// The same message of another kind.
    #[doc(hidden)]
    #[must_use]
    pub fn of(mut self, kind: Kind) -> Self {
        self.kind = kind;
        self
    }

    /// Adds what follows from it.
    #[doc(hidden)]
    #[must_use]
    pub fn and(mut self, consequence: impl fmt::Display) -> Self {
        self.message = format!("{}; {consequence}", self.message);
        self
    }

    /// Says where it happened, in front of what happened.
    #[doc(hidden)]
    #[must_use]
    pub fn at(mut self, place: impl fmt::Display) -> Self {
        self.message = format!("{place}: {}", self.message);
        self
    }

    /// An I/O error on a path.
    #[doc(hidden)]
    pub fn io(path: &std::path::Path, error: &std::io::Error) -> Self {
        let message = |what: &str| format!("{}: {error}; {what}", path.display());
        match error.kind() {
            std::io::ErrorKind::NotFound => Self::usage(message("check the path")),
            std::io::ErrorKind::PermissionDenied => Self::failed(message("check the permissions")),
            _ => Self::failed(message("check the file and its disk")),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

/// A value, or the library's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// `; did you mean NAME?` with the known name that is nearest to a word, if one is near.
pub fn did_you_mean<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> String {
    let near = |name: &&str| edits(word, name);
    let nearest = known
        .into_iter()
        .min_by_key(near)
        .filter(|name| near(name) <= (word.chars().count() / 3).max(1));
    nearest.map_or_else(String::new, |name| format!("; did you mean {name}?"))
}

/// Letters to put in, take out, exchange, or swap with their neighbours to make one word of
/// another.
fn edits(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let exchanged = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
                let swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
                let swapped = if swapped { rows[i - 2][j - 2] + 1 } else { usize::MAX };
                exchanged.min(swapped).min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1)
            };
        }
    }
    rows[a.len()][b.len()]
}

/// Returns early with a usage error.
#[doc(hidden)]
#[macro_export]
macro_rules! bail_usage {
    ($($arg:tt)*) => { return Err($crate::error::Error::usage(format!($($arg)*))) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_found_and_nothing_far() {
        let known = ["lr", "momentum", "weight_decay"];
        assert_eq!(did_you_mean("lrr", known), "; did you mean lr?");
        assert_eq!(did_you_mean("momentun", known), "; did you mean momentum?");
        assert_eq!(did_you_mean("wieght_decay", known), "; did you mean weight_decay?");
        assert_eq!(did_you_mean("seed", known), "");
        assert_eq!(did_you_mean("", known) + &did_you_mean("a", []), "");
        assert_eq!(
            (
                edits("kitten", "sitting"),
                edits("", "abc"),
                edits("abc", ""),
                edits("größe", "grüße")
            ),
            (3, 3, 3, 1)
        );
        assert_eq!((edits("trian", "train"), edits("ab", "ba"), edits("", "")), (1, 1, 0));
    }
}
