//! Passes of a model as data: kernels, pipelines, buffers and dispatches. A program for WebGPU can
//! replay them. They are recorded without a GPU, for the limits that WebGPU guarantees.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::device::Allocation;
use crate::error::{Error, Result};
use crate::gpu::{Dispatch, Kernel, Recorder, Reflection, Role, Source, Storage, Traits, fold};
use crate::model::Store;
use crate::program::Call;
use crate::view::{Buffer, View};

/// The default of `maxStorageBufferBindingSize` in WebGPU: 128 MiB.
const MAX_BINDING: u64 = 128 << 20;
/// The default of `maxComputeWorkgroupsPerDimension` in WebGPU.
const MAX_WORKGROUPS: u32 = 65_535;
/// Bytes of a binding that a dispatch does not use, and the alignment of offsets in WebGPU.
const BLANK: u64 = 256;
/// Buffers that all plans share: parameters, states, and two for variables that a dispatch does not
/// use, one of them for variables that a kernel can write.
const SHARED: usize = 4;

/// A kernel: plain WGSL whose entry point is `main`.
#[derive(Clone, Debug, Serialize)]
pub struct KernelText {
    name: &'static str,
    code: String,
    /// For each binding: `@binding`, and its type as WebGPU names it.
    bindings: Vec<(u32, &'static str)>,
}

/// A kernel with values of its `override` constants.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Pipeline {
    kernel: usize,
    constants: BTreeMap<&'static str, f64>,
}

/// One dispatch.
#[derive(Clone, Debug, Serialize)]
pub struct Step {
    pipeline: usize,
    groups: [u32; 3],
    /// `@binding` of the parameter block.
    block: u32,
    /// Words of the parameter block. Those of floats have their bits.
    params: Vec<u32>,
    /// For each storage binding: `@binding`, buffer, offset and size in bytes.
    bind: Vec<[u64; 4]>,
}

/// A part of a buffer that the host writes or reads: buffer, offset in bytes and number of `f32`.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Port {
    buffer: usize,
    offset: usize,
    len: usize,
}

/// A recorded pass.
#[derive(Clone, Debug, Serialize)]
pub struct Plan {
    /// Sizes in bytes of its own buffers. Their numbers follow those of the shared ones.
    buffers: Vec<u64>,
    steps: Vec<Step>,
    ports: BTreeMap<&'static str, Port>,
}

/// The kernels and pipelines of several plans.
#[derive(Debug, Default, Serialize)]
pub struct Library {
    kernels: Vec<KernelText>,
    pipelines: Vec<Pipeline>,
    #[serde(skip)]
    known: Vec<(Kernel, bool, Reflection)>,
}

impl Plan {
    /// Size in bytes of its own buffers.
    pub fn bytes(&self) -> u64 {
        self.buffers.iter().sum()
    }

    /// Whether WebGPU guarantees every binding.
    pub fn fits(&self) -> bool {
        self.steps.iter().flat_map(|step| &step.bind).all(|[.., size]| *size <= MAX_BINDING)
    }
}

/// Size of a view on a GPU in bytes: whole vec4s.
const fn bytes(view: View) -> u64 {
    (view.len as u64 * 4).next_multiple_of(16)
}

