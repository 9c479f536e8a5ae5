//! The frame of all pages: heading, contents, sections, glossary.

use super::{Sheet, escaped, now, words};

/// The style sheet of all pages.
pub const STYLE: &str = include_str!("../../../assets/page/page.css");

/// A page as one file.
#[derive(Clone, Debug)]
pub struct Page {
    title: String,
    facts: Vec<(String, String)>,
    intro: String,
    /// Headings and contents. The contents are HTML.
    sections: Vec<(String, String)>,
    css: String,
    script: &'static str,
}

impl Page {
    /// An empty page.
    pub fn new(title: &str) -> Self {
        Self {
            title: title.to_owned(),
            facts: Vec::new(),
            intro: String::new(),
            sections: Vec::new(),
            css: String::new(),
            script: "",
        }
    }

    /// Adds facts to the heading, such as model, data and device: names and values. The page adds
    /// the date and the program's version.
    pub fn facts(mut self, facts: &[(&str, String)]) -> Self {
        self.facts.extend(facts.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
        self
    }

    /// Sets the text between the heading and the first section.
    pub fn intro(mut self, text: &str) -> Self {
        self.intro = format!("<p class=\"intro\">{}</p>\n", escaped(text));
        self
    }

    /// Adds the pictures of a sheet.
    pub fn sheet(mut self, sheet: &Sheet) -> Self {
        self.css.push_str(sheet.css());
        self
    }

    /// Adds a section. `html` is its content.
    pub fn section(mut self, heading: &str, html: String) -> Self {
        self.sections.push((heading.to_owned(), html));
        self
    }

    /// Adds a script.
    pub const fn script(mut self, script: &'static str) -> Self {
        self.script = script;
        self
    }

    /// The text of the page.
    pub fn html(&self) -> String {
        let own = [("date", now()), ("csae", env!("CARGO_PKG_VERSION").to_owned())];
        let own = own.iter().map(|(name, value)| (*name, value));
        let facts = self.facts.iter().map(|(name, value)| (name.as_str(), value));
        let facts: String = facts
            .chain(own)
            .map(|(name, value)| format!("<span>{name}: {}</span>", escaped(value)))
            .collect();
        let mut main = self.intro.clone();
        if self.sections.len() > 1 {
            main.push_str("<nav>");
            for (i, (heading, _)) in self.sections.iter().enumerate() {
                main += &format!("<a href=\"#section-{i}\">{}</a>", escaped(heading));
            }
            main.push_str("<a href=\"#words\">Words</a></nav>\n");
        }
        for (i, (heading, html)) in self.sections.iter().enumerate() {
            let heading = escaped(heading);
            main += &format!("<h2 id=\"section-{i}\">{heading}</h2>\n{html}");
        }
        let script = match self.script {
            "" => String::new(),
            script => format!("<script>\n{script}</script>\n"),
        };
        frame(&self.title, &offline_head(&self.css), &facts, &main, &script)
    }
}

/// The style sheet within a page that loads nothing, and pictures only from itself. `more` is CSS
/// of this page.
pub(crate) fn offline_head(more: &str) -> String {
    format!(
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; img-src data:; \
         style-src 'unsafe-inline'; script-src 'unsafe-inline'\">\n<style>\n{STYLE}{more}</style>\n"
    )
}

/// The frame of a page. `head`, `facts`, `main` and `scripts` are HTML.
pub(crate) fn frame(title: &str, head: &str, facts: &str, main: &str, scripts: &str) -> String {
    let (title, words) = (escaped(title), words::glossary());
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{title}</title>\n{head}</head>\n<body>\n<header><h1>{title}</h1>\
         <p id=\"facts\">{facts}</p><p id=\"status\" role=\"status\"></p></header>\n\
         <main id=\"page\">\n{main}</main>\n<footer>\n{words}</footer>\n{scripts}</body>\n</html>\n"
    )
}

/// A picture with its caption. `picture` is HTML.
pub fn figure(picture: &str, caption: &str) -> String {
    format!("<figure>{picture}<figcaption>{}</figcaption></figure>\n", escaped(caption))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn title_and_facts_are_escaped() {
        let page = Page::new("<b>").facts(&[("model", "<i>".to_owned())]).intro("<u>").html();
        assert!(page.contains("<title>&lt;b&gt;</title>") && page.contains("model: &lt;i&gt;"));
        assert!(page.contains("date: ") && page.contains("csae: "), "{page}");
        assert!(!page.contains("<script") && !page.contains("<u>"));
    }

    #[test]
    fn contents_name_the_sections_if_there_are_several() {
        let one = Page::new("a").section("<first>", "text".to_owned());
        assert!(!one.html().contains("<nav>"));
        let two = one.section("second", String::new()).html();
        assert!(two.contains("<a href=\"#section-0\">&lt;first&gt;</a>"), "{two}");
        assert!(two.contains("<h2 id=\"section-1\">second</h2>") && two.contains("id=\"words\""));
    }
}
