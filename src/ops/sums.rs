//! Second stages: sums of partial results. A sum waits until a dispatch needs it, and then one
//! dispatch computes all that wait. On a GPU, the update of the parameters computes those that are
//! gradients itself.

use bytemuck::Zeroable;

use super::reduce::WORKGROUP;
use crate::gpu::{Dispatch, Kernel, Params, Recorder, Waiting};
use crate::view::View;

/// Sums of one dispatch. Their table has 1.5 KiB.
pub(super) const SUMS: usize = 32;
/// Vectors of four that describe a sum in the table.
const VECTORS: usize = 3;

/// A sum as `shaders/common/sums.wgsl` describes it.
pub type SumRow = [[u32; 4]; VECTORS];

/// The sums that a dispatch computes. `None` if its kernel computes none.
pub fn sums_of(dispatch: &Dispatch) -> Option<Vec<SumRow>> {
    if dispatch.fields.last() != Some(&("table", "array")) {
        return None;
    }
    let block = &dispatch.params;
    let count: u32 = bytemuck::pod_read_unaligned(&block[..4]);
    let table = &block[block.len() - size_of::<[SumRow; SUMS]>()..];
    let table: [SumRow; SUMS] = bytemuck::pod_read_unaligned(table);
    Some(table[..count as usize].to_vec())
}

/// The parameter block of a kernel that computes sums: `count` and `table`, and between them
/// parameters of its own.
pub(super) trait SumParams: Params {
    /// Sets the sums.
    fn set(&mut self, count: u32, table: [SumRow; SUMS]);
}

/// Declares such a block by the names and types of its own parameters. They have a multiple of four
/// words together with `count`, because the table begins on 16 bytes.
macro_rules! sum_params {
    (struct $name:ident { $($field:ident: $ty:ident),* $(,)? }) => {
        #[repr(C)]
        #[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
        struct $name {
            count: u32,
            $($field: $ty,)*
            table: [$crate::ops::sums::SumRow; $crate::ops::sums::SUMS],
        }

        impl crate::gpu::Params for $name {
            const FIELDS: &'static [(&'static str, &'static str)] = &[
                ("count", "u32"),
                $((stringify!($field), stringify!($ty)),)*
                ("table", "array"),
            ];
        }

        impl crate::ops::sums::SumParams for $name {
            fn set(
                &mut self,
                count: u32,
                table: [crate::ops::sums::SumRow; crate::ops::sums::SUMS],
            ) {
                (self.count, self.table) = (count, table);
            }
        }
    };
}
pub(super) use sum_params;

sum_params! { struct SumPartialsParams { pad0: u32, pad1: u32, pad2: u32 } }

/// y = the sum of `slices` rows of partial sums, in an order that depends only on their number and
/// on whether the adapter is a processor. A row is as long as y, padded to whole vec4s.
pub(super) fn sum_slices(r: &mut Recorder, partials: View, slices: usize, y: View) {
    /// Slices that an invocation adds before another lane takes some. Eight are in flight at once.
    const EACH: usize = 8;
    /// More lanes would read too few neighbouring addresses at once.
    const MAX_LANES: usize = 64;
    let vectors = y.len.div_ceil(4);
    // On a processor lanes gain nothing, and barriers between them cost much.
    let max_lanes = if r.traits.software { 1 } else { MAX_LANES };
    let lanes = slices.div_ceil(EACH).next_power_of_two().min(max_lanes);
    // Views of whole vec4s, which the kernel reads and writes.
    let partials = View { len: slices * vectors * 4, ..partials };
    let sum = View { len: vectors * 4, ..y };
    let waiting = Waiting {
        partials,
        sum,
        index: None,
        row: row_of_slices(lanes, slices, y.len),
        workgroups: (vectors * lanes).div_ceil(WORKGROUP as usize) as u64,
    };
    r.wait(waiting, join);
}

/// The row of a sum of `slices` slices of `len` elements, or of `len` elements of y that are not
/// sums.
fn row_of_slices(lanes: usize, slices: usize, len: usize) -> [u32; 12] {
    let mut row = [0; 12];
    row[1..4].copy_from_slice(&[lanes, len.div_ceil(4), slices].map(|count| count as u32));
    row[6] = len as u32;
    row
}

