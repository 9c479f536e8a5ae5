//! The page of runs: charts, results, settings and pictures. A script draws it from JSON, either
//! embedded in the page or fetched again and again while the runs are followed.

use std::path::Path;

use serde_json::{Value, json};

use super::PAGE;
use super::curves::Curves;
use super::differences::differences;
use super::panels::panels;
use super::view::{RunView, State};
use crate::error::Result;
use crate::files;
use crate::report::page::{data_uri, frame, now, offline_head};

/// The script of the page.
pub const SCRIPT: &str = include_str!("../../../assets/page/runs.js");
/// What the page shows until its script has run.
const MAIN: &str = "<noscript><p>This page needs JavaScript.</p></noscript>\n";

/// Everything that the page shows. `source` is where the page finds a picture of a run, given the
/// run's index.
pub fn data(runs: &[RunView], source: &dyn Fn(usize, &super::Picture) -> Option<String>) -> Value {
    let curves: Vec<&Curves> = runs.iter().map(|run| &run.curves).collect();
    let squares = runs.iter().all(RunView::squares);
    let settings: Vec<_> = runs.iter().map(|run| &run.settings).collect();
    let panels: Vec<Value> = panels(&curves, squares).iter().map(super::Panel::json).collect();
    let views = runs.iter().enumerate();
    let views: Vec<Value> = views.map(|(i, run)| run.json(&|picture| source(i, picture))).collect();
    let csae = env!("CARGO_PKG_VERSION").to_owned();
    let facts = [("runs", runs.len().to_string()), ("date", now()), ("csae", csae)];
    json!({
        "facts": facts, "panels": panels, "differences": differences(&settings), "runs": views
    })
}

/// The page that a server sends. It fetches `style.css`, `script.js` and `data.json`.
pub fn live_page(title: &str) -> String {
    let head = "<link rel=\"stylesheet\" href=\"style.css\">\n";
    frame(title, head, "", MAIN, "<script src=\"script.js\"></script>\n")
}

/// The page as one file with everything inside.
pub fn static_page(title: &str, data: &Value) -> String {
    // `<` would end the element within a text, `</script>`.
    let data = data.to_string().replace('<', "\\u003c");
    let scripts = format!(
        "<script type=\"application/json\" id=\"data\">{data}</script>\n<script>\n{SCRIPT}\
         </script>\n"
    );
    frame(title, &offline_head(""), "", MAIN, &scripts)
}

/// Writes the page of a run into its folder. `state` is whether it is resumed, or how it ended.
///
/// # Errors
/// If the log cannot be read or the page cannot be written.
pub fn write_page(folder: &Path, state: State) -> Result<()> {
    let name = folder.canonicalize().ok();
    let name = name.as_deref().unwrap_or(folder).file_name().unwrap_or_default();
    let mut run = RunView::new(folder, &name.to_string_lossy());
    run.update()?;
    // This process still holds the lock.
    run.state = state;
    let runs = [run];
    let source = |_, picture: &super::Picture| Some(data_uri(&runs[0].picture(picture.file)?));
    let page = static_page(&format!("Training {}", runs[0].name), &data(&runs, &source));
    files::write_atomically(&folder.join(PAGE), page.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_end_the_script_or_become_elements() {
        let name = "<img src=x onerror=alert(1)></script>";
        let run = RunView::new(Path::new("none"), name);
        let page = static_page(name, &data(&[run], &|_, _| None));
        assert!(!page.contains("<img"), "{page}");
        // The data, the script and nothing else.
        assert_eq!(page.matches("</script>").count(), 2);
        let (_, json) = page.split_once("id=\"data\">").unwrap();
        let json: Value = serde_json::from_str(json.split_once("</script>").unwrap().0).unwrap();
        assert_eq!(json["runs"][0]["name"], name);
    }

    #[test]
    fn pages_name_no_other_place() {
        for text in
            [SCRIPT, crate::report::page::STYLE, &live_page("a"), &static_page("a", &Value::Null)]
        {
            let other = text.replace("http://www.w3.org/2000/svg", "");
            assert!(!other.contains("://") && !other.contains("innerHTML"));
        }
    }
}
