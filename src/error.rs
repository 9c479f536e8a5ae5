//! The library's error type. A message is one line: where (file, key, layer), what is wrong, and
//! what to do about it. It names no flag of the program (see `advice`).

use std::fmt;

/// The category of an [`Error`]. It decides the exit status of the program, and whether training
/// retries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The request is invalid: a bad option, file, layer or shape. Exit status 2.
    Usage,
    /// The request is valid but failed, for example because of an I/O error. Exit status 1.
    Failed,
    /// The adapter or its driver failed. Exit status 1.
    Adapter,
    /// Training diverged: a non-finite value, or a large drop in quality. Exit status 1.
    Diverged,
    /// An image file that training reads has changed or gone since training began. Exit status 1.
    Data,
    /// Another process of the same training has failed or ended. Exit status 1.
    Rank,
}

/// An error of the library.
///
/// The message is one line: where (file, key, layer), what is wrong, and what to do next.
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
    /// The category of the failure.
    pub kind: ErrorKind,
    message: String,
}

impl Error {
    /// An error of kind [`ErrorKind::Usage`].
    #[doc(hidden)]
    pub fn usage(message: impl Into<String>) -> Self {
        Self { kind: ErrorKind::Usage, message: message.into() }
    }

    /// An error of kind [`ErrorKind::Failed`].
    #[doc(hidden)]
    pub fn failed(message: impl Into<String>) -> Self {
        Self { kind: ErrorKind::Failed, message: message.into() }
    }

    /// An error of kind [`ErrorKind::Adapter`].
    #[doc(hidden)]
    pub fn adapter(message: impl Into<String>) -> Self {
        Self { kind: ErrorKind::Adapter, message: message.into() }
    }

    /// Changes the kind and keeps the message.
    #[doc(hidden)]
    #[must_use]
    pub fn of(mut self, kind: ErrorKind) -> Self {
        self.kind = kind;
        self
    }

    /// Appends `; {consequence}` to the message.
    #[doc(hidden)]
    #[must_use]
    pub fn and(mut self, consequence: impl fmt::Display) -> Self {
        self.message = format!("{}; {consequence}", self.message);
        self
    }

    /// Prefixes the message with `{place}: `, for example a file or a layer.
    #[doc(hidden)]
    #[must_use]
    pub fn at(mut self, place: impl fmt::Display) -> Self {
        self.message = format!("{place}: {}", self.message);
        self
    }

    /// Converts an I/O error on `path`. A missing file is a usage error, because the caller named
    /// the path; every other I/O error is a failure.
    #[doc(hidden)]
    pub fn io(path: &std::path::Path, error: &std::io::Error) -> Self {
        let message = |advice: &str| format!("{}: {error}; {advice}", path.display());
        match error.kind() {
            std::io::ErrorKind::NotFound => Self::usage(message("check the path")),
            std::io::ErrorKind::PermissionDenied => Self::failed(message("check the permissions")),
            _ => Self::failed(message("check the file and its disk")),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A message quotes names and values of users, in which line breaks and commands to a
        // terminal are possible.
        for part in self.message.split_inclusive(char::is_control) {
            let plain = part.trim_end_matches(char::is_control);
            write!(f, "{plain}{}", part[plain.len()..].escape_default())?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

/// A result whose error type is [`Error`] unless stated otherwise.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Returns `; did you mean NAME?` for the known name nearest to `word`, or an empty string if no
/// name is near.
///
/// A name is near if it differs by at most one edit per three letters of `word` (at least one
/// edit). A looser limit suggests unrelated names for short words.
pub fn did_you_mean<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> String {
    let distance = |name: &&str| edit_distance(word, name);
    let nearest = known
        .into_iter()
        .min_by_key(distance)
        .filter(|name| distance(name) <= (word.chars().count() / 3).max(1));
    nearest.map_or_else(String::new, |name| format!("; did you mean {name}?"))
}

/// Damerau–Levenshtein distance (optimal string alignment): the number of insertions, deletions,
/// substitutions and swaps of neighbouring letters that turn `a` into `b`.
fn edit_distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let substituted = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
                let is_swap = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
                let swapped = if is_swap { rows[i - 2][j - 2] + 1 } else { usize::MAX };
                substituted.min(swapped).min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1)
            };
        }
    }
    rows[a.len()][b.len()]
}

/// Returns early from a function with a usage error; takes the arguments of [`format!`].
#[doc(hidden)]
#[macro_export]
macro_rules! bail_usage {
    ($($arg:tt)*) => { return Err($crate::Error::usage(format!($($arg)*))) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggests_only_near_names() {
        let known = ["lr", "momentum", "weight_decay"];
        assert_eq!(did_you_mean("lrr", known), "; did you mean lr?");
        assert_eq!(did_you_mean("momentun", known), "; did you mean momentum?");
        assert_eq!(did_you_mean("wieght_decay", known), "; did you mean weight_decay?");
        assert_eq!(did_you_mean("seed", known), "");
        assert_eq!(did_you_mean("", known) + &did_you_mean("a", []), "");
    }

    #[test]
    fn edit_distance_counts_letters_and_swaps() {
        for (a, b, distance) in [
            ("kitten", "sitting", 3),
            ("", "abc", 3),
            ("abc", "", 3),
            ("größe", "grüße", 1),
            ("trian", "train", 1),
            ("ab", "ba", 1),
            ("", "", 0),
        ] {
            assert_eq!(edit_distance(a, b), distance, "{a} {b}");
        }
    }

    #[test]
    fn a_message_is_one_line_whatever_it_quotes() {
        let error = Error::usage("init: unknown variant `dicti\n\x1b[31mary` of größe").at("a\tb");
        let shown = "a\\tb: init: unknown variant `dicti\\n\\u{1b}[31mary` of größe";
        assert_eq!(error.to_string(), shown);
    }

    #[test]
    fn messages_gain_a_place_and_a_consequence() {
        let error = Error::usage("is empty").at("a.png").and("remove it").of(ErrorKind::Data);
        assert_eq!(
            (error.to_string().as_str(), error.kind),
            ("a.png: is empty; remove it", ErrorKind::Data)
        );
    }
}
