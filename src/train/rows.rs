//! The table of a training that is printed while it runs: a row for each validation.

use serde_json::Value;

use super::log::Progress;

/// Numbers that validations have, in the order in which they are preferred for the table: path in
/// the result, heading, factor.
const VALIDATIONS: [(&str, &str, f64); 7] = [
    ("/whole/psnr", "PSNR dB", 1.0),
    ("/psnr", "PSNR dB", 1.0),
    ("/error", "error %", 100.0),
    ("/dice", "Dice", 1.0),
    ("/map50", "mAP50", 1.0),
    ("/sum_squares", "‖x−x̂‖²", 1.0),
    ("/score", "score", 1.0),
];

/// A validation with the state of the training at that time.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Row {
    /// Number of epochs done.
    pub epoch: f64,
    /// Training loss over the last logging interval.
    pub loss: Option<f64>,
    /// Heading and value of the validation.
    pub validation: Option<(&'static str, f64)>,
    /// Mean number of elements of the code that are not 0.
    pub l0: Option<f64>,
    /// Share of dead units.
    pub dead: Option<f64>,
    /// Learning rate.
    pub lr: Option<f64>,
    /// Memory on the device in bytes.
    pub memory: u64,
    /// Whether it is the best validation so far.
    pub best: bool,
}

impl Row {
    /// The row of a validation with these results. `progress` is that of the last logging interval.
    pub(super) fn new(epoch: f64, results: &Value, progress: Option<&Progress>) -> Self {
        let number = |path: &str| results.pointer(path).and_then(Value::as_f64);
        let find = |(path, head, factor): &(&str, &'static str, f64)| {
            Some((*head, number(path)? * factor))
        };
        let term = |name: &str| {
            let found = progress?.terms.iter().find(|(term, _)| *term == name);
            found.map(|(_, mean)| *mean)
        };
        Self {
            epoch,
            loss: term("reconstruction").or_else(|| term("loss")),
            validation: VALIDATIONS.iter().find_map(find),
            l0: number("/l0"),
            dead: number("/dead_share"),
            lr: progress.map(|progress| progress.lr),
            memory: 0,
            best: false,
        }
    }
}

