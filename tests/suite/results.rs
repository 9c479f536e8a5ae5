//! The table of results: each row names a command, and a dated note that exists.

use std::path::Path;

use crate::support::text;

/// Columns of a row: task, measured, value, peer, command, device, note.
const COLUMNS: usize = 7;
/// The device of a row begins with one of these.
const DEVICES: [&str; 4] = ["CPU path, ", "lavapipe, ", "SwiftShader, ", "H200"];
/// Commands of rows begin with one of these.
const PROGRAMS: [&str; 3] = ["csae ", "cargo ", "benches/"];

fn folder() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("benches")
}

/// The rows of results: those of tables with [`COLUMNS`] columns, without their heads.
fn rows(text: &str) -> Vec<Vec<&str>> {
    text.lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| Task "))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect::<Vec<_>>())
        .filter(|row| row.len() == COLUMNS)
        .collect()
}

/// Whether a text is a day, such as 2026-11-29.
fn is_date(text: &str) -> bool {
    text.len() == 10
        && text.char_indices().all(|(at, letter)| match at {
            4 | 7 => letter == '-',
            _ => letter.is_ascii_digit(),
        })
}

/// The faults of a row.
fn faults(row: &[&str]) -> Vec<String> {
    let (task, value, command, device) = (row[0], row[2], row[4], row[5]);
    let mut faults = Vec::new();
    let mut check = |holds: bool, fault: &str| {
        if !holds {
            faults.push(format!("{task}: {fault}"));
        }
    };
    check(!task.is_empty() && !value.is_empty(), "has no task or no value");
    let program = command.strip_prefix('`').is_some_and(|code| {
        code.contains('`') && PROGRAMS.iter().any(|program| code.starts_with(program))
    });
    check(program || command.starts_with("the same"), "has no command");
    check(DEVICES.iter().any(|known| device.starts_with(known)), "has no device");
    let (date, link) = row[6].split_once(", [").unwrap_or_default();
    check(is_date(date), "has no date");
    let note = link.split_once("](").map_or("", |(_, path)| path.trim_end_matches(')'));
    check(!note.is_empty() && folder().join(note).is_file(), "has no note");
    faults
}

#[test]
fn every_row_names_a_command_and_a_note() {
    let text = text(folder().join("RESULTS.md"));
    let rows = rows(&text);
    assert!(rows.len() > 30, "{}", rows.len());
    let faults: Vec<String> = rows.iter().flat_map(|row| faults(row)).collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    // A row that refers to the one above needs one.
    assert!(!rows[0][4].starts_with("the same"));
}

/// Every table row is a row of results, of the machines, or a head.
#[test]
fn no_row_is_passed_over() {
    let text = text(folder().join("RESULTS.md"));
    let lines = text.lines().filter(|line| line.starts_with("| ")).count();
    let heads = text.lines().filter(|line| line.starts_with("| Task ")).count();
    let machines = text
        .lines()
        .skip_while(|line| !line.starts_with("| Machine "))
        .take_while(|line| line.starts_with('|'));
    // The line of dashes begins without a space.
    assert_eq!(rows(&text).len() + heads + machines.count() - 1, lines);
}

/// The check can fail: a missing command, device, date and note are found.
#[test]
fn an_incomplete_row_is_found() {
    let row = "| a | b | 1 | | `csae eval` | CPU path, X | 2026-11-24, \
               [n](results/2026-11-24-2-cores.md) |";
    assert_eq!(rows(row).iter().flat_map(|row| faults(row)).count(), 0);
    for (from, to) in [
        ("`csae eval`", "as before"),
        ("CPU path, X", "a GPU"),
        ("2026-11-24, ", "yesterday, "),
        ("-2-cores.md", "-no-cores.md"),
        ("| 1 |", "| |"),
    ] {
        let row = row.replace(from, to);
        assert_eq!(rows(&row).iter().flat_map(|row| faults(row)).count(), 1, "{row}");
    }
}
