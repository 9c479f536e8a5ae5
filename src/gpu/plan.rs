//! A compiled program: pipelines, bind groups and grids that can be replayed any number of times.

use std::ops::Range;
use std::rc::Rc;

use super::device::Gpu;
use super::passes::{Use, passes, uses};
use super::record::{Dispatch, Record};
use super::reflect::Role;
use crate::advice::Advice;
use crate::error::{Error, Result};
use crate::profile::{Cost, Operation};
use crate::view::{StepParams, View};

/// A dispatch with everything it needs.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) pipeline: wgpu::ComputePipeline,
    pub(super) bind_group: wgpu::BindGroup,
    pub(super) grid: [u32; 3],
    /// Whether the kernel reads the parameters of the step.
    pub(super) reads_step: bool,
    pub(super) name: &'static str,
    /// Index of the operation, in [`Plan::operations`], that it belongs to.
    pub(super) call: usize,
}

impl Step {
    /// Appends the dispatch to a pass.
    pub(super) fn dispatch(&self, pass: &mut wgpu::ComputePass, params: &StepParams) {
        pass.set_pipeline(&self.pipeline);
        pass.set_bind_group(0, &self.bind_group, &[]);
        if self.reads_step {
            pass.set_immediates(0, bytemuck::bytes_of(params));
        }
        pass.dispatch_workgroups(self.grid[0], self.grid[1], self.grid[2]);
    }
}

/// A compiled program.
#[derive(Debug)]
pub struct Plan {
    pub(super) steps: Vec<Step>,
    pub(super) operations: Rc<[Operation]>,
    /// The passes of each submission: ranges of `steps`, in order.
    pub(super) submissions: Vec<Vec<Range<usize>>>,
}

/// Rates of a slow GPU, from which the time of an operation is estimated: floating-point operations
/// and bytes per second. Integrated GPUs of ten years ago reach twice as much.
const SLOW_GPU: [f64; 2] = [2e11, 1e10];
/// Maximum estimated time of a submission, in seconds. Windows resets a GPU that does not answer
/// for 2 seconds, and some drivers count a whole submission as one piece of work.
const MAX_SUBMISSION: f64 = 0.5;

/// Divides dispatches into submissions. `seconds[i]` is the estimated time of operation `i`, and
/// `owners[i]` the operation that dispatch `i` belongs to. The time of an operation counts at its
/// first dispatch.
fn submissions(seconds: &[f64], owners: &[usize]) -> Vec<Range<usize>> {
    let (mut parts, mut start, mut total) = (Vec::new(), 0, 0.0);
    for (step, owner) in owners.iter().enumerate() {
        if step > 0 && owners[step - 1] == *owner {
            continue;
        }
        if step > start && total + seconds[*owner] > MAX_SUBMISSION {
            parts.push(start..step);
            (start, total) = (step, 0.0);
        }
        total += seconds[*owner];
    }
    parts.push(start..owners.len());
    parts
}

impl Plan {
    /// Number of dispatches.
    pub fn len(&self) -> usize {
        self.steps.len()
    }

