//! `metrics.csv`: the log as a table that spreadsheets and data frames read.

use super::reader::Entries;
use crate::report::history::{Entry, Kind};

/// The log as a table: a row for each logged step, in which an interval and the validation of the
/// same step share a row. Numbers that depend on the clock are left out, so that a run that was
/// resumed has the same table.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    /// Step and epoch of each row.
    rows: Vec<(u64, f64)>,
    columns: Vec<Column>,
}

#[derive(Clone, Debug, PartialEq)]
struct Column {
    name: String,
    /// Index of the first row with a value.
    first: usize,
    /// Values from that row on. NaN is an empty cell.
    values: Vec<f64>,
}

/// Numbers of the log that depend on the clock.
const OF_THE_CLOCK: [&str; 1] = ["images_per_s"];

impl Table {
    /// The text of the table: a line of column names, then the rows. Cells without a number are
    /// empty.
    pub fn csv(&self) -> String {
        let mut columns: Vec<&Column> = self.columns.iter().collect();
        // The learning rate first, then training and validation, each in alphabetical order.
        let place = |column: &&Column| {
            let of_validation = column.name.starts_with("validation_");
            (column.name != "lr", of_validation, column.name.clone())
        };
        columns.sort_by_key(place);
        let mut text = String::from("step,epoch");
        for column in &columns {
            text.push(',');
            text.push_str(&quoted(&column.name));
        }
        text.push('\n');
        for (i, (step, epoch)) in self.rows.iter().enumerate() {
            text.push_str(&format!("{step},{}", number(*epoch)));
            for column in &columns {
                let value = i.checked_sub(column.first).and_then(|at| column.values.get(at));
                text.push(',');
                text.push_str(&number(value.copied().unwrap_or(f64::NAN)));
            }
            text.push('\n');
        }
        text
    }
}

/// A number as in JSON, which spreadsheets read. Nothing if it is not finite.
fn number(value: f64) -> String {
    serde_json::Number::from_f64(value).map_or_else(String::new, |number| number.to_string())
}

/// A cell of text, in quotation marks if it needs them.
fn quoted(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

impl Entries for Table {
    fn restart(&mut self) {
        *self = Self::default();
    }

    fn entry(&mut self, kind: Kind, entry: &Entry) {
        if self.rows.last().is_none_or(|(step, _)| *step != entry.step) {
            self.rows.push((entry.step, entry.epoch));
        }
        let row = self.rows.len() - 1;
        for (name, value) in entry.flat() {
            if OF_THE_CLOCK.contains(&name.as_str()) {
                continue;
            }
            let name = match kind {
                Kind::Train if name == "lr" => name,
                Kind::Train => format!("train_{name}"),
                Kind::Validation => format!("validation_{name}"),
            };
            let at = self.columns.iter().position(|column| column.name == name);
            let at = at.unwrap_or_else(|| {
                self.columns.push(Column { name, first: row, values: Vec::new() });
                self.columns.len() - 1
            });
            let column = &mut self.columns[at];
            column.values.resize(row - column.first, f64::NAN);
            column.values.push(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_has_a_row_and_a_number_has_a_column() {
        let mut table = Table::default();
        for line in [
            r#"{"kind":"validation","step":0,"epoch":0.0,"psnr":9.5,"whole":{"psnr":25.5}}"#,
            r#"{"kind":"train","step":5,"epoch":0.5,"l0":7.0,"lr":1e-9,"images_per_s":3}"#,
            r#"{"kind":"train","step":10,"epoch":1.0,"l0":5.0,"lr":0.1}"#,
            r#"{"kind":"validation","step":10,"epoch":1.0,"psnr":null,"code":24}"#,
        ] {
            let (kind, entry) = Kind::parse(line).unwrap();
            table.entry(kind, &entry);
        }
        let csv = table.csv();
        assert_eq!(
            csv,
            "step,epoch,lr,train_l0,validation_code,validation_psnr,validation_whole_psnr\n\
             0,0.0,,,,9.5,25.5\n\
             5,0.5,1e-9,7.0,,,\n\
             10,1.0,0.1,5.0,24.0,,\n"
        );
        table.restart();
        assert_eq!(table.csv(), "step,epoch\n");
    }

    #[test]
    fn names_with_commas_are_quoted() {
        assert_eq!(quoted("a,\"b"), "\"a,\"\"b\"");
        assert_eq!(quoted("a"), "a");
    }
}
