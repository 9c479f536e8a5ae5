//! The header of a FITS unit: cards of 80 characters in blocks of 2,880 bytes.

use crate::data::numbers::{MAX_AXES, Opening, damaged};
use crate::error::Result;

/// Size of a block in bytes.
pub(super) const BLOCK: u64 = 2880;
const CARD: usize = 80;
/// Maximum number of blocks of a header: 36,000 cards.
const MAX_BLOCKS: u64 = 1000;

/// The keys that describe an image, with their values as text.
#[derive(Default)]
pub(super) struct Header {
    keys: Vec<(String, String)>,
}

impl Header {
    /// The text or the word of a key.
    pub fn text(&self, name: &str) -> Option<String> {
        self.keys.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone())
    }

    /// The integer of a key.
    pub fn integer(&self, name: &str) -> Result<Option<i64>> {
        let Some(value) = self.text(name) else { return Ok(None) };
        let number = value.parse().map_err(|_| damaged(&format!("{name} is {value:?}")))?;
        Ok(Some(number))
    }

    /// The number of a key, or `default`.
    fn number(&self, name: &str, default: f64) -> Result<f64> {
        let Some(value) = self.text(name) else { return Ok(default) };
        // Fortran writes exponents with D.
        let number: Result<f64, _> = value.replace(['D', 'd'], "E").parse();
        let number = number.ok().filter(|number| number.is_finite());
        number.ok_or_else(|| damaged(&format!("{name} is {value:?}")))
    }

    /// `BSCALE` and `BZERO`.
    pub fn scale(&self) -> Result<(f64, f64)> {
        Ok((self.number("BSCALE", 1.0)?, self.number("BZERO", 0.0)?))
    }

    /// The size of each axis, outermost first. `NAXIS1` is the fastest axis.
    pub fn shape(&self) -> Result<Vec<u64>> {
        let count = self.integer("NAXIS")?.ok_or_else(|| damaged("NAXIS is missing"))?;
        if !(0..=MAX_AXES as i64).contains(&count) {
            return Err(damaged(&format!(
                "NAXIS is {count}, and at most {MAX_AXES} are supported"
            )));
        }
        let size = |axis| {
            let name = format!("NAXIS{axis}");
            let size = self.integer(&name)?;
            let size = size.and_then(|size| u64::try_from(size).ok());
            size.ok_or_else(|| damaged(&format!("{name} is missing or negative")))
        };
        (1..=count).rev().map(size).collect()
    }
}

/// Reads the header at an offset. Returns it with the offset of the data.
///
/// # Errors
/// If it has no end, or the file ends before.
pub(super) fn read(opening: &mut Opening<'_>, at: u64) -> Result<(Header, u64)> {
    let mut header = Header::default();
    for block in 0..MAX_BLOCKS {
        let start = at + block * BLOCK;
        let bytes = opening.bytes(start, BLOCK as usize)?;
        for card in bytes.chunks_exact(CARD) {
            let key = String::from_utf8_lossy(&card[..8]).trim_end().to_owned();
            if key == "END" {
                return Ok((header, start + BLOCK));
            }
            if &card[8..10] == b"= " {
                let value = value(&String::from_utf8_lossy(&card[10..]));
                header.keys.push((key, value));
            }
        }
    }
    Err(damaged("a header has no END"))
}

/// The value of a card: a text in quotation marks, or a word. A comment follows a slash.
fn value(text: &str) -> String {
    let text = text.trim();
    let Some(quoted) = text.strip_prefix('\'') else {
        return text.split('/').next().unwrap_or_default().trim().to_owned();
    };
    let mut value = String::new();
    let mut letters = quoted.chars().peekable();
    while let Some(letter) = letters.next() {
        // Two quotation marks stand for one.
        if letter == '\'' && letters.next_if_eq(&'\'').is_none() {
            break;
        }
        value.push(letter);
    }
    value.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::value;

    #[test]
    fn values_of_cards() {
        let cards = [
            ("                   16 / bits", "16"),
            ("'SCI     '           / name", "SCI"),
            ("'it''s / a'", "it's / a"),
            ("'open", "open"),
            ("                    T", "T"),
            ("", ""),
        ];
        for (text, expected) in cards {
            assert_eq!(value(text), expected);
        }
    }
}
