//! A GPU device: allocates buffers, compiles each kernel once, and replays plans.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use half::f16;

use super::adapter::{Adapter, explain};
use super::choice::{Choice, Traits};
use super::compile::{Compiled, Loaded};
use super::kernels::Storage;
use super::matrices::{Matrices, Unit};
use super::pipeline_cache::PipelineCache;
use super::plan::Plan;
use super::record::{Dispatch, Record, Recorder};
use super::tuned::Tuned;
use crate::advice::Advice;
use crate::error::{Error, Result};
use crate::view::{Buffer, StepParams, View};

/// Default of [`Gpu::patience`]. A trade-off: slow submissions on software adapters must finish,
/// and a hung driver must be reported.
const PATIENCE: Duration = Duration::from_secs(300);
/// Maximum number of elements (64 MiB) written before a submission, which frees wgpu's staging
/// memory.
const WRITE: usize = 16 << 20;
/// Intel's number as a vendor of PCI devices. wgpu reports it on every backend.
const INTEL: u32 = 0x8086;
/// Start of the message about a lost device.
const LOST: &str = "the device was lost";
/// Words in the guard behind a buffer (256 bytes).
const GUARD: usize = 64;
/// Value of each guard word: as f32 a NaN with a payload that no kernel computes.
const GUARD_WORD: u32 = 0xfff5_a5a5;
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

/// A buffer of `len` elements, with a guard behind them if `guarded`.
#[derive(Clone, Debug)]
struct Allocated {
    buffer: Buffer,
    handle: wgpu::Buffer,
    len: usize,
    guarded: bool,
}

/// Bytes of a buffer of `len` elements without its guard, rounded up to whole vec4s.
fn content(len: usize, element: u64) -> u64 {
    (len.max(1) as u64 * element).next_multiple_of(16)
}

/// A device on an adapter.
#[derive(Debug)]
pub struct Gpu {
    adapter: Adapter,
    device: wgpu::Device,
    queue: wgpu::Queue,
    limits: wgpu::Limits,
    compiled: Compiled,
    buffers: Vec<Option<Allocated>>,
    staging: Vec<wgpu::Buffer>,
    /// Bound to variables that a dispatch does not use: to those that are only read, and to those
    /// that a kernel could write. One buffer cannot be bound as both.
    unused: [wgpu::Buffer; 2],
    /// Record dispatches as for a hardware GPU, although the adapter is a software one. Tests use
    /// it.
    pub as_hardware: bool,
    in_flight: VecDeque<wgpu::SubmissionIndex>,
    /// Number of elements written since the last submission.
    staged: usize,
    trouble: Arc<Mutex<Option<String>>>,
    counters: Counters,
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
    allocated: u64,
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

    /// The buffer to bind to a variable that a dispatch does not use.
    pub(super) fn unused_buffer(&self, writable: bool) -> &wgpu::Buffer {
        &self.unused[usize::from(writable)]
    }

    pub(super) fn count_bind_group(&mut self) {
        self.counters.bind_groups += 1;
    }

    pub(super) fn buffer(&self, buffer: Buffer) -> &wgpu::Buffer {
        &self.allocated_at(buffer).handle
    }

    fn allocated_at(&self, buffer: Buffer) -> &Allocated {
        let made = self.buffers[buffer.index as usize].as_ref();
        made.filter(|made| made.buffer == buffer).expect("the buffer is allocated on this device")
    }

    /// Bytes of the binding of a view: whole vec4s, and the guard if the view ends at one.
    pub(super) fn bound_size(&self, view: View) -> u64 {
        let Allocated { handle, len, guarded, .. } = self.allocated_at(view.buffer);
        let last = view.start + view.len == *len;
        if *guarded && last {
            handle.size() - view.start as u64 * view.element()
        } else {
            content(view.len, view.element())
        }
    }