/// The second stage of a reduction to a scalar: computes scalars[slot·width + index] from a range
/// of partial sums.
pub(super) struct SumScalar {
    pub partials: View,
    /// First partial sum.
    pub offset: usize,
    /// Number of partial sums.
    pub count: usize,
    pub scalars: View,
    pub width: usize,
    pub index: usize,
    /// Factor of the sum, or of its square root.
    pub scale: f64,
    /// Take the square root.
    pub root: bool,
    /// Multiply by the step's `sparsity_scale`.
    pub sparsity: bool,
}

impl SumScalar {
    /// Writes `scale` times the sum of the first `count` partial sums to scalar `index` of `width`.
    pub(super) const fn plain(
        partials: View,
        count: usize,
        scalars: View,
        [width, index]: [usize; 2],
        scale: f64,
    ) -> Self {
        Self {
            partials,
            offset: 0,
            count,
            scalars,
            width,
            index,
            scale,
            root: false,
            sparsity: false,
        }
    }

    pub(super) fn record(&self, r: &mut Recorder) {
        let mut row = [0; 12];
        row[1..4].copy_from_slice(&[self.width as u32, self.index as u32, self.count as u32]);
        row[7] = 1;
        row[8..11].copy_from_slice(&[
            (self.scale as f32).to_bits(),
            self.root.into(),
            self.sparsity.into(),
        ]);
        // Bindings begin at the start of a view. The kernel adds the offset.
        row[4] = self.offset as u32;
        let partials = self.partials.part(0, self.offset + self.count);
        let (sum, index) = (self.scalars, Some(self.index));
        r.wait(Waiting { partials, sum, index, row, workgroups: 1 }, join);
    }
}

/// Sums that one dispatch computes.
#[derive(Debug, Default)]
struct Group {
    sums: Vec<Waiting>,
    /// The ranges that it binds: of partial sums, of sums, and of scalars.
    partials: Option<View>,
    y: Option<View>,
    scalars: Option<View>,
}

impl Group {
    /// Takes as many sums as fit out of `waiting`.
    fn take(&mut self, waiting: &mut Vec<Waiting>, fits: impl Fn(&Waiting) -> bool) {
        waiting.retain(|one| !(fits(one) && self.add(*one)));
    }

    /// Adds a sum. Returns false if the table is full, or a binding would span two buffers or too
    /// many elements.
    fn add(&mut self, one: Waiting) -> bool {
        /// Maximum elements of a binding: 128 MiB, which every adapter supports.
        const BINDING: usize = 1 << 25;
        let joined = |known: Option<View>, view: View| match known {
            None => Some(view),
            Some(known) if known.buffer == view.buffer => {
                let joined = known.joined(view);
                (joined == known || joined.len <= BINDING).then_some(joined)
            }
            Some(_) => None,
        };
        let to = if one.index.is_some() { &mut self.scalars } else { &mut self.y };
        let (Some(partials), Some(sum), true) =
            (joined(self.partials, one.partials), joined(*to, one.sum), self.sums.len() < SUMS)
        else {
            return false;
        };
        (self.partials, *to) = (Some(partials), Some(sum));
        self.sums.push(one);
        true
    }

    /// Adds the elements of `grads` that are not sums of this group.
    ///
    /// Returns false if the table is too small.
    fn add_rest(&mut self, grads: View) -> bool {
        let mut sums: Vec<View> =
            self.sums.iter().filter(|one| one.index.is_none()).map(|one| one.sum).collect();
        sums.sort_unstable_by_key(|sum| sum.start);
        let end = grads.start + grads.len;
        let mut at = grads.start;
        for next in sums.iter().map(|sum| (sum.start, sum.start + sum.len)).chain([(end, end)]) {
            if at < next.0 {
                let len = next.0 - at;
                self.sums.push(Waiting {
                    partials: View::UNUSED,
                    sum: View { start: at, len, ..grads },
                    index: None,
                    row: row_of_slices(1, 0, len),
                    workgroups: len.div_ceil(4).div_ceil(WORKGROUP as usize) as u64,
                });
            }
            at = next.1;
        }
        self.sums.len() <= SUMS
    }

