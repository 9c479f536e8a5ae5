//! Tables of measurements: which kind of kernel a product of matrices takes, by its shape. Some are
//! built in, one a kind of adapter; `csae bench --tune` makes one of the user's own adapter. Each
//! is a short TOML file.
//!
//! A product is `rows` × `columns` values, each a sum of `steps` terms; a class is the three
//! rounded up to powers of two. A product that is in no class of the table takes the nearest class
//! of its operation, if their sizes are no more than a factor of 8 apart altogether. Products of
//! maps in half precision have classes of their own; those that have none near take one of single
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

/// Powers of two, over rows, columns and steps together, to the farthest class that stands for a
/// shape.
const NEAR: u32 = 3;
/// Version of the file.
const VERSION: u32 = 1;
/// What a table is good for: kernels change with the program.
const PROGRAM: &str = env!("CARGO_PKG_VERSION");

names! {
    /// The kernels that compute products of matrices in different ways, by the name of the plain one.
    pub enum Family {
        /// A convolution.
        Conv2dFwd = "conv2d_fwd",
        /// Its gradient by the input.
        Conv2dBwdInput = "conv2d_bwd_input",
        /// Its gradient by the weight.
        Conv2dBwdWeight = "conv2d_bwd_weight",
    }
}

/// A product of matrices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Product {
    /// Which kernels compute it.
    pub family: Family,
    /// Whether it is of maps in half precision.
    pub half: bool,
    /// Pixels; in a weight gradient taps × channels.
    pub rows: usize,
    /// Channels or filters.
    pub columns: usize,
    /// Terms of each sum.
    pub steps: usize,
}

/// Products of about the same shape: logarithms to base 2, rounded up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Class {
    half: bool,
    family: Family,
    rows: u32,
    columns: u32,
    steps: u32,
}

impl Product {
    /// Its class.
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
    /// How far another class is, if it is near enough to stand for this one. One of single
    /// precision may, after those of halves, for one of halves.
    fn distance(&self, other: &Self) -> Option<(bool, u32)> {
        let pairs =
            [(self.rows, other.rows), (self.columns, other.columns), (self.steps, other.steps)];
        let apart = pairs.into_iter().map(|(a, b)| a.abs_diff(b)).sum();
        let stands = self.family == other.family && (self.half || !other.half);
        (stands && apart <= NEAR).then_some((self.half != other.half, apart))
    }
}

/// A table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tuned {
    classes: BTreeMap<Class, Choice>,
}

/// A table that comes with the program, for adapters of a kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuiltIn {
    /// The kind of adapters.
    pub name: &'static str,
    /// What products take that are in no class of the table.
    pub usual: Choice,
    table: Tuned,
}

impl BuiltIn {
    /// The one for an adapter.
    pub fn of(traits: &Traits) -> &'static Self {
        static TABLES: [OnceLock<BuiltIn>; 3] = [const { OnceLock::new() }; 3];
        let (index, name, text) = if !traits.software {
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
            usual: String,
            #[serde(default)]
            products: Vec<Row>,
        }
        let text: Text = toml::from_str(text).ok()?;
        Some(Self {
            name,
            usual: kind(&text.usual)?,
            table: Tuned { classes: classes(&text.products)? },
        })
    }

    /// The kind that a product takes.
    pub fn choice(&self, product: &Product) -> Choice {
        self.table.choice(product).unwrap_or(self.usual)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    version: u32,
    csae: String,
    adapter: String,
    products: Vec<Row>,
}

/// The kind of a name, `auto` not among them.
fn kind(name: &str) -> Option<Choice> {
    Choice::ALL.into_iter().find(|choice| *choice != Choice::Auto && choice.name() == name)
}

fn classes(rows: &[Row]) -> Option<BTreeMap<Class, Choice>> {
    let log = |size: u64| size.is_power_of_two().then(|| size.trailing_zeros());
    let class = |row: &Row| {
        let family = Family::named(&row.op)?;
        let (half, kernels) = (row.half, kind(&row.kernels)?);
        let class = Class {
            half,
            family,
            rows: log(row.rows)?,
            columns: log(row.columns)?,
            steps: log(row.steps)?,
        };
        Some((class, kernels)).filter(|_| half || kernels != Choice::Matrix)
    };
    rows.iter().map(class).collect()
}

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
}

