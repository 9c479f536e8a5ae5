//! Enums with a closed set of names, which users write for keys and flags. One table defines the
//! enum, its names, parsing and display, and the error for an unknown word.

use crate::error::did_you_mean;

/// Declares an enum by a table of its variants and their names: `names! { pub enum Side { Left =
/// "left", Right = "right" } }`.
///
/// Code that handles variants differently must match on the enum without `_`. Then a new variant
/// does not compile until all such code handles it.
macro_rules! names {
    (
        $(#[$meta:meta])*
        $vis:vis enum $set:ident { $($(#[$about:meta])* $variant:ident = $name:literal),* $(,)? }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        $vis enum $set { $($(#[$about])* $variant),* }

        #[allow(dead_code)] // no enum uses all of these
        impl $set {
            /// All variants, in the order of the table.
            $vis const ALL: &[Self] = &[$(Self::$variant),*];

            /// The names of all variants.
            $vis const NAMES: &[&'static str] = &[$($name),*];

            /// The variant's name.
            $vis const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }

            /// The names of all variants.
            $vis fn names() -> impl Iterator<Item = &'static str> + Clone {
                Self::ALL.iter().map(|one| one.name())
            }

            /// Returns the variant with this name, if there is one.
            $vis fn named(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|one| one.name() == name)
            }
        }

        impl std::fmt::Display for $set {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.name())
            }
        }

        impl serde::Serialize for $set {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.name())
            }
        }

        impl<'de> serde::Deserialize<'de> for $set {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let word = String::deserialize(from)?;
                Self::named(&word).ok_or_else(|| {
                    serde::de::Error::custom(crate::names::unknown(&word, Self::names()))
                })
            }
        }
    };
}
pub(crate) use names;

/// Prefix of the message of [`unknown`]. Code that parses a table replaces it to insert the key.
pub(crate) const UNKNOWN: &str = "= ";

/// Returns an error message, for example `= "adm": use one of sgd, adam; did you mean adam?`
pub(crate) fn unknown(word: &str, names: impl Iterator<Item = &'static str> + Clone) -> String {
    let known: Vec<&str> = names.clone().collect();
    format!("{UNKNOWN}{word:?}: use one of {}{}", known.join(", "), did_you_mean(word, names))
}

#[cfg(test)]
mod tests {
    names! {
        /// A set of two.
        enum Side {
            /// Left.
            Left = "left",
            /// Right.
            Right = "right",
        }
    }

    #[test]
    fn a_set_is_written_and_read_by_its_names() {
        assert_eq!(Side::ALL, [Side::Left, Side::Right]);
        for side in Side::ALL {
            let json = serde_json::to_string(side).unwrap();
            assert_eq!(json, format!("\"{side}\""));
            assert_eq!(serde_json::from_str::<Side>(&json).unwrap(), *side);
            assert_eq!(Side::named(side.name()), Some(*side));
        }
        assert_eq!(Side::named("Left"), None);
    }

    #[test]
    fn another_word_is_refused_with_the_names() {
        let error = serde_json::from_str::<Side>("\"rigth\"").unwrap_err().to_string();
        assert_eq!(error, "= \"rigth\": use one of left, right; did you mean right?");
        assert!(serde_json::from_str::<Side>("3").unwrap_err().to_string().contains("string"));
    }
}
