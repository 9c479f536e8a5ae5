//! Kernels and their texts. A kernel has the name of its shader file.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::io::Read;
use std::sync::LazyLock;

use flate2::read::DeflateDecoder;

/// A WGSL kernel, `shaders/{name}.wgsl`. It is declared beside the operation that dispatches it.
#[derive(Clone, Copy)]
pub struct Kernel {
    name: &'static str,
}

impl Kernel {
    /// A kernel with the name of its file.
    pub(crate) const fn new(name: &'static str) -> Self {
        Self { name }
    }

    /// Name: that of the file, the label, and the id in tests and benches.
    pub const fn name(self) -> &'static str {
        self.name
    }

    /// Text of the file, without its includes.
    ///
    /// # Panics
    /// If there is no such file; a test checks this for all kernels.
    pub fn text(self) -> &'static str {
        TEXTS.get(self.name).unwrap_or_else(|| panic!("shaders/{}.wgsl does not exist", self.name))
    }
}

// Names are unique, so comparing them is enough and cheaper than comparing texts.

impl PartialEq for Kernel {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Kernel {}

impl Hash for Kernel {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl PartialOrd for Kernel {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Kernel {
    fn cmp(&self, other: &Self) -> Ordering {
        self.name.cmp(other.name)
    }
}

impl fmt::Debug for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// The texts of all shader files, by their names: `conv2d_fwd`, `common/grid`. They are compressed
/// in the program (`build.rs`).
static TEXTS: LazyLock<BTreeMap<&'static str, &'static str>> = LazyLock::new(|| {
    let packed: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/shaders.deflate"));
    let mut all = String::new();
    let read = DeflateDecoder::new(packed).read_to_string(&mut all);
    read.expect("the build script compressed them");
    // They are needed until the process ends.
    let mut parts = Box::leak(all.into_boxed_str()).split('\0');
    let next = || Some((parts.next()?, parts.next()?));
    std::iter::from_fn(next).collect()
});

/// How kernels access memory and multiply matrices: which snippets replace the default ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Storage {
    /// Access four f32 as two 64-bit words ([`super::Traits::wide_words`]).
    pub int64: bool,
    /// Maps are in half precision.
    pub half: bool,
    /// Cooperative matrices are emulated.
    pub emulated: bool,
    /// Cooperative matrices are 8 by 8 in single precision ([`super::Unit::Single`]).
    pub single: bool,
    /// Invocations sum 8 by 4 elements of a tile ([`super::Choice::Tiled8x4`]).
    pub tiles_8x4: bool,
    /// The parameters of a step are constants: their values outside of training.
    pub fixed_step: bool,
}

impl Storage {
    /// The snippet that replaces `name`.
    fn snippet(self, name: &'static str) -> &'static str {
        match (name, self) {
            ("fours", Self { int64: true, .. }) => "fours_int64",
            ("map", Self { half: true, .. }) => "map_half",
            ("workgroup_tile", Self { tiles_8x4: true, .. }) => "workgroup_tile_8x4",
            ("step", Self { fixed_step: true, .. }) => "fixed_step",
            ("matrix", Self { emulated: true, .. }) => "matrix_emulated",
            ("matrix", Self { single: true, .. }) => "matrix_8x8",
            ("matrix_memory", Self { single: true, .. }) => "matrix_memory_8x8",
            _ => name,
        }
    }
}

/// A kernel's text with its includes joined in front, and the origin of each line.
#[derive(Clone, Debug)]
pub struct Source {
    /// Plain WGSL.
    pub text: String,
    /// Parts of the text: (first line in `text`, file, first line in the file), lines from 1.
    pieces: Vec<(usize, String, usize)>,
}

impl Source {
    /// Joins the snippets named by the `//!include a b c` lines in front of the kernel.
    ///
    /// # Panics
    /// If a named snippet does not exist; a test checks this for all kernels.
    pub fn of(kernel: Kernel) -> Self {
        Self::with(kernel, Storage::default())
    }

    /// As [`Source::of`], with the snippets of `storage`.
    pub fn with(kernel: Kernel, storage: Storage) -> Self {
        let mut text = String::new();
        let mut pieces = Vec::new();
        let names = kernel
            .text()
            .lines()
            .filter_map(|line| line.strip_prefix("//!include "))
            .flat_map(str::split_whitespace);
        let names: Vec<&str> = names.map(|name| storage.snippet(name)).collect();
        // `enable` directives must come first. Some matrix kernels need f16 for their operands,
        // whatever the maps are.
        if storage.half || names.contains(&"matrix_memory") {
            text.push_str("enable f16;\n");
        }
        if names.contains(&"matrix") || names.contains(&"matrix_8x8") {
            text.push_str("enable wgpu_cooperative_matrix;\n");
        }
        for name in names {
            let snippet = TEXTS.get(format!("common/{name}").as_str()).unwrap_or_else(|| {
                panic!("{}.wgsl includes {name}, which is not in shaders/common", kernel.name())
            });
            pieces.push((text.lines().count() + 1, format!("shaders/common/{name}.wgsl"), 1));
            text.push_str(snippet);
        }
        pieces.push((text.lines().count() + 1, format!("shaders/{}.wgsl", kernel.name()), 1));
        text.push_str(kernel.text());
        Self { text, pieces }
    }

    /// File and line from which a line of the joined text comes; lines count from 1.
    pub fn locate(&self, line: usize) -> (&str, usize) {
        let (start, file, first) =
            self.pieces.iter().rev().find(|(start, ..)| *start <= line).unwrap_or(&self.pieces[0]);
        (file, line - start + first)
    }

    /// Names of the snippets of `shaders/common`.
    pub fn common_names() -> impl Iterator<Item = &'static str> {
        TEXTS.keys().filter_map(|name| name.strip_prefix("common/"))
    }
}
