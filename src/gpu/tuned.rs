//! Tables of the fastest kernel variant for each shape of matrix product. Each is a short TOML
//! file. One for each kind of adapter is built in; `csae bench --tune` measures one for the user's
//! adapter.
//!
//! A product has `rows` × `columns` values, each a sum of `steps` terms. A class is the three sizes
//! rounded up to powers of two. A product whose class is not in the table uses the nearest class of
//! the same operation, if the factors between their sizes multiply to 8 at most. Products of maps
//! in half precision have their own classes; without a near one they use a class of single
//! precision.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::sync::OnceLock;

use serde::Deserialize;

use super::choice::{Choice, Traits};
use crate::cache;
use crate::error::{Error, Result};
use crate::files;
use crate::hash::Hash;
use crate::names::names;

/// Maximum distance of a class that substitutes for another: the sum of the differences of log2 of
/// rows, columns and steps. Larger values cover more shapes, with worse predictions.
const NEAR: u32 = 3;
/// Version of the file format.
const VERSION: u32 = 1;
/// The program version for which a table is valid: kernels change between versions.
const PROGRAM: &str = env!("CARGO_PKG_VERSION");

names! {
    /// A family of kernel variants for the same matrix product, with the name of the plain kernel.
    pub enum Family {
        /// A convolution.
        Conv2dFwd = "conv2d_fwd",
        /// Its gradient by the input.
        Conv2dBwdInput = "conv2d_bwd_input",
        /// Its gradient by the weight.
        Conv2dBwdWeight = "conv2d_bwd_weight",
    }
}

/// The size of a matrix product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Product {
    /// The family of kernels that compute it.
    pub family: Family,
    /// Whether its maps are in half precision.
    pub half: bool,
    /// Rows: pixels, or in a weight gradient taps × channels.
    pub rows: usize,
    /// Columns: channels or filters.
    pub columns: usize,
    /// Terms of each sum.
    pub steps: usize,
}

impl Product {
    /// Whether matrix units compute the product faster than other kernels on most GPUs. They do
    /// not if it has few columns or terms, or few rows of a weight gradient: then most of a matrix
    /// is empty. The bounds are measured on an H200 (`benches/results/2026-11-29-h200.md`).
    pub const fn suits_units(&self) -> bool {
        let (rows, steps) = match self.family {
            Family::Conv2dBwdWeight => (128, 512),
            Family::Conv2dFwd | Family::Conv2dBwdInput => (1, 128),
        };
        self.columns >= 32 && self.rows >= rows && self.steps >= steps
    }
}

/// How to compute products of a class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The kernel variant.
    pub kernels: Choice,
    /// Sums have this many times fewer slices than a large GPU needs. A small GPU is busy without
    /// them, and saves the time to add the slices.
    pub fewer_slices: usize,
}

impl Setting {
    /// A variant with as many slices as a large GPU needs.
    pub const fn of(kernels: Choice) -> Self {
        Self { kernels, fewer_slices: 1 }
    }
}

/// Products of about the same shape. Sizes are logarithms to base 2, rounded up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Class {
    half: bool,
    family: Family,
    rows: u32,
    columns: u32,
    steps: u32,
}

impl Product {
    /// The class of the product.
    pub fn class(&self) -> Class {
        let log = |size: usize| size.next_power_of_two().trailing_zeros();
        Class {
            half: self.half,
            family: self.family,
            rows: log(self.rows),
            columns: log(self.columns),
            steps: log(self.steps),
        }
    }
}

impl Class {
    /// The distance to another class, if that may substitute for this one. A class of single
    /// precision may substitute for one of half precision, but ranks behind all of half precision.
    fn distance(&self, other: &Self) -> Option<(bool, u32)> {
        let pairs =
            [(self.rows, other.rows), (self.columns, other.columns), (self.steps, other.steps)];
        let apart = pairs.into_iter().map(|(a, b)| a.abs_diff(b)).sum();
        let stands = self.family == other.family && (self.half || !other.half);
        (stands && apart <= NEAR).then_some((self.half != other.half, apart))
    }
}

/// A table of settings by class.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tuned {
    classes: BTreeMap<Class, Setting>,
}

/// A built-in table for one kind of adapter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuiltIn {
    /// The kind of adapter.
    pub name: &'static str,
    /// The variant for products without a near class in the table.
    pub default: Choice,
    table: Tuned,
}

