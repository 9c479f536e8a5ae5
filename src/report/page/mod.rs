//! HTML pages that work offline. They share one frame, one style sheet and one glossary.

mod date;
mod frame;
mod sheet;
mod words;

pub use date::{date, now};
pub use frame::{Page, STYLE, figure};
pub(crate) use frame::{frame, offline_head};
pub use sheet::{Sheet, image};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Escapes text for HTML, between tags and in quoted attributes.
pub fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            other => safe.push(other),
        }
    }
    safe
}

/// The data URI of a PNG file.
pub(crate) fn data_uri(png: &[u8]) -> String {
    format!("data:image/png;base64,{}", STANDARD.encode(png))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_escaped() {
        assert_eq!(escaped("<script>\"'&"), "&lt;script&gt;&quot;&#39;&amp;");
    }
}
