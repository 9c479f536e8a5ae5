//! Joins the parts of a table that shards wrote.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::info::ENDING;
use super::table::{array_of, inner};
use super::{Info, Shard};
use crate::data::numbers::npy_header;
use crate::error::{Error, Result};
use crate::files::{self, Partial};
use crate::tasks::features::{FeatureParts, LABELS, NAMES};

/// Bytes that are copied at a time.
const BLOCK: usize = 1 << 20;

/// Joins parts to the file `out`: the file that one process would have written. Returns the files
/// that are written: `out`, and names and labels if the parts have them.
///
/// # Errors
/// If a part is missing, is given twice, or is from another run than the others; if a file cannot
/// be read or written; or if a file exists and `may_write` refuses it.
pub fn join(
    parts: &[PathBuf],
    out: &Path,
    may_write: impl Fn(&Path) -> Result<()>,
) -> Result<Vec<PathBuf>> {
    let parts = in_order(parts)?;
    check_origin(&parts)?;
    let ending = |path: &Path| path.extension().unwrap_or_default().to_owned();
    if ending(out) != ending(&parts[0]) {
        return Err(Error::usage(format!(
            "{}: the parts are .{} files; use the same ending",
            out.display(),
            ending(&parts[0]).display()
        )));
    }
    let beside = |path: &Path, ending: &str| path.with_extension(ending);
    let has = |ending: &str| parts.iter().all(|part| beside(part, ending).is_file());
    let is_npy = ending(out) == "npy";
    let others: Vec<&str> =
        [NAMES, LABELS].into_iter().filter(|ending| is_npy && has(ending)).collect();
    let written: Vec<PathBuf> = std::iter::once(out.to_owned())
        .chain(others.iter().map(|ending| beside(out, ending)))
        .collect();
    written.iter().try_for_each(|path| may_write(path))?;
    files::make_folder(out.parent().unwrap_or(Path::new("")))?;
    for ending in others {
        let parts: Vec<PathBuf> = parts.iter().map(|part| beside(part, ending)).collect();
        join_files(&parts, &beside(out, ending))?;
    }
    join_files(&parts, out)?;
    Ok(written)
}

/// The parts in the order of their numbers. Files that stand beside a part are left out, because
/// patterns match them, too.
fn in_order(given: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut found: BTreeMap<usize, &PathBuf> = BTreeMap::new();
    let mut whole: Option<(usize, String, &PathBuf)> = None;
    for path in given {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let is_beside = [ENDING, ".names.txt", ".labels.npy", ".journal", ".partial"];
        let Some((shard, of)) = Shard::of_part(path) else {
            return Err(Error::usage(format!(
                "{}: not the name of a part, such as features.part-03-of-08.npy; name the files \
                 that the shards wrote",
                path.display()
            )));
        };
        if is_beside.iter().any(|ending| name.ends_with(ending)) {
            continue;
        }
        if let Some((parts, first, other)) = &whole
            && (*parts != shard.of || *first != of)
        {
            return Err(Error::usage(format!(
                "{} and {} are parts of different files; join them separately",
                other.display(),
                path.display()
            )));
        }
        whole.get_or_insert((shard.of, of, path));
        if let Some(other) = found.insert(shard.number, path) {
            return Err(Error::usage(format!(
                "{} and {} are both part {shard}; name each part once",
                other.display(),
                path.display()
            )));
        }
    }
    let Some((count, name, _)) = whole else {
        return Err(Error::usage("no file is a part; name the files that the shards wrote"));
    };
    let missing: Vec<String> = (1..=count)
        .filter(|number| !found.contains_key(number))
        .map(|number| format!("{number}/{count}"))
        .collect();
    if !missing.is_empty() {
        let shown = missing.len().min(5);
        let more = if missing.len() > shown { ", …" } else { "" };
        return Err(Error::usage(format!(
            "{} of {count} parts of {name} are missing: {}{more}; run these shards, or name their \
             files",
            missing.len(),
            missing[..shown].join(", ")
        )));
    }
    Ok(found.into_values().cloned().collect())
}

/// Checks that all parts are from one command, model and list of images.
fn check_origin(parts: &[PathBuf]) -> Result<()> {
    let mut first: Option<(Info, &PathBuf)> = None;
    for part in parts {
        if !part.is_file() {
            return Err(Error::usage(format!("{}: no such file", part.display())));
        }
        let Some(info) = Info::read(part)? else {
            return Err(Error::usage(format!(
                "{} is missing, which describes the part; write the part again",
                Info::file(part).display()
            )));
        };
        if let Some((other, path)) = &first
            && let Some(difference) = other.difference(&info)
        {
            return Err(Error::usage(format!(
                "{} and {} differ in {difference}; run the shards again with the same arguments",
                path.display(),
                part.display()
            )));
        }
        first.get_or_insert((info, part));
    }
    Ok(())
}

/// Joins files of one format.
fn join_files(parts: &[PathBuf], out: &Path) -> Result<()> {
    let ending = out.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
    match ending {
        "npy" => join_arrays(parts, out),
        "safetensors" => FeatureParts::open(parts)?.join(out),
        "csv" => join_lines(parts, out, true),
        "jsonl" | "txt" => join_lines(parts, out, false),
        "json" => {
            let texts: Vec<String> =
                parts.iter().map(|part| files::read_text(part)).collect::<Result<_>>()?;
            let rows: Option<Vec<&str>> = texts.iter().map(|text| inner(text)).collect();
            let rows =
                rows.ok_or_else(|| Error::usage("a part is not a JSON array; write it again"))?;
            files::write_atomically(out, array_of(rows).as_bytes())
        }
        _ => Err(Error::usage(format!(
            "{}: files of this kind have no parts; join .npy, .safetensors, .csv, .jsonl or .json",
            out.display()
        ))),
    }
}