impl BuiltIn {
    /// The table for an adapter.
    pub fn of(traits: &Traits) -> &'static Self {
        static TABLES: [OnceLock<BuiltIn>; 4] = [const { OnceLock::new() }; 4];
        let (index, name, text) = if !traits.software && traits.few_registers {
            (
                3,
                "GPUs with few registers",
                include_str!("../../assets/tuned/gpus-few-registers.toml"),
            )
        } else if !traits.software {
            (0, "GPUs", include_str!("../../assets/tuned/gpus.toml"))
        } else if traits.takes(Choice::Subgroup) {
            (
                1,
                "software adapters with subgroups",
                include_str!("../../assets/tuned/software-subgroups.toml"),
            )
        } else {
            (
                2,
                "software adapters without subgroups",
                include_str!("../../assets/tuned/software.toml"),
            )
        };
        TABLES[index]
            .get_or_init(|| Self::parse(name, text).expect("a test parses the built-in tables"))
    }

    fn parse(name: &'static str, text: &str) -> Option<Self> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Text {
            default: String,
            #[serde(default)]
            products: Vec<Row>,
        }
        let text: Text = toml::from_str(text).ok()?;
        Some(Self {
            name,
            default: variant(&text.default)?,
            table: Tuned { classes: classes(&text.products)? },
        })
    }

    /// How to compute a product.
    pub fn setting(&self, product: &Product) -> Setting {
        self.table.setting(product).unwrap_or(Setting::of(self.default))
    }
}

/// The file of a user's table.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    version: u32,
    csae: String,
    adapter: String,
    products: Vec<Row>,
}

/// The kernel variant of a name, other than `auto`.
fn variant(name: &str) -> Option<Choice> {
    Choice::ALL.into_iter().find(|choice| *choice != Choice::Auto && choice.name() == name)
}

/// The classes of a file's rows. None if a row is invalid.
fn classes(rows: &[Row]) -> Option<BTreeMap<Class, Setting>> {
    let log = |size: u64| size.is_power_of_two().then(|| size.trailing_zeros());
    let class = |row: &Row| {
        let family = Family::named(&row.op)?;
        let setting = Setting { kernels: variant(&row.kernels)?, fewer_slices: row.fewer_slices };
        let class = Class {
            half: row.half,
            family,
            rows: log(row.rows)?,
            columns: log(row.columns)?,
            steps: log(row.steps)?,
        };
        Some((class, setting)).filter(|_| setting.fewer_slices > 0)
    };
    rows.iter().map(class).collect()
}

/// One class in a file: rows, columns and steps are powers of two.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    op: String,
    #[serde(default)]
    half: bool,
    rows: u64,
    columns: u64,
    steps: u64,
    kernels: String,
    #[serde(default = "one")]
    fewer_slices: usize,
}

const fn one() -> usize {
    1
}

impl Tuned {
    /// A table of classes and their settings.
    pub fn new(classes: impl IntoIterator<Item = (Class, Setting)>) -> Self {
        Self { classes: classes.into_iter().collect() }
    }

    /// Number of classes.
    pub fn len(&self) -> usize {
        self.classes.len()
    }

    /// Whether the table has no classes.
    pub fn is_empty(&self) -> bool {
        self.classes.is_empty()
    }

    /// Whether any class uses a variant.
    pub fn names(&self, choice: Choice) -> bool {
        self.classes.values().any(|setting| setting.kernels == choice)
    }

    /// Adds the classes of `other` for each precision that this table has no classes of.
    #[must_use]
    pub fn beside(mut self, other: &Self) -> Self {
        let here: Vec<bool> = [false, true]
            .into_iter()
            .filter(|half| self.classes.keys().any(|class| class.half == *half))
            .collect();
        let others = other.classes.iter().filter(|(class, _)| !here.contains(&class.half));
        self.classes.extend(others.map(|(class, setting)| (*class, *setting)));
        self
    }

    /// Hash of the table, which identifies it.
    pub fn hash(&self) -> u32 {
        Hash::default().with(self.text("").as_bytes()).value() as u32
    }

