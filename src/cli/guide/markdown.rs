//! Markdown as plain text for a terminal.

use pulldown_cmark::{Event, HeadingLevel, Options, Parser, Tag, TagEnd};

use super::wrap::{hanging, length};

/// How text is printed.
#[derive(Clone, Copy, Debug)]
pub struct Style {
    /// Number of columns.
    pub width: usize,
    /// Whether headings and emphasis are bold.
    pub bold: bool,
}

impl Style {
    fn emphasized(self, text: &str) -> String {
        if self.bold { format!("\u{1b}[1m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}

/// Space before a line of code.
const CODE_INDENT: &str = "    ";
/// Space between the columns of a table.
const GAP: usize = 2;

/// A table while it is read.
#[derive(Debug, Default)]
struct Table {
    rows: Vec<Vec<String>>,
}

/// The state of the renderer: what has been written, and the block that is being read.
#[derive(Debug)]
struct Writer {
    style: Style,
    out: String,
    /// The text of the current paragraph, heading, item or cell.
    text: String,
    /// For each list around the text the number of its next item, if items have numbers.
    lists: Vec<Option<u64>>,
    /// Prefix of the item's first line, until it is printed.
    marker: Option<String>,
    /// The lines of the current code block.
    code: Option<String>,
    table: Table,
    /// The target of the current link, and where its text begins.
    link: Option<(String, usize)>,
}

/// Renders Markdown. Headings are underlined, code is indented, and text is broken into lines.
/// Tables that are too wide become lists. Comments are left out.
pub fn render(markdown: &str, style: Style) -> String {
    let mut writer = Writer {
        style,
        out: String::new(),
        text: String::new(),
        lists: Vec::new(),
        marker: None,
        code: None,
        table: Table::default(),
        link: None,
    };
    for event in Parser::new_ext(markdown, Options::ENABLE_TABLES) {
        writer.event(event);
    }
    writer.out
}

impl Writer {
    fn event(&mut self, event: Event<'_>) {
        match event {
            Event::Start(tag) => self.start(tag),
            Event::End(tag) => self.end(tag),
            Event::Text(text) => match &mut self.code {
                Some(code) => code.push_str(&text),
                // A number and its unit stay on one line.
                None => self.text.push_str(&text.replace(" %", "\u{a0}%")),
            },
            // Code is copied, so it is not broken into lines.
            Event::Code(code) => {
                self.text.push_str(&format!("`{}`", code.replace(' ', "\u{a0}")));
            }
            Event::SoftBreak | Event::HardBreak => self.text.push(' '),
            Event::Rule => self.block(&"-".repeat(self.style.width)),
            // The guide has comments, which readers need not see, and no formulas or footnotes.
            Event::Html(_)
            | Event::InlineHtml(_)
            | Event::InlineMath(_)
            | Event::DisplayMath(_)
            | Event::FootnoteReference(_)
            | Event::TaskListMarker(_) => {}
        }
    }

    fn start(&mut self, tag: Tag<'_>) {
        match tag {
            Tag::CodeBlock(_) => {
                self.flush();
                self.code = Some(String::new());
            }
            Tag::List(first) => {
                self.flush();
                self.lists.push(first);
            }
            Tag::Item => {
                self.marker = Some(match self.lists.last_mut() {
                    Some(Some(number)) => {
                        *number += 1;
                        format!("{}. ", *number - 1)
                    }
                    _ => "- ".to_owned(),
                });
            }
            Tag::Table(_) => self.table = Table::default(),
            Tag::TableHead | Tag::TableRow => self.table.rows.push(Vec::new()),
            Tag::Link { dest_url, .. } => {
                self.link = Some((dest_url.into_string(), self.text.len()))
            }
            Tag::Strong if self.style.bold => self.text.push_str("\u{1b}[1m"),
            _ => {}
        }
    }

    fn end(&mut self, tag: TagEnd) {
        match tag {
            TagEnd::Heading(level) => {
                let lines = hanging(&std::mem::take(&mut self.text), "", "", self.style.width);
                let width = lines.lines().map(length).max().unwrap_or_default();
                let rule = if level == HeadingLevel::H1 { "=" } else { "-" }.repeat(width);
                let lines: String =
                    lines.lines().map(|line| self.style.emphasized(line) + "\n").collect();
                self.block(&format!("{lines}{rule}"));
            }
            TagEnd::Paragraph => self.flush(),
            TagEnd::Item => {
                self.flush();
                self.marker = None;
            }
            TagEnd::List(_) => {
                self.lists.pop();
            }
            TagEnd::CodeBlock => {
                let code = self.code.take().unwrap_or_default();
                let lines = code.lines().map(|line| format!("{CODE_INDENT}{line}"));
                self.block(&lines.collect::<Vec<_>>().join("\n"));
            }
            TagEnd::TableCell => {
                let cell = std::mem::take(&mut self.text);
                self.table.rows.last_mut().expect("a cell is in a row").push(cell);
            }
            TagEnd::Table => {
                let table = std::mem::take(&mut self.table);
                self.block(&table.text(self.style));
            }
            TagEnd::Link => self.end_link(),
            TagEnd::Strong if self.style.bold => self.text.push_str("\u{1b}[0m"),
            _ => {}
        }
    }

    /// Ends a link: a page of the guide is named by its command, other targets by their address.
    fn end_link(&mut self) {
        let Some((target, start)) = self.link.take() else { return };
        if let Some(page) = target.strip_suffix(".md") {
            self.text.push_str(&format!(" (`csae\u{a0}guide\u{a0}{page}`)"));
        } else if self.text[start..] != target {
            self.text.push_str(&format!(" <{target}>"));
        }
    }

    /// Prints the text that was read as a paragraph or an item.
    fn flush(&mut self) {
        let text = std::mem::take(&mut self.text);
        if text.is_empty() {
            return;
        }
        let indent = CODE_INDENT[..2].repeat(self.lists.len().saturating_sub(1));
        let marker = self.marker.take();
        let is_item = marker.is_some();
        let first = format!("{indent}{}", marker.unwrap_or_default());
        let other = if self.lists.is_empty() { String::new() } else { format!("{indent}  ") };
        let first = if is_item || self.lists.is_empty() { first } else { other.clone() };
        let lines = hanging(&text, &first, &other, self.style.width);
        // Items follow each other without an empty line, the first one has one.
        if is_item && self.out.ends_with('\n') && self.follows_item() {
            self.out.push_str(&lines);
        } else {
            self.block(lines.trim_end());
        }
    }

    /// Whether the last line that was written belongs to an item of a list.
    fn follows_item(&self) -> bool {
        let last = self.out.trim_end().rsplit("\n\n").next().unwrap_or_default();
        let first = last.trim_start();
        let number = first.trim_start_matches(|letter: char| letter.is_ascii_digit());
        first.starts_with("- ") || number.len() < first.len() && number.starts_with(". ")
    }

    /// Writes lines with an empty line before them.
    fn block(&mut self, lines: &str) {
        if !self.out.is_empty() {
            self.out.push('\n');
        }
        self.out.push_str(lines);
        self.out.push('\n');
    }
}

impl Table {
    /// The table in aligned columns. The text of the last column is broken into lines. If the
    /// other columns take more than half of the width, the table becomes a list of its rows.
    fn text(&self, style: Style) -> String {
        let count = self.rows.iter().map(Vec::len).max().unwrap_or_default();
        let widths: Vec<usize> = (0..count)
            .map(|column| {
                let cells = self.rows.iter().filter_map(|row| row.get(column));
                cells.map(|cell| length(cell)).max().unwrap_or_default()
            })
            .collect();
        let before: usize = widths.iter().rev().skip(1).map(|width| width + GAP).sum();
        let last = widths.last().copied().unwrap_or_default();
        if before + last > style.width && before > style.width / 2 {
            return self.list(style);
        }
        let mut text = String::new();
        for (number, row) in self.rows.iter().enumerate() {
            let (end, start) = row.split_last().expect("a row has cells");
            let cells = start
                .iter()
                .zip(&widths)
                .map(|(cell, width)| format!("{cell}{}", " ".repeat(width + GAP - length(cell))));
            let start: String = cells.collect();
            let start = start.replace('\u{a0}', " ");
            if number == 0 && row.iter().all(String::is_empty) {
                continue;
            }
            text.push_str(&hanging(end, &start, &" ".repeat(before), style.width));
            if number == 0 {
                text.push_str(&"-".repeat((before + last).min(style.width)));
                text.push('\n');
            }
        }
        text.trim_end().to_owned()
    }

    /// The rows as items: the first cell, then the others, each with its column's heading.
    fn list(&self, style: Style) -> String {
        let Some((head, rows)) = self.rows.split_first() else { return String::new() };
        let mut text = String::new();
        for row in rows {
            for (column, cell) in row.iter().enumerate().filter(|(_, cell)| !cell.is_empty()) {
                let label = head.get(column).filter(|label| !label.is_empty());
                let cell = match (column, label) {
                    (0, _) | (_, None) => cell.clone(),
                    (_, Some(label)) => format!("{label}: {cell}"),
                };
                let first = if column == 0 { "- " } else { "  " };
                text.push_str(&hanging(&cell, first, "  ", style.width));
            }
        }
        text.trim_end().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(markdown: &str, width: usize) -> String {
        render(markdown, Style { width, bold: false })
    }

    #[test]
    fn headings_are_underlined_and_text_is_broken() {
        let text = plain("# Title\n\nSome words of\ntext.\n\n## Part\n\nMore.\n", 12);
        assert_eq!(text, "Title\n=====\n\nSome words\nof text.\n\nPart\n----\n\nMore.\n");
    }

    #[test]
    fn code_is_indented_and_kept() {
        let text = plain("```sh\n# a comment of the shell\ncsae train\n```\n", 10);
        assert_eq!(text, "    # a comment of the shell\n    csae train\n");
        assert_eq!(plain("Use `csae train` now.", 12), "Use\n`csae train`\nnow.\n");
    }

    #[test]
    fn items_hang() {
        let text = plain("Two:\n\n- one two three\n- four\n\nEnd.", 9);
        assert_eq!(text, "Two:\n\n- one two\n  three\n- four\n\nEnd.\n");
        assert_eq!(plain("1. a\n2. b", 9), "1. a\n2. b\n");
    }

    #[test]
    fn links_name_the_command_of_a_page() {
        let text = plain("See [Features].\n\n[Features]: features.md", 80);
        assert_eq!(text, "See Features (`csae guide features`).\n");
        let text = plain("[wgpu](https://wgpu.rs) and <https://a.org>", 80);
        assert_eq!(text, "wgpu <https://wgpu.rs> and https://a.org\n");
    }

    #[test]
    fn a_table_has_columns_where_they_fit() {
        let table = "| key | meaning |\n|---|---|\n| `a` | one two |\n| `bb` | three |\n";
        assert_eq!(plain(table, 20), "key   meaning\n-------------\n`a`   one two\n`bb`  three\n");
        assert_eq!(plain(table, 10), "- `a`\n  meaning:\n  one two\n- `bb`\n  meaning:\n  three\n");
    }

    #[test]
    fn comments_are_left_out() {
        assert_eq!(plain("<!-- keys -->\n\nText.\n", 80), "Text.\n");
    }

    #[test]
    fn bold_text_has_escape_sequences_only_if_asked() {
        let text = render("**a** b", Style { width: 80, bold: true });
        assert_eq!(text, "\u{1b}[1ma\u{1b}[0m b\n");
        assert_eq!(plain("**a** b", 80), "a b\n");
    }
}
