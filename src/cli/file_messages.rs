//! Messages about files that are skipped or read in part.

use serde_json::json;

use super::{Common, counted, with_flags};
use crate::data::FileReport;
use crate::data::file_report::refusal;

impl Common {
    /// Reports the files of a source that are not read, or not as a whole. With `-v` also the
    /// number of those that are not images.
    pub fn report_files(&self, report: &FileReport) {
        if self.json && !report.unsupported.is_empty() {
            let named = report.unsupported.iter().map(|(file, kind)| (file, refusal(kind)));
            let all = report.skipped.iter().cloned().chain(named.map(|(f, why)| (f.clone(), why)));
            self.report_skipped(&all.collect::<Vec<_>>());
        } else {
            self.report_skipped(&report.skipped);
        }
        let count = report.unsupported.len();
        // As the number of skipped files, this is printed even with `-q`.
        if count > 0 && !(self.quiet && self.json) {
            errln!(
                "skipped {} of kinds that are not supported: {}; convert them to PNG or JPEG \
                 (--strict makes it an error)",
                counted(count, "image file", "image files"),
                report.unsupported_kinds()
            );
        }
        self.report_first_images(&report.several);
        self.report_names(
            |n| {
                let runs = counted(n, "run folder is", "run folders are");
                format!("note: {runs} left out, since pictures of runs are results")
            },
            &report.runs,
        );
        if report.reduced > 0 {
            let images = counted(report.reduced, "image", "images");
            self.status(&format!(
                "note: {images} with 16 bits or floats reduced to 8 bits; this command takes 8 bits"
            ));
        }
        if self.verbose && !report.others.is_empty() {
            self.status(&format!("other files in the folders: {}", report.other_kinds()));
        }
    }

    /// Reports files with several frames or pages. Only the first one is read.
    pub fn report_first_images(&self, several: &[(String, usize)]) {
        if let [(file, images)] = several {
            self.status(&format!(
                "note: {file} has {images} frames or pages; only the first is read"
            ));
            return;
        }
        let names: Vec<String> =
            several.iter().map(|(file, images)| format!("{file} ({images})")).collect();
        self.report_names(
            |n| format!("note: {n} files have several frames or pages; only the first is read"),
            &names,
        );
    }

    /// Reports skipped files: their number, and some names, or all with `-v` or `--json`. Their
    /// number is printed even with `-q`.
    pub fn report_skipped(&self, skipped: &[(String, String)]) {
        if self.json && !skipped.is_empty() {
            let files: Vec<_> = skipped
                .iter()
                .map(|(file, reason)| json!({"file": file, "reason": with_flags(reason)}))
                .collect();
            outln!("{}", json!({"kind": "skipped", "count": skipped.len(), "files": files}));
        }
        let named = match (self.quiet, self.verbose) {
            (true, _) if self.json => return,
            (true, _) => 0,
            (false, true) => usize::MAX,
            (false, false) => 5,
        };
        describe_skipped(skipped, named).iter().for_each(|line| errln!("{line}"));
    }

    /// Reports `what` about some files, followed by their names: the first five, or all with `-v`.
    /// Prints nothing if `names` is empty.
    pub fn report_names(&self, what: impl Fn(usize) -> String, names: &[String]) {
        if names.is_empty() {
            return;
        }
        let shown = if self.verbose { names.len() } else { names.len().min(5) };
        let more = if names.len() > shown { ", … (-v lists all)" } else { "" };
        self.status(&format!("{}: {}{more}", what(names.len()), names[..shown].join(", ")));
    }
}

/// The message about skipped files: a line with their number, and one line for each of the first
/// `max` files. It is empty if no file was skipped.
fn describe_skipped(skipped: &[(String, String)], max: usize) -> Vec<String> {
    if skipped.is_empty() {
        return Vec::new();
    }
    let shown = skipped.len().min(max);
    let files = if skipped.len() == 1 { "file" } else { "files" };
    let end = match shown {
        0 => String::new(),
        _ if shown < skipped.len() => format!("; the first {shown} (-v names all):"),
        _ => ":".to_owned(),
    };
    let first = format!(
        "skipped {} {files} that cannot be used (--strict makes it an error){end}",
        skipped.len()
    );
    let named = |(file, reason): &(String, String)| format!("  {file}: {}", with_flags(reason));
    std::iter::once(first).chain(skipped[..shown].iter().map(named)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn skipped_files_are_counted_and_named() {
        let skipped: Vec<_> =
            (0..7).map(|i| (format!("{i}.png"), "is broken".to_owned())).collect();
        let lines = describe_skipped(&skipped, 5);
        assert!(
            lines.len() == 6
                && lines[0].starts_with("skipped 7 files")
                && lines[0].contains("first 5"),
            "{lines:?}"
        );
        assert_eq!(describe_skipped(&skipped, usize::MAX).len(), 8);
        assert_eq!(
            describe_skipped(&skipped, 0),
            ["skipped 7 files that cannot be used (--strict makes it an error)"]
        );
        assert!(
            describe_skipped(&[], 5).is_empty()
                && describe_skipped(&skipped[..1], 5)[0].contains("skipped 1 file that")
        );
    }
}