/// Joins text files line by line. With a header only the first one is kept.
fn join_lines(parts: &[PathBuf], out: &Path, has_header: bool) -> Result<()> {
    let mut whole = Partial::create(out)?;
    let mut first = None;
    for part in parts {
        let mut file = BufReader::new(open(part)?);
        if has_header {
            let mut header = String::new();
            file.read_line(&mut header).map_err(|e| Error::io(part, &e))?;
            if *first.get_or_insert_with(|| header.clone()) != header {
                return Err(Error::usage(format!(
                    "{}: its columns differ from those of the first part",
                    part.display()
                )));
            }
            if part == &parts[0] {
                whole.write(header.as_bytes())?;
            }
        }
        copy(&mut file, part, &mut whole)?;
    }
    whole.finish()
}

fn open(path: &Path) -> Result<File> {
    File::open(path).map_err(|error| Error::io(path, &error))
}

/// Copies the rest of a file.
fn copy(from: &mut impl Read, path: &Path, to: &mut Partial) -> Result<()> {
    let mut block = vec![0; BLOCK];
    loop {
        match from.read(&mut block).map_err(|error| Error::io(path, &error))? {
            0 => return Ok(()),
            count => to.write(&block[..count])?,
        }
    }
}

/// Joins arrays along their first axis.
fn join_arrays(parts: &[PathBuf], out: &Path) -> Result<()> {
    let mut opened = Vec::new();
    for part in parts {
        let mut file = open(part)?;
        let header = npy_header::read(&mut file).map_err(|e| e.at(part.display()))?;
        opened.push((part, file, header));
    }
    let first = opened[0].2.clone();
    let mut count = 0;
    for (part, _, header) in &opened {
        let same = header.descr == first.descr
            && !header.fortran
            && !header.shape.is_empty()
            && header.shape.get(1..) == first.shape.get(1..);
        if !same {
            return Err(Error::usage(format!(
                "{}: an array of {} {}, but the first part has {} {}; write the parts again",
                part.display(),
                npy_header::shape_text(&header.shape),
                header.descr,
                npy_header::shape_text(&first.shape),
                first.descr
            )));
        }
        count += header.shape[0];
    }
    let shape: Vec<usize> = std::iter::once(count)
        .chain(first.shape[1..].iter().copied())
        .map(|n| n as usize)
        .collect();
    let mut whole = Partial::create(out)?;
    whole.write(&npy_header::encode(&first.descr, &shape))?;
    for (part, mut file, header) in opened {
        file.seek(SeekFrom::Start(header.start)).map_err(|e| Error::io(part, &e))?;
        copy(&mut file, part, &mut whole)?;
    }
    whole.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Folder;

    /// Three parts of a table of five rows.
    fn parts(folder: &Folder) -> Vec<PathBuf> {
        let names: Vec<String> = (0..5).map(|i| i.to_string()).collect();
        let mut parts = Vec::new();
        for number in 1..=3 {
            let shard = Shard { number, of: 3 };
            let part = shard.part_of(&folder.path.join("t.csv"));
            let rows: String =
                names[shard.range(5)].iter().map(|name| format!("{name},1\n")).collect();
            let info = Info::new("classify", "abc", String::new(), shard).of_list(&names);
            info.write(&part).unwrap();
            std::fs::write(&part, format!("image,score\n{rows}")).unwrap();
            parts.push(part);
        }
        parts
    }

    #[test]
    fn parts_are_joined_in_order() {
        let folder = Folder::new("join");
        let mut parts = parts(&folder);
        parts.swap(0, 2);
        parts.push(Info::file(&parts[0]));
        let out = folder.path.join("out.csv");
        assert_eq!(join(&parts, &out, |_| Ok(())).unwrap(), std::slice::from_ref(&out));
        let text = files::read_text(&out).unwrap();
        assert_eq!(text, "image,score\n0,1\n1,1\n2,1\n3,1\n4,1\n");
    }

    #[test]
    fn missing_doubled_and_foreign_parts_are_refused() {
        let folder = Folder::new("join-refused");
        let parts = parts(&folder);
        let out = folder.path.join("out.csv");
        let refusal = |parts: &[PathBuf]| join(parts, &out, |_| Ok(())).unwrap_err().to_string();
        let message = refusal(&parts[1..]);
        assert!(message.contains("1 of 3 parts of t.csv are missing: 1/3"), "{message}");
        let doubled: Vec<PathBuf> = parts.iter().chain(&parts[..1]).cloned().collect();
        assert!(refusal(&doubled).contains("both part 1/3"));
        let other = folder.path.join("u.part-01-of-03.csv");
        assert!(refusal(&[parts[0].clone(), other]).contains("parts of different files"));
        assert!(refusal(std::slice::from_ref(&out)).contains("not the name of a part"));
        let info = Info::read(&parts[1]).unwrap().unwrap();
        let text = files::read(&parts[1]).unwrap();
        Info { model: "other".to_owned(), ..info }.write(&parts[1]).unwrap();
        // A part is not left with the description of another.
        assert!(refusal(&parts).contains("no such file"));
        std::fs::write(&parts[1], text).unwrap();
        assert!(refusal(&parts).contains("differ in model (abc and other)"));
        std::fs::remove_file(Info::file(&parts[1])).unwrap();
        assert!(refusal(&parts).contains("write the part again"));
        assert!(!out.exists());
    }
}
