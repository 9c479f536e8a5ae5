//! A recording: what to dispatch, with which arguments. It knows nothing of wgpu, so that a test
//! without a GPU can hold every dispatch against what naga reads in the shader.

use std::rc::Rc;

use super::choice::{Choice, Traits};
use super::kernels::Kernel;
use super::tuned::{BuiltIn, Product, Tuned};
use crate::profile::Operation;
use crate::view::View;

/// A parameter block: a struct of u32 and f32, laid out as the shader's `struct Params` (checked by
/// a test, field by field).
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
            const FIELDS: &'static [(&'static str, &'static str)] = &[$((stringify!($field), stringify!($ty))),*];
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
    /// Its storage bindings, by the names that the shader gives them.
    pub bindings: Vec<(&'static str, View)>,
    /// Bytes of its uniform `p`.
    pub params: Vec<u8>,
    /// Fields of its uniform `p`.
    pub fields: &'static [(&'static str, &'static str)],
    /// Number of workgroups, before folding into a grid.
    pub workgroups: u64,
    /// Invocations of a workgroup that the host counted on.
    pub workgroup_size: u32,
    /// Whether its maps are in half precision.
    pub half: bool,
}

/// Collects dispatches.
#[derive(Debug, Default)]
pub struct Recorder {
    /// What has been recorded.
    pub dispatches: Vec<Dispatch>,
    /// Which kernel of a family is taken.
    pub choice: Choice,
    /// What the adapter offers.
    pub traits: Traits,
    /// What the user has measured on the adapter.
    pub tuned: Option<Rc<Tuned>>,
}

/// A call that a GPU can record.
pub trait Record {
    /// Appends its dispatches.
    fn record(&self, recorder: &mut Recorder);
    /// Its name, sizes and cost, as profiles report it.
    fn operation(&self) -> Operation;
}

/// Invocations of a workgroup in kernels with one invocation an element.
pub const FLAT: u32 = 64;

impl Recorder {
    /// The kind of kernel that a product of matrices takes: the one asked for, else by its shape
    /// what was measured here or on an adapter of the kind.
    pub fn products(&self, product: &Product) -> Choice {
        let here = || {
            self.tuned
                .as_ref()?
                .choice(product)
                .filter(|choice| self.traits.takes_for(*choice, product))
        };
        self.traits
            .forced(self.choice, product)
            .or_else(here)
            .unwrap_or_else(|| BuiltIn::of(&self.traits).choice(product))
    }

    /// Starts a dispatch of `kernel` with its parameter block.
    pub fn kernel<P: Params>(&mut self, kernel: Kernel, params: &P) -> Building<'_> {
        let dispatch = Dispatch {
            kernel,
            constants: Vec::new(),
            bindings: Vec::new(),
            params: bytemuck::bytes_of(params).to_vec(),
            fields: P::FIELDS,
            workgroups: 0,
            workgroup_size: 0,
            half: false,
        };
        Building { recorder: self, dispatch }
    }
}

/// A dispatch being put together; `threads` or `workgroups` ends it.
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

    /// Sets an `override` constant.
    pub fn constant(mut self, name: &'static str, value: impl Into<f64>) -> Self {
        self.dispatch.constants.push((name, value.into()));
        self
    }

    /// One invocation each for `count` elements, in workgroups of [`FLAT`].
    pub fn threads(self, count: usize) {
        self.groups((count as u64).div_ceil(u64::from(FLAT)), FLAT);
    }

    /// `count` workgroups of `size` invocations.
    pub fn groups(mut self, count: u64, size: u32) {
        assert!(count > 0, "{:?}: nothing to dispatch", self.dispatch.kernel);
        self.dispatch.workgroups = count;
        self.dispatch.workgroup_size = size;
        self.recorder.dispatches.push(self.dispatch);
    }
}