    /// How to compute a product: the setting of the nearest class, if one is near enough.
    pub fn setting(&self, product: &Product) -> Option<Setting> {
        let class = product.class();
        let near = self
            .classes
            .iter()
            .filter_map(|(known, setting)| Some((class.distance(known)?, setting)));
        near.min_by_key(|(distance, _)| *distance).map(|(_, setting)| *setting)
    }

    /// Whether it has classes of maps in half precision.
    pub fn has_half(&self) -> bool {
        self.classes.keys().any(|class| class.half)
    }

    /// The text of a file for one adapter.
    pub fn text(&self, identity: &str) -> String {
        let mut text = format!(
            "# The fastest kernel variants for matrix products, by rows, columns and steps\n\
             # rounded up to powers of two, and by how much to divide the number of slices of\n\
             # their sums. Measured by `csae bench`. Without this file csae uses a built-in\n\
             # table.\n\
             version = {VERSION}\ncsae = {}\nadapter = {}\nproducts = [\n",
            toml::Value::from(PROGRAM),
            toml::Value::from(identity)
        );
        for (class, setting) in &self.classes {
            let [rows, columns, steps] =
                [class.rows, class.columns, class.steps].map(|log| 1_u64 << log);
            let (op, kernels) = (class.family.name(), setting.kernels.name());
            let fewer = match setting.fewer_slices {
                1 => String::new(),
                fewer => format!(", fewer_slices = {fewer}"),
            };
            let half = if class.half { "half = true, " } else { "" };
            let _ = writeln!(
                text,
                "  {{ op = \"{op}\", {half}rows = {rows}, columns = {columns}, steps = {steps}, \
                 kernels = \"{kernels}\"{fewer} }},"
            );
        }
        text + "]\n"
    }

    /// Parses the text of a file.
    ///
    /// # Errors
    /// If it is invalid, or belongs to another adapter or another version of the program.
    pub fn parse(text: &str, identity: &str) -> Result<Self> {
        let written: Written = toml::from_str(text)
            .map_err(|error| Error::failed(format!("not a valid table ({})", error.message())))?;
        if written.version != VERSION || written.csae != PROGRAM {
            return Err(Error::failed(format!("was written by csae {}", written.csae)));
        }
        if identity != written.adapter {
            return Err(Error::failed(format!(
                "was measured on another adapter ({})",
                written.adapter
            )));
        }
        let classes = classes(&written.products)
            .ok_or_else(|| Error::failed("not a valid table (unknown op, size or kernels)"))?;
        if classes.is_empty() {
            return Err(Error::failed("contains no products"));
        }
        Ok(Self { classes })
    }

    /// Reads the user's table for an adapter. None if the file does not exist. `identity` is
    /// [`Adapter::identity`](super::Adapter::identity).
    ///
    /// # Errors
    /// If it cannot be read or belongs to another adapter or version. The caller should then use
    /// the built-in table.
    pub fn read(path: &Path, identity: &str) -> Result<Option<Self>> {
        if !path.exists() {
            return Ok(None);
        }
        let table = files::read_text(path).and_then(|text| {
            Self::parse(&text, identity).map_err(|error| error.at(path.display()))
        });
        table.map(Some)
    }