impl Tuned {
    /// A table of classes and the kind that each takes.
    pub fn new(classes: impl IntoIterator<Item = (Class, Choice)>) -> Self {
        Self { classes: classes.into_iter().collect() }
    }

    /// Number of its classes.
    pub fn len(&self) -> usize {
        self.classes.len()
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.classes.is_empty()
    }

    /// Whether a kind is taken by any class.
    pub fn names(&self, choice: Choice) -> bool {
        self.classes.values().any(|taken| *taken == choice)
    }

    /// With the classes that another table has for products of the other precision than those here.
    #[must_use]
    pub fn beside(mut self, other: &Self) -> Self {
        let here: Vec<bool> = [false, true]
            .into_iter()
            .filter(|half| self.classes.keys().any(|class| class.half == *half))
            .collect();
        let others = other.classes.iter().filter(|(class, _)| !here.contains(&class.half));
        self.classes.extend(others.map(|(class, choice)| (*class, *choice)));
        self
    }

    /// Tells tables apart.
    pub fn hash(&self) -> u32 {
        Hash::default().with(self.text("").as_bytes()).value() as u32
    }

    /// The kind that a product takes.
    pub fn choice(&self, product: &Product) -> Option<Choice> {
        let class = product.class();
        let near = self
            .classes
            .iter()
            .filter_map(|(known, choice)| Some((class.distance(known)?, choice)));
        near.min_by_key(|(distance, _)| *distance).map(|(_, choice)| *choice)
    }

    /// As a file of one adapter.
    pub fn text(&self, identity: &str) -> String {
        let mut text = format!(
            "# Which kernels products of matrices take, by rows, columns and steps rounded up to powers of two: `csae bench --tune` wrote this,\n\
             # and without it csae takes what suits adapters of the kind.\n\
             version = {VERSION}\ncsae = {}\nadapter = {}\nproducts = [\n",
            toml::Value::from(PROGRAM),
            toml::Value::from(identity)
        );
        for (class, choice) in &self.classes {
            let [rows, columns, steps] =
                [class.rows, class.columns, class.steps].map(|log| 1_u64 << log);
            let (op, kernels) = (class.family.name(), choice.name());
            let half = if class.half { "half = true, " } else { "" };
            let _ = writeln!(
                text,
                "  {{ op = \"{op}\", {half}rows = {rows}, columns = {columns}, steps = {steps}, kernels = \"{kernels}\" }},"
            );
        }
        text + "]\n"
    }

    /// Reads a file's text; one of another adapter or another version of the program is refused.
    pub fn parse(text: &str, identity: &str) -> Result<Self> {
        let written: Written = toml::from_str(text)
            .map_err(|error| Error::failed(format!("no table ({})", error.message())))?;
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
            .ok_or_else(|| Error::failed("no table (a product of no known kind)"))?;
        if classes.is_empty() {
            return Err(Error::failed("holds no product"));
        }
        Ok(Self { classes })
    }

    /// The user's table for an adapter, if there is one:
    /// [`Adapter::identity`](super::Adapter::identity).
    ///
    /// # Errors
    /// If it cannot be read or is another's; the built-in one is the one to take then.
    pub fn read(path: &Path, identity: &str) -> Result<Option<Self>> {
        if !path.exists() {
            return Ok(None);
        }
        let table = files::read_text(path).and_then(|text| {
            Self::parse(&text, identity).map_err(|error| error.at(path.display()))
        });
        table.map(Some)
    }

    /// Where the user's table for an adapter is kept.
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