impl Library {
    /// Records calls. `memory` are their own buffers, and `ports` the views that the host writes or
    /// reads.
    ///
    /// # Errors
    /// When a kernel needs something that WebGPU lacks.
    pub fn plan(
        &mut self,
        calls: &[Call],
        store: &Store,
        memory: &[Allocation],
        ports: &[(&'static str, View)],
    ) -> Result<Plan> {
        // The default traits are those of a GPU without optional features: no subgroups, no
        // cooperative matrices, no 64-bit integers.
        let mut recorder = Recorder { traits: Traits::default(), ..Recorder::default() };
        calls.iter().for_each(|call| call.record(&mut recorder));
        recorder.finish();
        let number = |buffer: Buffer| match buffer {
            _ if buffer == store.weights.buffer => 0,
            _ if buffer == store.state.buffer => 1,
            _ => {
                let own = memory.iter().position(|own| own.buffer == buffer);
                SHARED + own.expect("a plan uses its own buffers and those of the model")
            }
        };
        let steps = recorder.dispatches.iter().map(|dispatch| self.step(dispatch, number));
        let port = |(name, view): &(&'static str, View)| {
            let View { buffer, start, len, .. } = *view;
            (*name, Port { buffer: number(buffer), offset: 4 * start, len })
        };
        Ok(Plan {
            steps: steps.collect::<Result<_>>()?,
            buffers: memory.iter().map(|own| bytes(**own)).collect(),
            ports: ports.iter().map(port).collect(),
        })
    }

    fn step(&mut self, dispatch: &Dispatch, number: impl Fn(Buffer) -> usize) -> Result<Step> {
        let name = dispatch.kernel.name();
        let kernel = self.kernel(dispatch)?;
        let reflection = &self.known[kernel].2;
        let (mut bind, mut block) = (Vec::new(), 0);
        for binding in &reflection.bindings {
            let Role::Storage { writable, .. } = binding.role else {
                block = binding.index;
                continue;
            };
            let bound = dispatch.bindings.iter().find(|(bound, _)| *bound == binding.name);
            let bound = bound.expect("a test compares bindings with the shader");
            let view = &bound.1;
            let is_unused = *view == View::UNUSED || dispatch.unused.contains(&bound.0);
            let (buffer, offset, size) = if is_unused {
                // WebGPU refuses two bindings of the same bytes if a kernel can write them.
                (2 + usize::from(writable), BLANK * u64::from(binding.index), BLANK)
            } else {
                (number(view.buffer), 4 * view.start as u64, bytes(*view))
            };
            bind.push([u64::from(binding.index), buffer as u64, offset, size]);
        }
        let known = |(name, _): &&(&'static str, f64)| {
            reflection.overrides.iter().any(|known| known == name)
        };
        let constants = dispatch.constants.iter().filter(known).copied().collect();
        let pipeline = Pipeline { kernel, constants };
        let found = self.pipelines.iter().position(|other| *other == pipeline);
        let pipeline = found.unwrap_or_else(|| {
            self.pipelines.push(pipeline);
            self.pipelines.len() - 1
        });
        let groups = fold(dispatch.workgroups, MAX_WORKGROUPS).ok_or_else(|| {
            Error::usage(format!("kernel {name} needs more workgroups than WebGPU allows"))
        })?;
        let params = dispatch.params.chunks_exact(4);
        let params = params.map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]]));
        Ok(Step { pipeline, groups, block, params: params.collect(), bind })
    }

    /// The number of the kernel of a dispatch.
    fn kernel(&mut self, dispatch: &Dispatch) -> Result<usize> {
        let Dispatch { kernel, tiles_8x4, .. } = *dispatch;
        let same = |(known, tiles, _): &(Kernel, bool, _)| (*known, *tiles) == (kernel, tiles_8x4);
        if let Some(found) = self.known.iter().position(same) {
            return Ok(found);
        }
        // Browsers have no immediates.
        let storage = Storage { tiles_8x4, fixed_step: true, ..Storage::default() };
        let source = Source::with(kernel, storage);
        let reflection = Reflection::of(kernel, &source)?;
        let kind = |role: &Role| match role {
            Role::Uniform(_) => "uniform",
            Role::Storage { writable: true, .. } => "storage",
            Role::Storage { writable: false, .. } => "read-only-storage",
        };
        let bindings = reflection.bindings.iter().map(|one| (one.index, kind(&one.role))).collect();
        let code = without_comments(&source.text);
        self.kernels.push(KernelText { name: kernel.name(), code, bindings });
        self.known.push((kernel, tiles_8x4, reflection));
        Ok(self.kernels.len() - 1)
    }
}

/// The text of a kernel without lines that are only a comment, and without empty lines.
fn without_comments(text: &str) -> String {
    let lines = text.lines().filter(|line| {
        let line = line.trim_start();
        !line.is_empty() && !line.starts_with("//")
    });
    lines.flat_map(|line| [line, "\n"]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_are_left_out_and_code_stays() {
        let text = "//!include a\n\n// A comment.\nlet x = 1; // one\n    // another\n";
        assert_eq!(without_comments(text), "let x = 1; // one\n");
    }
}
