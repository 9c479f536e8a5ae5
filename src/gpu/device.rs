//! A GPU device: compiles each kernel once, and replays plans.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::adapter::{Adapter, explain};
use super::choice::{Choice, Traits};
use super::compile::{Compiled, Loaded};
use super::kernels::Storage;
use super::matrices::{Matrices, Unit};
use super::memory::Allocated;
use super::pipeline_cache::PipelineCache;
use super::plan::Plan;
use super::record::{Dispatch, Record, Recorder};
use super::tuned::Tuned;
use crate::advice::Advice;
use crate::error::{Error, Result};
use crate::view::{StepParams, View};

/// Default of [`Gpu::patience`]. A trade-off: slow submissions on software adapters must finish,
/// and a hung driver must be reported.
const PATIENCE: Duration = Duration::from_secs(300);
/// Intel's number as a vendor of PCI devices. wgpu reports it on every backend.
const INTEL: u32 = 0x8086;
/// Start of the message about a lost device.
const LOST: &str = "the device was lost";
/// Maximum number of submissions in flight before the host waits for the oldest. Enough to keep the
/// device busy while the host prepares the next, few enough to bound memory and latency.
const IN_FLIGHT: usize = 3;

/// Number of objects created so far. None of the counts may grow inside a training loop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Buffers.
    pub buffers: usize,
    /// Bind groups.
    pub bind_groups: usize,
    /// Pipelines.
    pub pipelines: usize,
}

/// A device on an adapter.
#[derive(Debug)]
pub struct Gpu {
    adapter: Adapter,
    pub(super) device: wgpu::Device,
    pub(super) queue: wgpu::Queue,
    pub(super) limits: wgpu::Limits,
    compiled: Compiled,
    pub(super) buffers: Vec<Option<Allocated>>,
    pub(super) staging: Vec<wgpu::Buffer>,
    /// Bound to variables that a dispatch does not use: to those that are only read, and to those
    /// that a kernel could write. One buffer cannot be bound as both.
    pub(super) unused: [wgpu::Buffer; 2],
    /// Record dispatches as for a hardware GPU, although the adapter is a software one. Tests use
    /// it.
    pub as_hardware: bool,
    pub(super) in_flight: VecDeque<wgpu::SubmissionIndex>,
    /// Number of elements written since the last submission.
    pub(super) staged: usize,
    trouble: Arc<Mutex<Option<String>>>,
    pub(super) counters: Counters,
    matrices: Matrices,
    /// Whether the caller has verified the `_matrix` kernels on this adapter. [`Choice::Auto`] then
    /// takes them for maps in half precision.
    pub verified: bool,
    /// The kernel variant for matrix products.
    pub choice: Choice,
    /// With a variant in `choice`, the number by which slices are divided; 0 counts as 1.
    pub fewer_slices: usize,
    /// The user's table of measurements on this adapter, which [`Choice::Auto`] consults first.
    /// None unless the caller sets it from [`Tuned::read`].
    pub tuned: Option<Rc<Tuned>>,
    /// Maximum duration of a wait. After it the adapter counts as hung.
    pub patience: Duration,
    /// Whether new buffers get a guard behind their elements, within reach of kernels, so that
    /// [`Gpu::check_guards`] can detect writes past the end.
    pub guarded: bool,
    /// Bytes of all buffers.
    pub(super) allocated: u64,
}

/// Maximum size of a binding in bytes. Kernels compute indices in i32, so a binding must end below
/// 2³¹ bytes; 256 is the alignment of offsets.
const BINDING: u64 = (1 << 31) - 256;

impl Gpu {
    /// Opens an adapter with all of its limits.
    ///
    /// # Errors
    /// If the adapter refuses to open a device.
    pub fn new(adapter: Adapter) -> Result<Self> {
        Self::with(adapter, Matrices::None)
    }