/// A column: its heading, its width, and its rank. A column of a higher rank is left out first.
type Column = (&'static str, usize, u8);

/// Widths of the columns, with the space before them.
#[derive(Clone, Debug)]
pub(super) struct Rows {
    columns: Vec<Column>,
    /// What marks the best validation.
    mark: &'static str,
}

impl Rows {
    /// The columns for rows like this one, in a terminal of `width` columns. `None`: any width.
    pub(super) fn new(row: &Row, width: Option<usize>) -> Self {
        let mut columns: Vec<Column> = vec![("epoch", 8, 0), ("loss", 10, 1)];
        columns.extend(row.validation.map(|(head, _)| (head, 10, 0)));
        columns.extend(row.l0.map(|_| ("L0", 9, 2)));
        columns.extend(row.dead.map(|_| ("dead", 8, 3)));
        columns.extend([("rate", 9, 4), ("memory", 10, 5)]);
        // A terminal breaks a line that fills its last column.
        let limit = width.unwrap_or(usize::MAX).saturating_sub(1);
        let used = |columns: &[Column]| columns.iter().map(|column| column.1).sum::<usize>();
        let mut mark = "  best";
        if used(&columns) + mark.len() > limit {
            mark = " *";
            columns.iter_mut().for_each(|column| column.1 -= 2);
        }
        while used(&columns) + mark.len() > limit && columns.len() > 1 {
            let least = columns.iter().map(|column| column.2).max().unwrap_or(0);
            let at = columns.iter().rposition(|column| column.2 == least).unwrap_or(0);
            columns.remove(at);
        }
        Self { columns, mark }
    }

    /// The line of headings.
    pub(super) fn head(&self) -> String {
        let cell = |(head, width, _): &Column| right(head, *width);
        self.columns.iter().map(cell).collect()
    }

    /// The line of a row.
    pub(super) fn line(&self, row: &Row) -> String {
        let text = |value: Option<f64>, shown: &dyn Fn(f64) -> String| {
            value.map_or_else(|| "–".to_owned(), shown)
        };
        let cell = |(head, width, _): &Column| {
            let text = match *head {
                "epoch" => format!("{:.2}", row.epoch),
                "loss" => text(row.loss, &significant),
                "L0" => text(row.l0, &|l0| format!("{l0:.1}")),
                "dead" => text(row.dead, &|dead| format!("{:.1} %", 100.0 * dead)),
                "rate" => text(row.lr, &rate),
                "memory" => bytes(row.memory),
                _ => text(row.validation.map(|(_, value)| value), &significant),
            };
            right(&text, *width)
        };
        let mut line: String = self.columns.iter().map(cell).collect();
        if row.best {
            line.push_str(self.mark);
        }
        line
    }
}

/// Pads on the left. Combining characters take no width.
fn right(text: &str, width: usize) -> String {
    let shown = text.chars().filter(|letter| *letter != '\u{302}').count();
    format!("{}{text}", " ".repeat(width.saturating_sub(shown).max(1)))
}

/// A number with four significant digits.
pub(super) fn significant(value: f64) -> String {
    let size = value.abs().log10().floor();
    if value == 0.0 || !value.is_finite() {
        return format!("{value}");
    }
    if (-3.0..5.0).contains(&size) {
        format!("{value:.*}", (3.0 - size).max(0.0) as usize)
    } else {
        format!("{value:.2e}")
    }
}

/// A learning rate.
pub(super) fn rate(lr: f64) -> String {
    if lr == 0.0 { "0".to_owned() } else { format!("{lr:.1e}") }
}

/// A number of bytes in MiB, and from 1000 MiB on in GiB.
fn bytes(count: u64) -> String {
    let mib = count as f64 / f64::from(1 << 20);
    if mib < 1000.0 { format!("{mib:.0} MiB") } else { format!("{:.1} GiB", mib / 1024.0) }
}

/// Joins as many parts as fit into `width` columns with two spaces between them. The first part is
/// always there.
pub(super) fn fitting(parts: &[String], width: Option<usize>) -> String {
    let limit = width.unwrap_or(usize::MAX).saturating_sub(1);
    let mut line = parts.first().cloned().unwrap_or_default();
    for part in parts.iter().skip(1) {
        if line.chars().count() + 2 + part.chars().count() > limit {
            break;
        }
        line = format!("{line}  {part}");
    }
    line
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;

    fn progress() -> Progress {
        Progress {
            step: 10,
            total: 20,
            epoch: 1.0,
            terms: vec![("reconstruction", 12.3456), ("sparsity", 0.5), ("l0", 7.0)],
            lr: 1e-3,
            rate: 500.0,
            eta: Duration::from_secs(5),
        }
    }

    fn row() -> Row {
        let results = json!({"psnr": 21.4321, "l0": 14.25, "dead_share": 0.031, "score": -5.0});
        Row { memory: 3 << 29, best: true, ..Row::new(1.5, &results, Some(&progress())) }
    }

    #[test]
    fn a_row_has_all_numbers_where_there_is_room() {
        let rows = Rows::new(&row(), None);
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(
            words(&rows.head()),
            ["epoch", "loss", "PSNR", "dB", "L0", "dead", "rate", "memory"]
        );
        assert_eq!(
            words(&rows.line(&row())),
            ["1.50", "12.35", "21.43", "14.2", "3.1", "%", "1.0e-3", "1.5", "GiB", "best"]
        );
        assert!(!rows.line(&Row { best: false, ..row() }).contains("best"));
    }

    #[test]
    fn rows_fit_into_every_width() {
        for width in 20..120 {
            let rows = Rows::new(&row(), Some(width));
            for line in [rows.head(), rows.line(&row())] {
                assert!(line.chars().count() < width, "{width}: {line:?}");
            }
            assert_eq!(rows.head().chars().count() + rows.mark.len(), rows.line(&row()).len());
        }
        let narrow = Rows::new(&row(), Some(40));
        let line = narrow.line(&row());
        for text in ["1.50", "12.35", "21.43", "14.2", "3.1 %", "*"] {
            assert!(line.contains(text), "{line}");
        }
        assert!(!line.contains("GiB"), "{line}");
    }

    #[test]
    fn classifiers_have_their_error_and_no_code() {
        let rows = Rows::new(&Row::new(1.0, &json!({"error": 0.25, "score": -0.25}), None), None);
        assert!(rows.head().contains("error %") && !rows.head().contains("L0"));
        let line = rows.line(&Row::new(1.0, &json!({"error": 0.25}), None));
        assert!(line.contains("25.00") && line.contains('–'), "{line}");
    }

    #[test]
    fn numbers_have_four_digits() {
        let found = [1234.56, 0.012_345, 123_456.0, 1e-9, 0.0, 5.0].map(significant);
        assert_eq!(found, ["1235", "0.01235", "1.23e5", "1.00e-9", "0", "5.000"]);
    }

    #[test]
    fn parts_that_do_not_fit_are_left_out() {
        let parts = ["epoch 1", "loss 2", "left 3"].map(str::to_owned);
        assert_eq!(fitting(&parts, Some(16)), "epoch 1  loss 2");
        assert_eq!(fitting(&parts, Some(15)), "epoch 1");
        assert_eq!(fitting(&parts, Some(3)), "epoch 1");
        assert_eq!(fitting(&parts, None), "epoch 1  loss 2  left 3");
    }
}
