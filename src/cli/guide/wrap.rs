//! Breaking text into lines of a width.

/// Breaks `text` at spaces into lines of at most `width` characters, each ended by a line break. A
/// word that is longer has a line of its own. The first line begins with `first`, the others with
/// `other`. A no-break space does not end a word and is printed as a space.
pub fn hanging(text: &str, first: &str, other: &str, width: usize) -> String {
    let mut lines = Vec::new();
    let (mut line, mut empty) = (first.to_owned(), true);
    for word in text.split([' ', '\n']).filter(|word| !word.is_empty()) {
        let space = usize::from(!empty);
        if !empty && length(&line) + space + length(word) > width {
            lines.push(std::mem::replace(&mut line, other.to_owned()));
            empty = true;
        }
        if !empty {
            line.push(' ');
        }
        line.push_str(word);
        empty = false;
    }
    lines.push(line);
    lines.iter().map(|line| format!("{}\n", line.trim_end().replace('\u{a0}', " "))).collect()
}

/// The number of columns that `text` has on a terminal: its characters without escape sequences
/// of the form `ESC[…m`.
pub fn length(text: &str) -> usize {
    let mut rest = text;
    let mut count = 0;
    while let Some(at) = rest.find('\u{1b}') {
        count += rest[..at].chars().count();
        let end = rest[at..].find('m').map_or(rest.len(), |end| at + end + 1);
        rest = &rest[end..];
    }
    count + rest.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_fit_and_hang() {
        assert_eq!(hanging("one two three", "- ", "  ", 9), "- one two\n  three\n");
        assert_eq!(hanging("extraordinary a", "", "", 5), "extraordinary\na\n");
        assert_eq!(hanging("", "- ", "  ", 9), "-\n");
        assert_eq!(hanging("a\u{a0}b c", "", "", 4), "a b\nc\n");
    }

    #[test]
    fn escape_sequences_have_no_width() {
        assert_eq!(length("\u{1b}[1mbold\u{1b}[0m"), 4);
        assert_eq!(length("σ²"), 2);
    }
}