    /// The number of workgroups, and the table.
    fn table(&self) -> (u64, [SumRow; SUMS]) {
        let (mut workgroups, mut table) = (0, [[[0; 4]; VECTORS]; SUMS]);
        for (rows, one) in table.iter_mut().zip(&self.sums) {
            *rows = bytemuck::cast(one.row);
            rows[0][0] = workgroups as u32;
            workgroups += one.workgroups;
            let start = |bound: Option<View>| one.sum.start - bound.expect("it is bound").start;
            // The elements that are not sums have no partial sums.
            let from = self.partials.map_or(0, |all| one.partials.start.saturating_sub(all.start));
            let [from, to] = match one.index {
                Some(_) => [from, start(self.scalars)],
                None => [from / 4, start(self.y) / 4],
            };
            rows[1][0] += from as u32;
            rows[1][1] = to as u32;
        }
        (workgroups, table)
    }

    /// Records the dispatch, which also binds `others`.
    fn record(
        &self,
        r: &mut Recorder,
        kernel: Kernel,
        mut params: impl SumParams,
        trees: bool,
        others: &[(&'static str, View)],
    ) {
        let (workgroups, table) = self.table();
        params.set(self.sums.len() as u32, table);
        // One row without slices.
        let is_whole = matches!(self.sums[..], [one] if one.index.is_none() && one.row[3] == 0);
        let mut dispatch = r
            .kernel(kernel, &params)
            .constant("TREES", trees)
            .constant("WHOLE", is_whole)
            .bind("partials", self.partials.unwrap_or(View::UNUSED))
            .bind("y", self.y.unwrap_or(View::UNUSED))
            .bind("scalars", self.scalars.unwrap_or(View::UNUSED));
        for (name, view) in others {
            dispatch = dispatch.bind(name, *view);
        }
        dispatch.groups(workgroups, WORKGROUP);
    }
}

/// Whether a sum needs barriers.
const fn needs_tree(one: &Waiting) -> bool {
    one.index.is_some() || one.row[1] > 1
}

/// Records sums in as few dispatches as their buffers and the size of bindings allow.
fn join(r: &mut Recorder, waiting: &[Waiting]) {
    let mut rest = waiting.to_vec();
    while let Some(first) = rest.first() {
        // A processor pays for barriers in every workgroup of a dispatch, not only where needed.
        let trees = !r.traits.software || needs_tree(first);
        let software = r.traits.software;
        let mut group = Group::default();
        group.take(&mut rest, |one| !software || trees == needs_tree(one));
        let params = SumPartialsParams::zeroed();
        group.record(r, Kernel::SumPartials, params, trees, &[]);
    }
}

/// Records the update of parameters by `grads` with a kernel that includes `sums`. Sums that are
/// gradients, and still wait, are computed in the same dispatch, except on processors. `others` are
/// further bindings.
pub(super) fn update(
    r: &mut Recorder,
    kernel: Kernel,
    params: impl SumParams,
    grads: View,
    others: &[(&'static str, View)],
) {
    // A processor looks up the row of each invocation: the update with sums took 25.7 ms, two
    // dispatches 8.4 (`csae bench --profile --workload w2`, lavapipe).
    let software = r.traits.software;
    let inside = |view: View| {
        let end = grads.start + grads.len.next_multiple_of(4);
        view.buffer == grads.buffer && grads.start <= view.start && view.start + view.len <= end
    };
    let alone = || Group { y: Some(grads), ..Group::default() };
    let mut group = alone();
    let mut waiting = r.take_waiting();
    let before = waiting.clone();
    group.take(&mut waiting, |one| !software && (one.index.is_some() || inside(one.sum)));
    if group.add_rest(grads) {
        r.put_back(waiting);
    } else {
        // The sums that wait are recorded before the dispatch, which reads them.
        r.put_back(before);
        group = alone();
        assert!(group.add_rest(grads), "one row");
    }
    group.record(r, kernel, params, !software, others);
}