    #[test]
    fn a_table_is_read_back_as_it_was_written() {
        let classes = [
            (product(1000, 32, 27).class(), Choice::Tiled),
            (product(1000, 3, 27).class(), Choice::Plain),
        ];
        let table = Tuned::new(classes);
        let text = table.text("an \"adapter\" \\ its driver");
        assert_eq!(Tuned::parse(&text, "an \"adapter\" \\ its driver").unwrap(), table);
        assert!(text.contains("rows = 1024, columns = 4, steps = 32"), "{text}");
        for (what, wrong) in [
            ("another adapter", text.clone()),
            ("was written by", text.replace("csae = \"", "csae = \"9")),
            ("no known kind", text.replace("conv2d_fwd", "conv2d_sideways")),
            ("no known kind", text.replace("plain", "auto")),
            ("no known kind", text.replace("1024", "1000")),
            ("no table", text.replace("rows", "lines")),
            ("no table", text[..text.len() / 2].to_owned()),
        ] {
            let identity =
                if what == "another adapter" { "mine" } else { "an \"adapter\" \\ its driver" };
            let error = Tuned::parse(&wrong, identity).unwrap_err().to_string();
            assert!(error.contains(what), "{what}: {error}");
        }
    }

    #[test]
    fn the_nearest_class_stands_for_a_shape() {
        let table = Tuned::new([
            (product(1024, 32, 32).class(), Choice::Tiled),
            (product(1024, 4, 32).class(), Choice::Plain),
            (
                Product { family: Family::Conv2dBwdInput, ..product(64, 64, 64) }.class(),
                Choice::Registers,
            ),
        ]);
        let choice = |rows, columns, steps| table.choice(&product(rows, columns, steps));
        assert_eq!(choice(513, 17, 17), Some(Choice::Tiled));
        assert_eq!(choice(1024, 3, 27), Some(Choice::Plain));
        assert_eq!(choice(8192, 32, 32), Some(Choice::Tiled));
        assert_eq!(choice(16384, 32, 32), None);
        assert_eq!(choice(1024, 1, 8), None);
        assert_eq!(choice(64, 64, 64), None, "of another operation");
    }

    #[test]
    fn precisions_have_classes_of_their_own() {
        let half = |product: Product| Product { half: true, ..product };
        let (near, far) = (product(1024, 32, 32), product(4096, 32, 32));
        let single = Tuned::new([(near.class(), Choice::Registers)]);
        assert_eq!(single.choice(&half(near)), Some(Choice::Registers), "better than nothing");
        let both = Tuned::new([(half(near).class(), Choice::Matrix)]).beside(&single);
        assert_eq!(
            (both.choice(&near), both.choice(&half(near))),
            (Some(Choice::Registers), Some(Choice::Matrix))
        );
        assert_eq!(
            both.choice(&half(far)),
            Some(Choice::Matrix),
            "a class of halves goes before a nearer one"
        );
        assert!(both.names(Choice::Matrix) && !single.names(Choice::Matrix));
        let text = both.text("adapter");
        assert_eq!(Tuned::parse(&text, "adapter").unwrap(), both);
        let wrong = text.replace("half = true, ", "");
        assert!(Tuned::parse(&wrong, "adapter").is_err(), "matrices are of halves: {wrong}");
        let anew = Tuned::new([(half(far).class(), Choice::Tiled)]).beside(&both);
        assert_eq!(
            (anew.choice(&half(near)), anew.len()),
            (Some(Choice::Tiled), 2),
            "what is measured anew is replaced"
        );
        let halves = Tuned::new([(half(near).class(), Choice::Tiled)]);
        assert_eq!(halves.choice(&near), None);
    }

    #[test]
    fn built_in_tables_are_sound() {
        let with = Traits { software: true, subgroup: 8, int64: true, ..Traits::default() };
        let without = Traits { subgroup: 4, ..with };
        let gpu = Traits { software: false, subgroup: 32, int64: true, ..Traits::default() };
        let tables = [gpu, with, without].map(|traits| BuiltIn::of(&traits));
        assert_eq!(
            tables.map(|table| table.usual),
            [Choice::Tiled, Choice::Subgroup, Choice::Registers]
        );
        for (traits, built_in) in [gpu, with, without].into_iter().zip(tables) {
            assert!(
                built_in.table.classes.values().all(|choice| traits.takes(*choice)),
                "{built_in:?}"
            );
            assert_eq!(built_in.choice(&product(1 << 40, 1, 1 << 40)), built_in.usual);
        }
    }
}