    /// Path of the user's table for an adapter. None if there is no cache folder.
    pub fn path(identity: &str) -> Option<std::path::PathBuf> {
        cache::file("tuned", identity, "toml")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn product(rows: usize, columns: usize, steps: usize) -> Product {
        Product { family: Family::Conv2dFwd, half: false, rows, columns, steps }
    }

    fn choice(table: &Tuned, product: &Product) -> Option<Choice> {
        table.setting(product).map(|setting| setting.kernels)
    }

    #[test]
    fn a_table_survives_writing_and_reading() {
        let classes = [
            (product(1000, 32, 27).class(), Setting::of(Choice::Tiled)),
            (product(1000, 3, 27).class(), Setting { kernels: Choice::Plain, fewer_slices: 4 }),
        ];
        let table = Tuned::new(classes);
        let text = table.text("an \"adapter\" \\ its driver");
        assert_eq!(Tuned::parse(&text, "an \"adapter\" \\ its driver").unwrap(), table);
        assert!(text.contains("rows = 1024, columns = 4, steps = 32"), "{text}");
        for (what, wrong) in [
            ("another adapter", text.clone()),
            ("was written by", text.replace("csae = \"", "csae = \"9")),
            ("unknown op, size or kernels", text.replace("conv2d_fwd", "conv2d_sideways")),
            ("unknown op, size or kernels", text.replace("plain", "auto")),
            ("unknown op, size or kernels", text.replace("1024", "1000")),
            ("unknown op, size or kernels", text.replace("slices = 4", "slices = 0")),
            ("not a valid table", text.replace("rows", "lines")),
            ("not a valid table", text[..text.len() / 2].to_owned()),
        ] {
            let identity =
                if what == "another adapter" { "mine" } else { "an \"adapter\" \\ its driver" };
            let error = Tuned::parse(&wrong, identity).unwrap_err().to_string();
            assert!(error.contains(what), "{what}: {error}");
        }
    }

    #[test]
    fn the_nearest_class_substitutes_for_a_missing_one() {
        let table = Tuned::new([
            (product(1024, 32, 32).class(), Setting::of(Choice::Tiled)),
            (product(1024, 4, 32).class(), Setting::of(Choice::Plain)),
            (
                Product { family: Family::Conv2dBwdInput, ..product(64, 64, 64) }.class(),
                Setting::of(Choice::Registers),
            ),
        ]);
        let choice = |rows, columns, steps| {
            table.setting(&product(rows, columns, steps)).map(|setting| setting.kernels)
        };
        assert_eq!(choice(513, 17, 17), Some(Choice::Tiled));
        assert_eq!(choice(1024, 3, 27), Some(Choice::Plain));
        assert_eq!(choice(8192, 32, 32), Some(Choice::Tiled));
        assert_eq!(choice(16384, 32, 32), None);
        assert_eq!(choice(1024, 1, 8), None);
        assert_eq!(choice(64, 64, 64), None, "a class of another operation");
    }

    #[test]
    fn each_precision_has_its_own_classes() {
        let half = |product: Product| Product { half: true, ..product };
        let (near, far) = (product(1024, 32, 32), product(4096, 32, 32));
        let single = Tuned::new([(near.class(), Setting::of(Choice::Registers))]);
        assert_eq!(choice(&single, &half(near)), Some(Choice::Registers), "fallback");
        let both = Tuned::new([(half(near).class(), Setting::of(Choice::Matrix))]).beside(&single);
        assert_eq!(
            (choice(&both, &near), choice(&both, &half(near))),
            (Some(Choice::Registers), Some(Choice::Matrix))
        );
        assert_eq!(
            choice(&both, &half(far)),
            Some(Choice::Matrix),
            "a class of half precision ranks before a nearer one of single precision"
        );
        assert!(both.names(Choice::Matrix) && !single.names(Choice::Matrix));
        let text = both.text("adapter");
        assert_eq!(Tuned::parse(&text, "adapter").unwrap(), both);
        assert!(both.has_half() && !single.has_half());
        let remeasured =
            Tuned::new([(half(far).class(), Setting::of(Choice::Tiled))]).beside(&both);
        assert_eq!(
            (choice(&remeasured, &half(near)), remeasured.len()),
            (Some(Choice::Tiled), 2),
            "new measurements replace old ones of the same precision"
        );
        let halves = Tuned::new([(half(near).class(), Setting::of(Choice::Tiled))]);
        assert_eq!(choice(&halves, &near), None);
    }

    #[test]
    fn built_in_tables_hold_only_variants_that_run() {
        let with = Traits { software: true, subgroup: 8, int64: true, ..Traits::default() };
        let without = Traits { subgroup: 4, ..with };
        let gpu = Traits { software: false, subgroup: 32, int64: true, ..Traits::default() };
        let intel = Traits { few_registers: true, subgroup: 8, ..gpu };
        let all = [gpu, intel, with, without];
        let tables = all.map(|traits| BuiltIn::of(&traits));
        assert_eq!(
            tables.map(|table| table.default),
            [Choice::Tiled, Choice::Tiled8x4, Choice::Subgroup, Choice::Registers]
        );
        for (traits, built_in) in all.into_iter().zip(tables) {
            assert!(
                built_in.table.classes.values().all(|setting| traits.takes(setting.kernels)),
                "{built_in:?}"
            );
            let far = built_in.setting(&product(1 << 40, 1, 1 << 40));
            assert_eq!(far, Setting::of(built_in.default));
        }
    }
}