    /// Whether the plan has no dispatches.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Names of the kernels in order.
    pub fn kernels(&self) -> impl Iterator<Item = &'static str> {
        self.steps.iter().map(|step| step.name)
    }

    /// Compiles calls for a device.
    ///
    /// # Errors
    /// If a shader does not parse, or a binding or grid exceeds the adapter's limits.
    pub(super) fn new(gpu: &mut Gpu, calls: &[impl Record]) -> Result<Self> {
        let mut recorder = gpu.recorder();
        let mut owners = Vec::new();
        for (i, call) in calls.iter().enumerate() {
            call.record(&mut recorder);
            owners.resize(recorder.dispatches.len(), i);
        }
        recorder.finish();
        owners.resize(recorder.dispatches.len(), calls.len());
        // Sums of several calls belong to an operation of their own, after the calls.
        for (owner, dispatch) in owners.iter_mut().zip(&recorder.dispatches) {
            if dispatch.shared {
                *owner = calls.len();
            }
        }
        // All parameter blocks share one uniform buffer. 256 bytes is the alignment that every
        // adapter supports.
        let slot = gpu.limits().min_uniform_buffer_offset_alignment.max(256) as usize;
        let (mut blocks, mut offsets) = (Vec::new(), Vec::new());
        for dispatch in &recorder.dispatches {
            offsets.push(blocks.len() as u64);
            blocks.extend_from_slice(&dispatch.params);
            blocks.resize(blocks.len().next_multiple_of(slot), 0);
        }
        gpu.prepare(&recorder.dispatches)?;
        let uniforms = gpu.uniform_buffer("parameter blocks", &blocks);
        let sums =
            Operation { label: "sums".to_owned(), sizes: String::new(), cost: Cost::default() };
        let operations = calls.iter().map(Record::operation).chain([sums]);
        let operations: Rc<[Operation]> = operations.collect();
        let seconds: Vec<f64> = operations
            .iter()
            .map(|operation| {
                let [flops, bytes] = SLOW_GPU;
                (operation.cost.flops / flops).max(operation.cost.bytes / bytes)
            })
            .collect();
        let uses: Vec<Vec<Use>> = recorder
            .dispatches
            .iter()
            .map(|dispatch| uses(dispatch, &gpu.loaded(dispatch).reflection))
            .collect();
        let mut plan = Self { steps: Vec::new(), operations, submissions: Vec::new() };
        for range in submissions(&seconds, &owners) {
            let first = range.start;
            let of_submission = if gpu.overlaps() {
                passes(&uses[range])
            } else {
                vec![(0..range.len()).collect()]
            };
            let mut ranges = Vec::new();
            for pass in of_submission {
                let start = plan.steps.len();
                for i in pass.into_iter().map(|i| first + i) {
                    let dispatch = &recorder.dispatches[i];
                    plan.steps.push(Self::step(gpu, dispatch, owners[i], &uniforms, offsets[i])?);
                }
                ranges.push(start..plan.steps.len());
            }
            plan.submissions.push(ranges);
        }
        Ok(plan)
    }

    fn step(
        gpu: &mut Gpu,
        dispatch: &Dispatch,
        call: usize,
        uniforms: &wgpu::Buffer,
        offset: u64,
    ) -> Result<Step> {
        let name = dispatch.kernel.name();
        let loaded = gpu.loaded(dispatch);
        let limit = gpu.limits().max_storage_buffer_binding_size;
        let mut entries = Vec::new();
        for binding in &loaded.reflection.bindings {
            let resource = match (&binding.role, binding.name.as_str()) {
                (Role::Uniform(_), "p") => {
                    assert!(
                        dispatch.params.len() as u64 == binding.min_size,
                        "{name}: the parameter block has {} bytes, the shader expects {}",
                        dispatch.params.len(),
                        binding.min_size
                    );
                    wgpu::BufferBinding {
                        buffer: uniforms,
                        offset,
                        size: wgpu::BufferSize::new(binding.min_size),
                    }
                }
                (role, _) => {
                    let (_, view) = dispatch
                        .bindings
                        .iter()
                        .find(|(bound, _)| *bound == binding.name)
                        .unwrap_or_else(|| {
                            panic!("{name}: nothing is bound to `{}`", binding.name)
                        });
                    if *view == View::UNUSED {
                        let writable = matches!(role, Role::Storage { writable: true, .. });
                        let resource = gpu.unused_buffer(writable).as_entire_buffer_binding();
                        let resource = wgpu::BindingResource::Buffer(resource);
                        entries.push(wgpu::BindGroupEntry { binding: binding.index, resource });
                        continue;
                    }
                    let size = gpu.bound_size(*view);
                    if size > limit {
                        return Err(Error::usage(format!(
                            "kernel {name} needs {} MiB in one binding, the adapter allows {} \
                             MiB: {}",
                            size >> 20,
                            limit >> 20,
                            Advice::SmallerBatch
                        )));
                    }
                    wgpu::BufferBinding {
                        buffer: gpu.buffer(view.buffer),
                        offset: view.start as u64 * view.element(),
                        size: wgpu::BufferSize::new(size),
                    }
                }
            };
            entries.push(wgpu::BindGroupEntry {
                binding: binding.index,
                resource: wgpu::BindingResource::Buffer(resource),
            });
        }
        let descriptor = wgpu::BindGroupDescriptor {
            label: Some(name),
            layout: &loaded.layout,
            entries: &entries,
        };
        let bind_group = gpu.device().create_bind_group(&descriptor);
        let grid = fold(dispatch.workgroups, gpu.limits().max_compute_workgroups_per_dimension)
            .ok_or_else(|| {
                Error::usage(format!(
                    "kernel {name} needs {} workgroups, more than the adapter allows: {}",
                    dispatch.workgroups,
                    Advice::SmallerBatch
                ))
            })?;
        let pipeline = loaded.pipeline.clone();
        gpu.count_bind_group();
        let reads_step = loaded.reflection.immediates.is_some();
        Ok(Step { pipeline, bind_group, grid, reads_step, name, call })
    }
}

/// Folds a count of workgroups into a grid of two dimensions, each at most `limit`. The grid may
/// hold a few more workgroups than `count`, which the kernels' bounds checks skip. None if two
/// dimensions are not enough.
pub fn fold(count: u64, limit: u32) -> Option<[u32; 3]> {
    let limit = u64::from(limit);
    if count <= limit {
        return Some([count as u32, 1, 1]);
    }
    let rows = count.div_ceil(limit);
    (rows <= limit).then(|| [count.div_ceil(rows) as u32, rows as u32, 1])
}

#[cfg(test)]
mod tests {
    use super::submissions;

    #[test]
    fn no_submission_is_estimated_to_take_long() {
        let ends = |seconds: &[f64], owners: &[usize]| -> Vec<usize> {
            submissions(seconds, owners).into_iter().map(|steps| steps.end).collect()
        };
        // The second operation has two steps, which stay together.
        assert_eq!(ends(&[0.3, 0.1, 0.3], &[0, 1, 1, 2]), [3, 4]);
        // An operation that takes longer alone has a submission of its own.
        assert_eq!(ends(&[0.1, 2.0, 0.1], &[0, 1, 2]), [1, 2, 3]);
        assert_eq!(ends(&[0.1, 0.1], &[0, 1]), [2]);
        assert_eq!(ends(&[], &[]), [0]);
    }

    #[test]
    fn grids_fold() {
        assert_eq!(super::fold(65_535, 65_535), Some([65_535, 1, 1]));
        let [x, y, _] = super::fold(70_001, 65_535).unwrap();
        assert!(y == 2 && u64::from(x) * u64::from(y) >= 70_001 && x <= 65_535);
        assert_eq!(super::fold(u64::MAX / 2, 65_535), None);
    }
}
