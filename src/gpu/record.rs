//! A recording of dispatches and their arguments. It does not use wgpu, so that a test without a
//! GPU can compare every dispatch with the shader as naga reflects it.

use std::rc::Rc;

use super::choice::{Choice, Traits};
use super::kernels::Kernel;
use super::tuned::{BuiltIn, Product, Setting, Tuned};
use crate::profile::Operation;
use crate::view::View;

/// A parameter block: a struct of u32 and f32 with the layout of the shader's `struct Params`. A
/// test compares them field by field.
pub trait Params: bytemuck::Pod {
    /// Names and WGSL types of the fields, in order.
    const FIELDS: &'static [(&'static str, &'static str)];
}

/// Declares a parameter block: `params! { struct PoolParams { n: u32, slope: f32 } }`.
macro_rules! params {
    ($(#[$meta:meta])* $vis:vis struct $name:ident { $($field:ident: $ty:ident),* $(,)? }) => {
        $(#[$meta])*
        #[repr(C)]
        #[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
        $vis struct $name { $($vis $field: $ty,)* }
        impl crate::gpu::Params for $name {
            const FIELDS: &'static [(&'static str, &'static str)] =
                &[$((stringify!($field), stringify!($ty))),*];
        }
    };
}
pub(crate) use params;

/// One dispatch of one kernel.
#[derive(Clone, Debug)]
pub struct Dispatch {
    /// The kernel.
    pub kernel: Kernel,
    /// Values of its `override` constants, by name.
    pub constants: Vec<(&'static str, f64)>,
    /// Its storage bindings, by their names in the shader.
    pub bindings: Vec<(&'static str, View)>,
    /// Bindings that the kernel does not use with these constants.
    pub unused: Vec<&'static str>,
    /// Bytes of its uniform `p`.
    pub params: Vec<u8>,
    /// Fields of its uniform `p`.
    pub fields: &'static [(&'static str, &'static str)],
    /// Number of workgroups, before folding into a grid.
    pub workgroups: u64,
    /// Workgroup size that the host assumed. A test compares it with the shader.
    pub workgroup_size: u32,
    /// Whether its maps are in half precision.
    pub half: bool,
    /// Whether its tiles are those of [`Choice::Tiled8x4`].
    pub tiles_8x4: bool,
    /// Whether it computes sums of several calls.
    pub shared: bool,
}

/// A sum of partial results that waits to be recorded, so that one dispatch can compute many.
#[derive(Clone, Copy, Debug)]
pub struct Waiting {
    /// The partial results.
    pub partials: View,
    /// The sum.
    pub sum: View,
    /// For a scalar, its index among the scalars of a step: `sum` then has all of them.
    pub index: Option<usize>,
    /// What the kernel has to know about this sum.
    pub row: [u32; 12],
    /// Number of workgroups for it.
    pub workgroups: u64,
}

impl Waiting {
    /// Whether a dispatch that uses `view` must come after this sum.
    fn conflicts(&self, view: View) -> bool {
        self.partials.overlaps(view) || self.sum.overlaps(view)
    }
}

/// Records the dispatches that compute sums.
pub type Join = fn(&mut Recorder, &[Waiting]);

/// Sums that wait, and what records them.
#[derive(Debug, Default)]
pub struct Later {
    waiting: Vec<Waiting>,
    join: Option<Join>,
}

/// Collects dispatches.
#[derive(Debug, Default)]
pub struct Recorder {
    /// The dispatches recorded so far.
    pub dispatches: Vec<Dispatch>,
    /// The kernel variant for matrix products.
    pub choice: Choice,
    /// With a variant in `choice`, the number by which slices are divided; 0 counts as 1.
    pub fewer_slices: usize,
    /// Properties of the adapter.
    pub traits: Traits,
    /// The user's table of measurements on this adapter.
    pub tuned: Option<Rc<Tuned>>,
    /// Sums that no dispatch has needed yet.
    pub later: Later,
}

/// A call that a GPU can record.
pub trait Record {
    /// Appends its dispatches.
    fn record(&self, recorder: &mut Recorder);
    /// Its name, sizes and cost, as profiles report it.
    fn operation(&self) -> Operation;
}

/// Workgroup size of kernels with one invocation for each element or vec4.
pub const FLAT: u32 = 64;

impl Recorder {
    /// How to compute a matrix product: as asked for, else by the user's table, else, for maps in
    /// half precision, with verified matrix units if they suit its size, else by the built-in table
    /// for this kind of adapter.
    pub fn setting(&self, product: &Product) -> Setting {
        let runs = |setting: &Setting| self.traits.takes_for(setting.kernels, product);
        let by_units = product.half && self.traits.verified && product.suits_units();
        // Matrix units do not compete with what was measured in single precision.
        let table = self.tuned.as_ref().filter(|table| !by_units || table.has_half());
        let measured = || table?.setting(product).filter(runs);
        let units = || Some(Setting::of(Choice::Matrix)).filter(|_| by_units).filter(runs);
        self.traits
            .forced(self.choice, product)
            .map(|kernels| Setting { kernels, fewer_slices: self.fewer_slices.max(1) })
            .or_else(measured)
            .or_else(units)
            .unwrap_or_else(|| BuiltIn::of(&self.traits).setting(product))
    }

    /// Records a sum later: before the first dispatch that uses its memory, together with all
    /// others that wait then.
    pub fn wait(&mut self, sum: Waiting, join: Join) {
        let conflicts = |one: &Waiting| {
            let same = one.sum.overlaps(sum.sum) && (sum.index.is_none() || one.index == sum.index);
            same || one.partials.overlaps(sum.sum) || one.sum.overlaps(sum.partials)
        };
        if self.later.waiting.iter().any(conflicts) {
            self.finish();
        }
        self.later.join = Some(join);
        self.later.waiting.push(sum);
    }

    /// Number of sums that wait.
    pub fn waiting(&self) -> usize {
        self.later.waiting.len()
    }

    /// Takes the sums that wait, for a dispatch that computes them itself.
    pub fn take_waiting(&mut self) -> Vec<Waiting> {
        std::mem::take(&mut self.later.waiting)
    }

    /// Lets sums of [`Recorder::take_waiting`] wait on.
    pub fn put_back(&mut self, waiting: Vec<Waiting>) {
        self.later.waiting = waiting;
    }

    /// Records the sums that wait. Must be called after the last call.
    pub fn finish(&mut self) {
        let Later { waiting, join } = std::mem::take(&mut self.later);
        if let Some(join) = join {
            let before = self.dispatches.len();
            join(self, &waiting);
            self.dispatches[before..].iter_mut().for_each(|dispatch| dispatch.shared = true);
        }
    }

    /// Starts a dispatch of `kernel` with its parameter block.
    pub fn kernel<P: Params>(&mut self, kernel: Kernel, params: &P) -> Building<'_> {
        let dispatch = Dispatch {
            kernel,
            constants: Vec::new(),
            bindings: Vec::new(),
            unused: Vec::new(),
            params: bytemuck::bytes_of(params).to_vec(),
            fields: P::FIELDS,
            workgroups: 0,
            workgroup_size: 0,
            half: false,
            tiles_8x4: false,
            shared: false,
        };
        Building { recorder: self, dispatch }
    }
}

/// A dispatch under construction. `threads` or `groups` completes it.
#[must_use]
pub struct Building<'a> {
    recorder: &'a mut Recorder,
    dispatch: Dispatch,
}

impl Building<'_> {
    /// Binds `view` to the shader's variable `name`.
    pub fn bind(mut self, name: &'static str, view: View) -> Self {
        self.dispatch.bindings.push((name, view));
        self.dispatch.half |= view.half;
        self
    }

    /// Selects the tiles of [`Choice::Tiled8x4`].
    pub fn tiles_8x4(mut self, selected: bool) -> Self {
        self.dispatch.tiles_8x4 = selected;
        self
    }

    /// Binds `view` to a variable that the kernel does not use with these constants. Every variable
    /// needs a binding.
    pub fn bind_unused(mut self, name: &'static str, view: View) -> Self {
        self.dispatch.unused.push(name);
        self.bind(name, view)
    }

    /// Binds `view` to a variable that the kernel uses with these constants only if `used`: of two
    /// variables for the same memory, as scalars and as vec4s, it uses one.
    pub fn bind_if(self, used: bool, name: &'static str, view: View) -> Self {
        if used { self.bind(name, view) } else { self.bind_unused(name, view) }
    }

    /// Binds `view`. If there is none, the kernel does not use this variable, and `instead` is
    /// bound.
    pub fn bind_or(self, name: &'static str, view: Option<View>, instead: View) -> Self {
        match view {
            Some(view) => self.bind(name, view),
            None => self.bind_unused(name, instead),
        }
    }

    /// Sets an `override` constant.
    pub fn constant(mut self, name: &'static str, value: impl Into<f64>) -> Self {
        self.dispatch.constants.push((name, value.into()));
        self
    }

    /// Records the dispatch with `count` invocations in workgroups of [`FLAT`].
    pub fn threads(self, count: usize) {
        self.groups((count as u64).div_ceil(u64::from(FLAT)), FLAT);
    }

    /// Records the dispatch with `count` workgroups of `size` invocations.
    pub fn groups(mut self, count: u64, size: u32) {
        assert!(count > 0, "{:?}: no workgroups to dispatch", self.dispatch.kernel);
        self.dispatch.workgroups = count;
        self.dispatch.workgroup_size = size;
        let Dispatch { bindings, unused, .. } = &self.dispatch;
        let used = bindings.iter().filter(|(name, _)| !unused.contains(name));
        let uses = |one: &Waiting| used.clone().any(|(_, view)| one.conflicts(*view));
        if self.recorder.later.waiting.iter().any(uses) {
            self.recorder.finish();
        }
        self.recorder.dispatches.push(self.dispatch);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Activation;
    use crate::ops::{ChannelSum, Combine, Loss, LossKind, SCALAR_PARTIALS};
    use crate::view::Buffer;

    const ROWS: usize = 1 << 16;

    fn view(buffer: u32, len: usize) -> View {
        View::whole(Buffer::planned(buffer), len)
    }

    /// A sum over the rows of buffer 0 into 4 elements of buffer 1 from `start` on.
    fn sum(start: usize, partials: View) -> ChannelSum {
        let y = View { start, ..view(1, 4) };
        ChannelSum { rows: ROWS, channels: 4, x: view(0, 4 * ROWS), weight: None, y, partials }
    }

    fn loss(index: usize, partials: View) -> Loss {
        let [y, target, dy] = [3, 4, 5].map(|buffer| view(buffer, 64));
        let (kind, activation, scalars) = (LossKind::SumSquares, Activation::Identity, view(6, 8));
        let (n, grad_scale, width) = (1, 1.0, 8);
        Loss { kind, n, grad_scale, width, index, activation, y, target, scalars, dy, partials }
    }

    /// Memory for partial sums, in parts that do not overlap.
    fn partials(part: usize) -> View {
        let len = ChannelSum::partials_len(ROWS, 4).max(SCALAR_PARTIALS).next_multiple_of(64);
        View { start: part * len, ..view(2, len) }
    }

    /// Names of the kernels of a recording.
    fn names(recorder: &Recorder) -> Vec<&'static str> {
        recorder.dispatches.iter().map(|dispatch| dispatch.kernel.name()).collect()
    }

    #[test]
    fn sums_of_several_calls_are_one_dispatch() {
        let mut r = Recorder::default();
        sum(0, partials(0)).record(&mut r);
        loss(0, partials(1)).record(&mut r);
        sum(64, partials(2)).record(&mut r);
        loss(1, partials(3)).record(&mut r);
        assert_eq!(r.waiting(), 4);
        r.finish();
        let wanted = ["channel_sum", "loss", "channel_sum", "loss", "sum_partials"];
        assert_eq!(names(&r), wanted);
        assert!(r.dispatches[4].shared && !r.dispatches[0].shared);
        r.finish();
        assert_eq!(names(&r), wanted, "nothing waits any more");
    }

    #[test]
    fn a_dispatch_that_uses_a_sum_comes_after_it() {
        let mut r = Recorder::default();
        sum(0, partials(0)).record(&mut r);
        let combine = |a: View| Combine { alpha: 1.0, beta: 0.0, a, b: None, y: view(9, a.len) };
        combine(View { start: 64, ..view(1, 4) }).record(&mut r);
        assert_eq!(names(&r), ["channel_sum", "combine"], "other elements of the buffer");
        combine(view(1, 4)).record(&mut r);
        assert_eq!(names(&r), ["channel_sum", "combine", "sum_partials", "combine"]);
    }

    #[test]
    fn partial_sums_are_added_before_their_memory_is_used_again() {
        let mut r = Recorder::default();
        sum(0, partials(0)).record(&mut r);
        sum(64, partials(0)).record(&mut r);
        r.finish();
        let wanted = ["channel_sum", "sum_partials", "channel_sum", "sum_partials"];
        assert_eq!(names(&r), wanted);
    }

    #[test]
    fn a_sum_over_memory_that_another_sum_reads_comes_after_it() {
        let mut r = Recorder::default();
        let with_sums = |part| View { buffer: view(1, 0).buffer, ..partials(part) };
        sum(1 << 20, with_sums(0)).record(&mut r);
        sum(0, with_sums(1)).record(&mut r);
        r.finish();
        assert_eq!(names(&r).iter().filter(|name| **name == "sum_partials").count(), 2);
    }

    #[test]
    fn a_second_sum_of_the_same_elements_comes_after_the_first() {
        let mut r = Recorder::default();
        sum(0, partials(0)).record(&mut r);
        sum(0, partials(1)).record(&mut r);
        loss(3, partials(2)).record(&mut r);
        loss(3, partials(3)).record(&mut r);
        r.finish();
        assert_eq!(names(&r).iter().filter(|name| **name == "sum_partials").count(), 3);
    }

    #[test]
    fn sums_that_do_not_fit_one_table_or_one_binding_are_several_dispatches() {
        let sums = |r: &Recorder| names(r).iter().filter(|name| **name == "sum_partials").count();
        let mut r = Recorder::default();
        (0..33).for_each(|i| sum(64 * i, partials(i)).record(&mut r));
        r.finish();
        assert_eq!(sums(&r), 2);
        let mut r = Recorder::default();
        sum(0, partials(0)).record(&mut r);
        sum(1 << 26, partials(1)).record(&mut r);
        r.finish();
        assert_eq!(sums(&r), 2);
    }
}