    /// As [`Gpu::new`], with cooperative matrices if `wanted` and supported.
    ///
    /// # Errors
    /// If the adapter refuses to open a device.
    pub fn with(adapter: Adapter, wanted: Matrices) -> Result<Self> {
        let matrices = adapter.supported(wanted);
        let mut limits = adapter.handle.limits();
        // Kernels compute indices in i32. Metal allows larger bindings, and would clamp indices
        // beyond the range.
        limits.max_storage_buffer_binding_size =
            limits.max_storage_buffer_binding_size.min(BINDING);
        let useful = wgpu::Features::TIMESTAMP_QUERY
            | wgpu::Features::TIMESTAMP_QUERY_INSIDE_ENCODERS
            | wgpu::Features::TIMESTAMP_QUERY_INSIDE_PASSES
            | wgpu::Features::SUBGROUP
            | wgpu::Features::SHADER_INT64
            | wgpu::Features::SHADER_F16
            | wgpu::Features::PIPELINE_CACHE;
        // Every backend of wgpu has them: the parameters of a step.
        let needed = wgpu::Features::IMMEDIATES;
        let features = needed | adapter.handle.features() & (useful | matrices.features());
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("csae"),
            required_features: features,
            required_limits: limits.clone(),
            memory_hints: wgpu::MemoryHints::Performance,
            experimental_features: matrices.experimental(),
            ..wgpu::DeviceDescriptor::default()
        };
        let (device, queue) = pollster::block_on(adapter.handle.request_device(&descriptor))
            .map_err(|error| adapter.fault(&format!("the adapter refused a device: {error}")))?;
        let trouble = Arc::new(Mutex::new(None));
        let note = |trouble: &Arc<Mutex<Option<String>>>, text: String| {
            trouble.lock().unwrap_or_else(std::sync::PoisonError::into_inner).get_or_insert(text);
        };
        let seen = Arc::clone(&trouble);
        device
            .on_uncaptured_error(Arc::new(move |error: wgpu::Error| note(&seen, explain(&error))));
        let seen = Arc::clone(&trouble);
        // The loss of the device replaces any earlier error.
        device.set_device_lost_callback(move |reason, text| {
            *seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(format!(
                "{LOST} ({reason:?}) {text}; if the driver's watchdog stopped a long dispatch, {}",
                Advice::SmallerBatch
            ));
        });
        let unused = ["not read", "not written"].map(|label| {
            device.create_buffer(&wgpu::BufferDescriptor {
                label: Some(label),
                size: View::UNUSED.len as u64 * View::UNUSED.element(),
                usage: wgpu::BufferUsages::STORAGE,
                mapped_at_creation: false,
            })
        });
        Ok(Self {
            adapter,
            device,
            queue,
            limits,
            compiled: Compiled::default(),
            buffers: Vec::new(),
            staging: Vec::new(),
            unused,
            as_hardware: false,
            in_flight: VecDeque::new(),
            staged: 0,
            trouble,
            counters: Counters::default(),
            matrices,
            verified: false,
            choice: Choice::Auto,
            fewer_slices: 1,
            tuned: None,
            patience: PATIENCE,
            guarded: false,
            allocated: 0,
        })
    }

    /// The adapter's name.
    pub fn name(&self) -> &str {
        &self.adapter.info.name
    }

    /// The adapter.
    pub fn adapter(&self) -> &Adapter {
        &self.adapter
    }

    /// The adapter's limits, which are also those of the device.
    pub fn limits(&self) -> &wgpu::Limits {
        &self.limits
    }

    /// wgpu's handle of the device. Tests use it to destroy the device or to provoke errors.
    pub fn handle(&self) -> wgpu::Device {
        self.device.clone()
    }

    /// The properties of the adapter that determine which kernels it runs.
    pub fn traits(&self) -> Traits {
        let features = self.device.features();
        let subgroup = if features.contains(wgpu::Features::SUBGROUP) {
            self.adapter.info.subgroup_min_size
        } else {
            0
        };
        let int64 = features.contains(wgpu::Features::SHADER_INT64);
        Traits {
            software: self.adapter.is_software() && !self.as_hardware,
            few_registers: self.adapter.info.vendor == INTEL,
            subgroup,
            int64,
            matrices: self.matrices,
            verified: self.verified,
        }
    }

    /// Selects a kernel variant for all matrix products recorded from now on.
    ///
    /// # Errors
    /// If the adapter does not run the variant.
    pub fn choose(&mut self, choice: Choice) -> Result<()> {
        let traits = self.traits();
        if !traits.takes(choice) {
            let lack = match choice {
                Choice::Matrix => "no cooperative matrices of 16x16 f16 or 8x8 f32".to_owned(),
                _ => {
                    format!("subgroups of {}, but {} are needed", traits.subgroup, Traits::SUBGROUP)
                }
            };
            let (name, adapter) = (choice.name(), self.adapter.label());
            return Err(Error::usage(format!(
                "kernels {name}: {adapter} has {lack}; {}",
                Advice::AutoKernels
            )));
        }
        self.choice = choice;
        Ok(())
    }

    /// Whether dispatches of a pass can run at the same time. Metal runs those of an encoder one
    /// after the other.
    pub(super) fn overlaps(&self) -> bool {
        self.adapter.info.backend != wgpu::Backend::Metal
    }

    /// A recorder that selects kernels for this device.
    pub fn recorder(&self) -> Recorder {
        Recorder {
            dispatches: Vec::new(),
            choice: self.choice,
            fewer_slices: self.fewer_slices,
            traits: self.traits(),
            tuned: self.tuned.clone(),
            ..Recorder::default()
        }
    }

    /// Bytes of all buffers, including returned ones that are not freed yet.
    pub const fn allocated(&self) -> u64 {
        self.allocated
    }

    /// Number of objects created so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    pub(super) fn device(&self) -> &wgpu::Device {
        &self.device
    }

    pub(super) const fn queue(&self) -> &wgpu::Queue {
        &self.queue
    }

    /// Waits for the oldest submissions until at most [`IN_FLIGHT`] remain.
    pub(super) fn keep_up(&mut self) -> Result<()> {
        while self.in_flight.len() > IN_FLIGHT {
            let oldest = self.in_flight.pop_front();
            self.wait_for(oldest)?;
        }
        Ok(())
    }

    /// Compiles calls into a plan that can be replayed.
    ///
    /// # Errors
    /// If the driver refuses a kernel, or a binding or grid exceeds the adapter's limits.
    pub fn compile(&mut self, calls: &[impl Record]) -> Result<Plan> {
        let plan = Plan::new(self, calls);
        let checked = self.check();
        if checked.is_err() {
            // Discard kernels that the driver refused.
            self.compiled.clear();
        }
        checked.and(plan)
    }

    /// Replays a plan, in one submission unless it could take long. Does not wait for its
    /// completion.
    ///
    /// # Errors
    /// If the device has reported an error.
    pub fn run(&mut self, plan: &Plan, params: &StepParams) -> Result<()> {
        for passes in &plan.submissions {
            let mut encoder = self
                .device
                .create_command_encoder(&wgpu::CommandEncoderDescriptor { label: Some("plan") });
            for steps in passes {
                let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
                    label: Some("plan"),
                    timestamp_writes: None,
                });
                for step in &plan.steps[steps.clone()] {
                    step.dispatch(&mut pass, params);
                }
            }
            self.submit(encoder);
            self.keep_up()?;
        }
        self.check()
    }

    pub(super) fn submit(&mut self, encoder: wgpu::CommandEncoder) {
        let index = self.queue.submit([encoder.finish()]);
        self.staged = 0;
        self.in_flight.push_back(index);
    }

    /// Waits for all submitted work.
    ///
    /// # Errors
    /// If the device fails, or does not finish within [`Gpu::patience`].
    pub fn wait(&mut self) -> Result<()> {
        self.in_flight.clear();
        self.wait_for(None)
    }

    fn wait_for(&self, submission_index: Option<wgpu::SubmissionIndex>) -> Result<()> {
        let waited = self
            .device
            .poll(wgpu::PollType::Wait { submission_index, timeout: Some(self.patience) });
        self.check()?;
        waited.map(|_| ()).map_err(|error| {
            self.abandon();
            self.adapter.fault(&format!(
                "no answer within {} s ({error}); the driver may hang, {}",
                self.patience.as_secs(),
                Advice::OtherDevice
            ))
        })
    }

    /// Leaks the device. Dropping it would wait for the work that hangs, and wgpu panics when a
    /// lost device with unfinished work is dropped.
    fn abandon(&self) {
        std::mem::forget((self.device.clone(), self.queue.clone()));
    }

    /// Reports the errors of the device since the last call.
    ///
    /// # Errors
    /// If there was one. After the loss of the device every call fails.
    pub fn check(&self) -> Result<()> {
        let mut trouble = self.trouble.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let lost = trouble.as_ref().is_some_and(|text| text.starts_with(LOST));
        let found = if lost { trouble.clone() } else { trouble.take() };
        match found {
            None => Ok(()),
            Some(text) => {
                if lost {
                    self.abandon();
                }
                Err(self.adapter.fault(&text))
            }
        }
    }

    /// Uses `path` as the driver's pipeline cache: reads it now, and writes it when the device is
    /// dropped.
    pub fn keep_pipelines(&mut self, path: std::path::PathBuf) {
        self.compiled.cache = PipelineCache::open(&self.device, path);
    }

    /// Compiles the missing pipelines of `dispatches`.
    pub(super) fn prepare(&mut self, dispatches: &[Dispatch]) -> Result<()> {
        let int64 = self.traits().wide_words();
        let emulated = matches!(self.matrices, Matrices::Emulated(_));
        let single = self.matrices.unit() == Some(Unit::Single);
        let storage = Storage { int64, emulated, single, ..Storage::default() };
        self.counters.pipelines += self.compiled.prepare(&self.device, storage, dispatches)?;
        Ok(())
    }

    /// The pipeline that [`Gpu::prepare`] has compiled for a dispatch.
    pub(super) fn loaded(&self, dispatch: &Dispatch) -> Arc<Loaded> {
        self.compiled.of(dispatch)
    }

    /// Kernel name and compile time of each pipeline, in order. Several compile in parallel.
    pub fn compile_log(&self) -> &[(&'static str, Duration)] {
        &self.compiled.log
    }
}

impl Drop for Gpu {
    fn drop(&mut self) {
        // After an error the compiled data can be invalid, so it is not stored.
        let sound = self.trouble.lock().is_ok_and(|trouble| trouble.is_none());
        if let Some(cache) = self.compiled.cache.as_mut().filter(|_| sound) {
            cache.store();
        }
    }
}
