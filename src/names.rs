//! Closed sets of names: what a user may write for a key or a flag. One table gives the enum, its
//! names, how it is written and read, and the error for a word that is none of them.

use crate::error::did_you_mean;

/// Declares an enum by a table of its variants and their names:
/// `names! { pub enum Side { Left = "left", Right = "right" } }`.
///
/// Code that treats the variants differently matches on the enum without `_`, so that a new row
/// does not compile until it is dealt with everywhere.
macro_rules! names {
    (
        $(#[$meta:meta])*
        $vis:vis enum $set:ident { $($(#[$about:meta])* $variant:ident = $name:literal),* $(,)? }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        $vis enum $set { $($(#[$about])* $variant),* }

        #[allow(dead_code)] // not every set is asked for everything
        impl $set {
            /// All of them.
            $vis const ALL: &[Self] = &[$(Self::$variant),*];

            /// Its name.
            $vis const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }

            /// Every name.
            $vis fn names() -> impl Iterator<Item = &'static str> + Clone {
                Self::ALL.iter().map(|one| one.name())
            }

            /// The one of a name, if there is one.
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

/// How the error of [`unknown`] begins, so that whoever reads a table can put the key in front.
pub(crate) const UNKNOWN: &str = "= ";

/// `= "adm": known are sgd, adam; did you mean adam?`
pub(crate) fn unknown(word: &str, names: impl Iterator<Item = &'static str> + Clone) -> String {
    let known: Vec<&str> = names.clone().collect();
    format!("{UNKNOWN}{word:?}: known are {}{}", known.join(", "), did_you_mean(word, names))
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
        assert_eq!(error, "= \"rigth\": known are left, right; did you mean right?");
        assert!(serde_json::from_str::<Side>("3").unwrap_err().to_string().contains("string"));
    }
}