    /// Allocates the buffer of `view`, which must cover it completely, filled with zeros. Its size
    /// is rounded up to 16 bytes. Returns its size in bytes.
    ///
    /// # Errors
    /// If the buffer exceeds the adapter's limit, or the device is out of memory.
    pub(crate) fn alloc(&mut self, view: View, label: &str) -> Result<u64> {
        let View { buffer, len, .. } = view;
        let content = content(len, view.element());
        let size = if self.guarded { content + GUARD as u64 * 4 } else { content };
        if size > self.limits.max_buffer_size {
            let (need, limit) = (size >> 20, self.limits.max_buffer_size >> 20);
            return Err(Error::usage(format!(
                "{label} needs {need} MiB in one buffer, the adapter allows {limit} MiB: {}",
                Advice::SmallerBatch
            )));
        }
        let made = self.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some(label),
            size,
            usage: wgpu::BufferUsages::STORAGE
                | wgpu::BufferUsages::COPY_DST
                | wgpu::BufferUsages::COPY_SRC,
            mapped_at_creation: false,
        });
        // Out of memory wgpu returns an invalid buffer, which must not be kept.
        self.check()?;
        let index = buffer.index as usize;
        if self.buffers.len() <= index {
            self.buffers.resize(index + 1, None);
        }
        if self.guarded {
            self.queue.write_buffer(&made, content, bytemuck::cast_slice(&[GUARD_WORD; GUARD]));
        }
        self.buffers[index] = Some(Allocated { buffer, handle: made, len, guarded: self.guarded });
        self.counters.buffers += 1;
        self.allocated += size;
        Ok(size)
    }

    /// Checks the guards of all buffers that have one.
    ///
    /// # Errors
    /// If a kernel has written past the end of a buffer.
    pub fn check_guards(&mut self) -> Result<()> {
        for index in 0..self.buffers.len() {
            let Some(Allocated { buffer, handle, len, guarded: true }) =
                self.buffers[index].clone()
            else {
                continue;
            };
            let start = (handle.size() / 4) as usize - GUARD;
            let guard: Vec<u32> =
                self.read(View { start, len: GUARD, ..View::whole(buffer, 0) })?;
            if let Some(at) = guard.iter().position(|word| *word != GUARD_WORD) {
                let bad = f32::from_bits(guard[at]);
                return Err(Error::failed(format!(
                    "a kernel wrote {bad} past the end of a buffer of {len}, at element {}; check \
                     its bounds and the sizes of its bindings",
                    start + at
                )));
            }
        }
        Ok(())
    }

    /// Frees a buffer.
    pub(crate) fn free(&mut self, buffer: Buffer) {
        if let Some(old) = self.buffers.get_mut(buffer.index as usize).and_then(Option::take) {
            self.allocated -= old.handle.size();
        }
    }

    pub(super) fn uniform_buffer(&mut self, label: &str, bytes: &[u8]) -> wgpu::Buffer {
        let size = (bytes.len() as u64).max(256);
        let usage = wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST;
        let buffer = self.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some(label),
            size,
            usage,
            mapped_at_creation: false,
        });
        self.queue.write_buffer(&buffer, 0, bytes);
        self.counters.buffers += 1;
        buffer
    }

    pub(super) fn staging(&mut self, size: u64) -> wgpu::Buffer {
        let fitting = self
            .staging
            .iter()
            .position(|buffer| buffer.size() >= size && buffer.size() <= 2 * size.max(4096));
        if let Some(index) = fitting {
            return self.staging.swap_remove(index);
        }
        self.counters.buffers += 1;
        let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
        self.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("staging"),
            size,
            usage,
            mapped_at_creation: false,
        })
    }

    pub(super) fn return_staging(&mut self, buffer: wgpu::Buffer) {
        if self.staging.len() < 8 {
            self.staging.push(buffer);
        }
    }

    /// Writes f32 values into a view, rounded to f16 if it is in half precision.
    pub fn write_reals(&mut self, view: View, data: &[f32]) {
        if !view.half {
            return self.write(view, data);
        }
        assert!(data.len() <= view.len, "{} elements into a view of {}", data.len(), view.len);
        let halves = |pair: &[f32]| {
            u32::from(f16::from_f32(pair[0]).to_bits())
                | pair.get(1).map_or(0, |x| u32::from(f16::from_f32(*x).to_bits()) << 16)
        };
        let words: Vec<u32> = data.chunks(2).map(halves).collect();
        self.write(
            View { buffer: view.buffer, start: view.start / 2, len: words.len(), half: false },
            &words,
        );
    }

    /// Writes elements of 4 bytes into a view.
    ///
    /// # Panics
    /// If `data` is longer than the view.
    pub fn write<E: bytemuck::Pod>(&mut self, view: View, data: &[E]) {
        assert!(
            size_of::<E>() == 4 && data.len() <= view.len,
            "{} elements into a view of {}",
            data.len(),
            view.len
        );
        // Write in pieces, with a submission after each: wgpu keeps a staging copy of everything
        // written between two submissions.
        for (i, piece) in data.chunks(WRITE).enumerate() {
            let buffer = self.buffer(view.buffer);
            self.queue.write_buffer(
                buffer,
                (view.start + i * WRITE) as u64 * 4,
                bytemuck::cast_slice(piece),
            );
            self.staged += piece.len();
            if self.staged >= WRITE {
                let index = self.queue.submit([]);
                self.in_flight.push_back(index);
                self.staged = 0;
                // The next call that returns a result reports the error.
                let _ = self.keep_up();
            }
        }
    }

    /// Waits for the oldest submissions until at most [`IN_FLIGHT`] remain.
    fn keep_up(&mut self) -> Result<()> {
        while self.in_flight.len() > IN_FLIGHT {
            let oldest = self.in_flight.pop_front();
            self.wait_for(oldest)?;
        }
        Ok(())
    }

    /// Reads a view after all work submitted so far.
    ///
    /// # Errors
    /// If the device fails.
    pub fn read<E: bytemuck::Pod>(&mut self, view: View) -> Result<Vec<E>> {
        let ticket = self.fetch(view);
        self.collect(ticket)
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
