//! The glossary at the end of every page.

use std::fmt::Write;

use super::escaped;
use crate::guide::PAGES;

/// The words of pages. Their meanings are those of the guide's glossary.
const WORDS: [&str; 19] = [
    "active unit",
    "atom",
    "code, z",
    "dead unit",
    "epoch",
    "explained variance",
    "filter",
    "firing rate",
    "Fréchet distance",
    "L0",
    "map",
    "Moran's I",
    "PSNR",
    "reconstruction, x̂",
    "SSIM",
    "step",
    "top-activating patch",
    "validation",
    "‖x − x̂‖²",
];

/// Words with their meanings, from the table of the guide's glossary.
fn meanings() -> impl Iterator<Item = (&'static str, &'static str)> {
    let glossary = PAGES.iter().find(|page| page.name == "glossary");
    let rows = glossary.map_or("", |page| page.text).lines();
    rows.filter_map(|row| row.strip_prefix("| ")?.strip_suffix(" |")?.split_once(" | "))
        .filter(|(word, _)| WORDS.contains(word))
}

/// The glossary as HTML.
pub(super) fn glossary() -> String {
    let mut list = String::new();
    for (word, meaning) in meanings() {
        let _ = writeln!(list, "<dt>{}</dt><dd>{}</dd>", escaped(word), escaped(meaning));
    }
    // A link to the list opens the element around it.
    format!(
        "<details><summary>Words</summary>\n<dl class=\"words\" id=\"words\">\n{list}</dl>\n\
         </details>\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_is_in_the_glossary_of_the_guide() {
        let found: Vec<&str> = meanings().map(|(word, _)| word).collect();
        for word in WORDS {
            assert!(found.contains(&word), "{word}: {found:?}");
        }
        assert!(!glossary().contains('`'), "Markdown is not HTML");
    }
}
