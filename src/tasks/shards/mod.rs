//! Shards: contiguous parts of a list of images, each processed by a process of its own, and the
//! tables that they write.

mod info;
pub mod join;
mod table;

pub use info::Info;
pub use table::{Format, Table, json_rows, quoted};

use std::ops::Range;
use std::path::{Path, PathBuf};

/// A part of a list of images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    /// Its number, from 1.
    pub number: usize,
    /// Number of parts.
    pub of: usize,
}

impl Shard {
    /// The only part: all images.
    pub const WHOLE: Self = Self { number: 1, of: 1 };

    /// Part `number` of `of`, if `number` is from 1 to `of`.
    pub fn new(number: usize, of: usize) -> Option<Self> {
        (1..=of).contains(&number).then_some(Self { number, of })
    }

    /// Parses `3/8`.
    pub fn parse(text: &str) -> Option<Self> {
        let (number, of) = text.split_once('/')?;
        Self::new(whole(number)?, whole(of)?)
    }

    /// The places of its images among `count`. The parts follow each other, so that their tables
    /// are joined by writing one after the other. Their sizes differ by at most one.
    pub fn range(self, count: usize) -> Range<usize> {
        // In 128 bits, because the product can be larger than the number of places.
        let start = |part: usize| (part as u128 * count as u128 / self.of as u128) as usize;
        start(self.number - 1)..start(self.number)
    }

    /// The file for its part of the file `whole`: `scores.part-03-of-08.csv` for `scores.csv`.
    pub fn part_of(self, whole: &Path) -> PathBuf {
        let digits = self.of.to_string().len().max(2);
        let mut name = whole.file_stem().unwrap_or_default().to_os_string();
        name.push(format!("{PART}{:0digits$}{OF}{:0digits$}", self.number, self.of));
        if let Some(extension) = whole.extension() {
            name.push(".");
            name.push(extension);
        }
        whole.with_file_name(name)
    }

    /// The part that a file is, and the name of the whole file.
    pub fn of_part(path: &Path) -> Option<(Self, String)> {
        let name = path.file_name()?.to_str()?;
        let (stem, rest) = name.rsplit_once(PART)?;
        let (numbers, extension) = rest.split_once('.')?;
        let (number, of) = numbers.split_once(OF)?;
        let shard = Self::new(whole(number)?, whole(of)?)?;
        Some((shard, format!("{stem}.{extension}")))
    }
}

const PART: &str = ".part-";
const OF: &str = "-of-";

/// A number in digits only.
fn whole(text: &str) -> Option<usize> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_number)
}

impl std::fmt::Display for Shard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.number, self.of)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_is_in_one_part_and_sizes_differ_by_one() {
        for (count, of) in [(0, 3), (1, 3), (2, 8), (10, 3), (10_000, 8), (usize::MAX, 7)] {
            let parts: Vec<Range<usize>> =
                (1..=of).map(|number| Shard { number, of }.range(count)).collect();
            assert_eq!((parts[0].start, parts[of - 1].end), (0, count));
            assert!(parts.windows(2).all(|two| two[0].end == two[1].start), "{parts:?}");
            let sizes = || parts.iter().map(Range::len);
            assert!(sizes().max().unwrap() - sizes().min().unwrap() <= 1, "{parts:?}");
        }
        assert_eq!(Shard::WHOLE.range(5), 0..5);
    }

    #[test]
    fn numbers_are_from_one_to_the_number_of_parts() {
        assert_eq!(Shard::parse("3/8"), Some(Shard { number: 3, of: 8 }));
        assert_eq!(Shard::parse("8/8"), Some(Shard { number: 8, of: 8 }));
        for wrong in
            ["0/8", "9/8", "x", "1/0", "0/0", "", "/", "1/", "+1/8", "1/8/2", " 1/8", "-1/8"]
        {
            assert_eq!(Shard::parse(wrong), None, "{wrong:?}");
        }
        assert_eq!(Shard::parse("1/99999999999999999999"), None);
    }

    #[test]
    fn names_of_parts_sort_in_order_and_are_read_back() {
        let part = |number, of, whole: &str| Shard { number, of }.part_of(Path::new(whole));
        assert_eq!(part(3, 8, "a/x.csv"), Path::new("a/x.part-03-of-08.csv"));
        assert_eq!(part(3, 128, "x.y.npy"), Path::new("x.y.part-003-of-128.npy"));
        assert!(part(9, 10, "x.csv") < part(10, 10, "x.csv"));
        for (number, of) in [(3, 8), (100, 128)] {
            let path = part(number, of, "a/x.y.npy");
            let found = Shard::of_part(&path).unwrap();
            assert_eq!(found, (Shard { number, of }, "x.y.npy".to_owned()));
        }
        for other in ["x.csv", "x.part-09-of-08.csv", "x.part-0-of-8.csv", "x.part-1.csv"] {
            assert_eq!(Shard::of_part(Path::new(other)), None, "{other}");
        }
    }
}
