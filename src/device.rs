//! The device that runs a program: the CPU path or a GPU. Both run the same calls on the same
//! buffers.

mod allocation;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

pub use allocation::Allocation;
use allocation::{Buffers, Lease, elsewhere};

use crate::advice::Advice;
use crate::budget;
use crate::error::{Error, Result};
use crate::gpu::{self, Adapter, Gpu, Matrices};
use crate::linalg::real::Real;
use crate::profile::{Clock, Profile, Timed};
use crate::program::Call;
use crate::ranks::Group;
use crate::reference::Memory;

use crate::view::{Precision, StepParams, View};

/// A device and its buffers.
#[derive(Debug)]
pub struct Device {
    kind: Kind,
    buffers: Buffers,
    /// The user's limit on its memory, in bytes.
    limit: Option<u64>,
    /// The processes that a training on this device is shared with.
    ranks: Option<Arc<Group>>,
}

#[derive(Debug)]
enum Kind {
    Cpu(Box<Memory<f32>>),
    Oracle(Box<Memory<f64>>),
    Gpu(Box<Gpu>),
}

/// A program compiled for a device. It keeps the buffers that it uses alive; dropping it returns
/// those whose owners have been dropped.
#[derive(Debug)]
pub struct Program {
    device: u32,
    code: Code,
    _buffers: Vec<Arc<Lease>>,
}

#[derive(Debug)]
enum Code {
    /// The CPU path interprets the calls.
    Calls(Vec<Call>),
    /// A recorded plan.
    Plan(gpu::Plan),
}

impl Program {
    /// The recorded plan of a GPU. None on the CPU path.
    pub const fn plan(&self) -> Option<&gpu::Plan> {
        if let Code::Plan(plan) = &self.code { Some(plan) } else { None }
    }

    /// Number of dispatches; 0 on the CPU path.
    pub fn dispatches(&self) -> usize {
        self.plan().map_or(0, gpu::Plan::len)
    }
}

/// The type of a buffer's elements.
#[derive(Clone, Copy)]
enum Element {
    Real,
    Half,
    Word,
}

/// A result that is being read.
#[derive(Debug)]
pub enum Pending {
    /// A result of the CPU path, which is available at once.
    Ready(Vec<f32>),
    /// A queued readback.
    Gpu(gpu::Ticket),
}

/// The device that a `--device` argument selects.
#[derive(Clone, Debug)]
pub enum Selected {
    /// The CPU path.
    Cpu,
    /// An adapter.
    Adapter(Box<Adapter>),
}

/// Resolves `auto`, `cpu`, `gpu`, or the name or number of an adapter.
///
/// # Errors
/// If no adapter matches.
pub fn select(wanted: &str) -> Result<Selected> {
    match wanted {
        "cpu" => Ok(Selected::Cpu),
        "auto" => Ok(match gpu::choose_automatically(&gpu::adapters()) {
            Some(adapter) => Selected::Adapter(Box::new(adapter.clone())),
            None => Selected::Cpu,
        }),
        other => gpu::find(other).map(|adapter| Selected::Adapter(Box::new(adapter))),
    }
}

impl Device {
    fn of(kind: Kind) -> Self {
        Self { kind, buffers: Buffers::new(), limit: None, ranks: None }
    }

    /// Shares every training on this device with other processes.
    pub fn share(&mut self, group: Arc<Group>) {
        self.ranks = Some(group);
    }

    /// The processes that a training on this device is shared with, if there are several.
    pub fn ranks(&self) -> Option<Arc<Group>> {
        self.ranks.clone()
    }

    /// The CPU path in f32.
    pub fn cpu() -> Self {
        Self::of(Kind::Cpu(Box::default()))
    }

    /// The CPU path in f64, the reference that other results are compared with.
    pub fn oracle() -> Self {
        Self::of(Kind::Oracle(Box::default()))
    }

    /// A GPU.
    ///
    /// # Errors
    /// If the adapter refuses to open a device.
    pub fn gpu(adapter: Adapter) -> Result<Self> {
        Ok(Self::of(Kind::Gpu(Box::new(Gpu::new(adapter)?))))
    }

    /// Opens the device that a `--device` argument selects.
    ///
    /// # Errors
    /// If no adapter matches, or it refuses to open a device.
    pub fn open(wanted: &str) -> Result<Self> {
        Self::open_with(wanted, |_| Matrices::None)
    }

    /// As [`Device::open`]. `matrices` selects the cooperative matrices of an adapter.
    ///
    /// # Errors
    /// If no adapter matches, or it refuses to open a device.
    pub fn open_with(wanted: &str, matrices: impl FnOnce(&Adapter) -> Matrices) -> Result<Self> {
        match select(wanted)? {
            Selected::Cpu => Ok(Self::cpu()),
            Selected::Adapter(adapter) => {
                let matrices = matrices(&adapter);
                Ok(Self::of(Kind::Gpu(Box::new(Gpu::with(*adapter, matrices)?))))
            }
        }
    }

    /// Name for reports.
    pub fn label(&self) -> String {
        match &self.kind {
            Kind::Cpu(_) => format!("cpu ({} threads)", rayon::current_num_threads()),
            Kind::Oracle(_) => "cpu in f64".to_owned(),
            Kind::Gpu(gpu) if gpu.adapter().is_software() => {
                format!("{}, a software adapter", gpu.adapter().label())
            }
            Kind::Gpu(gpu) => gpu.adapter().label(),
        }
    }

    /// Identity under which results are bit-reproducible: the CPU path, or adapter, driver, the
    /// user's tuning table and whether matrix units are used.
    pub fn identity(&self) -> String {
        match &self.kind {
            Kind::Cpu(_) => "cpu".to_owned(),
            Kind::Oracle(_) => "cpu in f64".to_owned(),
            Kind::Gpu(gpu) => {
                let table = gpu.tuned.as_ref().map(|tuned| format!(", tuned {:08x}", tuned.hash()));
                let units = if gpu.verified { ", matrix units" } else { "" };
                gpu.adapter().identity() + &table.unwrap_or_default() + units
            }
        }
    }

    /// The `--device` argument that selects this device again, given the one that selected it.
    pub fn again(&self, wanted: &str) -> String {
        match &self.kind {
            Kind::Gpu(gpu) if ["auto", "gpu"].contains(&wanted) => gpu.adapter().info.name.clone(),
            Kind::Gpu(_) => wanted.to_owned(),
            _ => "cpu".to_owned(),
        }
    }

    /// The GPU; None for the CPU path.
    pub fn as_gpu(&mut self) -> Option<&mut Gpu> {
        if let Kind::Gpu(gpu) = &mut self.kind { Some(gpu) } else { None }
    }

    /// Maximum size of a buffer in bytes.
    pub fn max_bytes(&self) -> u64 {
        if let Kind::Gpu(gpu) = &self.kind {
            gpu.limits().max_buffer_size
        } else {
            4 * u64::from(u32::MAX)
        }
    }

    /// Maximum number of elements of a buffer that one kernel can bind.
    pub fn max_elements(&self) -> u64 {
        match &self.kind {
            Kind::Gpu(gpu) => {
                gpu.limits().max_storage_buffer_binding_size.min(gpu.limits().max_buffer_size) / 4
            }
            _ => u64::from(u32::MAX),
        }
    }

    /// Memory budget for training in bytes: the user's limit, or the free memory of the machine if
    /// the device uses it, whichever is smaller. None if neither is known: wgpu does not report the
    /// memory of discrete GPUs.
    pub fn budget(&self) -> Option<u64> {
        self.budget_with(0)
    }

    /// As [`Device::budget`], for a caller that already holds `taken` bytes, which count as part of
    /// the budget.
    pub fn budget_with(&self, taken: u64) -> Option<u64> {
        /// A software adapter compiles its kernels in this process. Under a limit of the address
        /// space, a training step needed 67 to 83 MiB more than its buffers; with less, lavapipe
        /// crashed.
        const SOFTWARE_ADAPTER: u64 = 96 << 20;
        let adapter = self.kind_of_gpu().map(Gpu::adapter);
        let shares = adapter.is_none_or(Adapter::shares_memory);
        let own = if adapter.is_some_and(Adapter::is_software) { SOFTWARE_ADAPTER } else { 0 };
        let free = if shares { budget::free() } else { None };
        let free = free.map(|free| free.saturating_sub(own));
        // Returned buffers are freed before the next one is made.
        let taken = taken.saturating_add(self.buffers.returned_bytes());
        [self.limit, free.map(|free| free.saturating_add(taken))].into_iter().flatten().min()
    }

    /// Advice for a message about too little memory: to raise the user's limit if that is the one
    /// that is exceeded.
    pub fn memory_advice(&self) -> &'static str {
        match self.limit {
            Some(limit) if self.budget() == Some(limit) => Advice::RaiseMemoryLimit.name(),
            _ => "give the process more memory",
        }
    }

    /// Bytes of all buffers that have an owner or belong to a program.
    pub fn allocated(&self) -> u64 {
        let made = match &self.kind {
            Kind::Cpu(memory) => memory.bytes(),
            Kind::Oracle(memory) => memory.bytes(),
            Kind::Gpu(gpu) => gpu.allocated(),
        };
        made - self.buffers.returned_bytes()
    }

    /// Sets the user's limit on the memory budget, in bytes.
    pub const fn limit_memory(&mut self, bytes: Option<u64>) {
        self.limit = bytes;
    }

    const fn kind_of_gpu(&self) -> Option<&Gpu> {
        if let Kind::Gpu(gpu) = &self.kind { Some(gpu) } else { None }
    }

    /// Frees the buffers whose owners have been dropped.
    fn reap(&mut self) {
        while let Some(buffer) = self.buffers.take_returned() {
            match &mut self.kind {
                Kind::Cpu(memory) => memory.free(buffer),
                Kind::Oracle(memory) => memory.free(buffer),
                Kind::Gpu(gpu) => gpu.free(buffer),
            }
        }
    }

    fn allocate(&mut self, label: &str, len: usize, element: Element) -> Result<Allocation> {
        fn host<T: Real>(
            memory: &mut Memory<T>,
            view: View,
            (element, label): (Element, &str),
        ) -> Result<u64> {
            match element {
                Element::Real | Element::Half => memory.alloc_real(view.buffer, view.len, label),
                Element::Word => memory.alloc_words(view.buffer, view.len, label),
            }
        }
        self.reap();
        let half = matches!(element, Element::Half);
        let view = View { half, ..View::whole(self.buffers.next(), len) };
        let bytes = match &mut self.kind {
            Kind::Cpu(memory) => host(memory, view, (element, label))?,
            Kind::Oracle(memory) => host(memory, view, (element, label))?,
            Kind::Gpu(gpu) => gpu.alloc(view, label)?,
        };
        Ok(self.buffers.own(view, bytes))
    }

    /// Allocates a buffer of f32 (f64 on the oracle), filled with zeros.
    ///
    /// # Errors
    /// If the buffer exceeds the adapter's limit, or there is not enough memory for it.
    pub fn alloc_real(&mut self, label: &str, len: usize) -> Result<Allocation> {
        self.allocate(label, len, Element::Real)
    }

    /// Allocates a buffer of f16, filled with zeros. The CPU path stores reals rounded to f16. The
    /// caller must check [`Device::has_half`] before running kernels on it.
    ///
    /// # Errors
    /// If the buffer exceeds the adapter's limit, or there is not enough memory for it.
    pub fn alloc_half(&mut self, label: &str, len: usize) -> Result<Allocation> {
        self.allocate(label, len, Element::Half)
    }

    /// Whether maps can be in half precision. The CPU path and some adapters do not support it.
    pub fn has_half(&self) -> bool {
        self.kind_of_gpu()
            .is_some_and(|gpu| gpu.handle().features().contains(wgpu::Features::SHADER_F16))
    }

    /// Checks that maps can have a precision.
    ///
    /// # Errors
    /// For f16 if the device does not support half precision.
    pub fn takes(&self, precision: Precision) -> Result<()> {
        if precision == Precision::F16 && !self.has_half() {
            return Err(Error::usage(format!(
                "f16: {} has no half precision; use f32",
                self.label()
            )));
        }
        Ok(())
    }

    /// Allocates a buffer of u32, filled with zeros.
    ///
    /// # Errors
    /// As [`Device::alloc_real`].
    pub fn alloc_words(&mut self, label: &str, len: usize) -> Result<Allocation> {
        self.allocate(label, len, Element::Word)
    }

    /// Panics unless the buffer of a view belongs to this device and has an owner. Writing anywhere
    /// else is a bug of the program, not a mistake of its user.
    #[track_caller]
    fn expect_owned(&self, view: View) {
        if let Err(error) = self.buffers.check(view.buffer) {
            panic!("cannot write: {error}");
        }
    }

    /// Writes f32 values into a view, rounded to its precision.
    ///
    /// # Panics
    /// If the view belongs to another device, or the owner of its buffer has been dropped.
    pub fn write(&mut self, view: View, data: &[f32]) {
        self.expect_owned(view);
        match &mut self.kind {
            Kind::Cpu(memory) => {
                let mut to = memory.take(view);
                to[..data.len()].copy_from_slice(data);
                memory.put(to);
            }
            Kind::Oracle(memory) => {
                let mut to = memory.take(view);
                to.iter_mut().zip(data).for_each(|(to, from)| *to = f64::from(*from));
                memory.put(to);
            }
            Kind::Gpu(gpu) => gpu.write_reals(view, data),
        }
    }

    /// Writes f64 values into a view. The oracle stores them exactly, other devices round them.
    ///
    /// # Panics
    /// As [`Device::write`].
    pub fn write_f64(&mut self, view: View, data: &[f64]) {
        self.expect_owned(view);
        if let Kind::Oracle(memory) = &mut self.kind {
            let mut to = memory.take(view);
            to[..data.len()].copy_from_slice(data);
            memory.put(to);
        } else {
            self.write(view, &data.iter().map(|x| *x as f32).collect::<Vec<_>>());
        }
    }

    /// Writes u32 values into a view.
    ///
    /// # Panics
    /// As [`Device::write`].
    pub fn write_words(&mut self, view: View, data: &[u32]) {
        self.expect_owned(view);
        match &mut self.kind {
            Kind::Cpu(memory) => put_words(memory, view, data),
            Kind::Oracle(memory) => put_words(memory, view, data),
            Kind::Gpu(gpu) => gpu.write(view, data),
        }
    }

    /// Reads a view as f32, after all work submitted so far.
    ///
    /// # Errors
    /// If the view belongs to another device, the owner of its buffer has been dropped, or the
    /// device fails, or there is not enough memory.
    pub fn read(&mut self, view: View) -> Result<Vec<f32>> {
        self.reap();
        self.buffers.check(view.buffer)?;
        match &mut self.kind {
            Kind::Cpu(memory) => budget::copied(memory.real(view), "a result"),
            Kind::Oracle(memory) => Ok(memory.real(view).iter().map(|x| *x as f32).collect()),
            Kind::Gpu(gpu) => {
                let ticket = gpu.fetch(view);
                gpu.collect_reals(ticket)
            }
        }
    }

    /// Reads a view as f64, exactly on the oracle.
    ///
    /// # Errors
    /// If the device fails.
    pub fn read_f64(&mut self, view: View) -> Result<Vec<f64>> {
        self.buffers.check(view.buffer)?;
        if let Kind::Oracle(memory) = &self.kind {
            return Ok(memory.real(view).to_vec());
        }
        Ok(self.read(view)?.into_iter().map(f64::from).collect())
    }

    /// Reads a view of u32, after all work submitted so far.
    ///
    /// # Errors
    /// If the device fails.
    pub fn read_words(&mut self, view: View) -> Result<Vec<u32>> {
        self.reap();
        self.buffers.check(view.buffer)?;
        match &mut self.kind {
            Kind::Cpu(memory) => Ok(memory.words(view).to_vec()),
            Kind::Oracle(memory) => Ok(memory.words(view).to_vec()),
            Kind::Gpu(gpu) => gpu.read(view),
        }
    }

    /// Compiles a program, which keeps the buffers of its calls alive.
    ///
    /// # Errors
    /// If a call uses a buffer of another device, one that is only planned, or one whose owner has
    /// been dropped, or if the device fails.
    pub fn compile(&mut self, calls: Vec<Call>) -> Result<Program> {
        self.reap();
        let mut used = HashSet::new();
        for call in &calls {
            used.extend(call.views().into_iter().map(|(view, _)| view.buffer));
        }
        let leases =
            used.into_iter().map(|buffer| self.buffers.lease(buffer)).collect::<Result<_>>()?;
        let code = match &mut self.kind {
            Kind::Gpu(gpu) => Code::Plan(gpu.compile(&calls)?),
            _ => Code::Calls(calls),
        };
        Ok(Program { device: self.buffers.device, code, _buffers: leases })
    }

    /// Frees returned buffers, and fails for a program of another device.
    fn prepare(&mut self, program: &Program) -> Result<()> {
        self.reap();
        if program.device == self.buffers.device { Ok(()) } else { Err(elsewhere("a program")) }
    }

    /// Runs a program once. A GPU may still be working when this returns.
    ///
    /// # Errors
    /// If the device fails.
    pub fn run(&mut self, program: &Program, step: &StepParams) -> Result<()> {
        self.prepare(program)?;
        match (&mut self.kind, &program.code) {
            (Kind::Gpu(gpu), Code::Plan(plan)) => gpu.run(plan, step),
            (Kind::Cpu(memory), Code::Calls(calls)) => {
                memory.step = *step;
                calls.iter().for_each(|call| call.run(memory));
                Ok(())
            }
            (Kind::Oracle(memory), Code::Calls(calls)) => {
                memory.step = *step;
                calls.iter().for_each(|call| call.run(memory));
                Ok(())
            }
            _ => unreachable!("the device compiled the program"),
        }
    }

    /// Runs a program once, waits for it, and returns when each dispatch ran; on the CPU path, when
    /// each call ran.
    ///
    /// # Errors
    /// If the device fails.
    pub fn profile(&mut self, program: &Program, step: &StepParams) -> Result<Profile> {
        self.prepare(program)?;
        match (&mut self.kind, &program.code) {
            (Kind::Gpu(gpu), Code::Plan(plan)) => gpu.profile(plan, step),
            (Kind::Cpu(memory), Code::Calls(calls)) => Ok(profile_calls(memory, calls, step)),
            (Kind::Oracle(memory), Code::Calls(calls)) => Ok(profile_calls(memory, calls, step)),
            _ => unreachable!("the device compiled the program"),
        }
    }

    /// Starts reading a view without waiting.
    ///
    /// # Errors
    /// If the device fails.
    pub fn fetch(&mut self, view: View) -> Result<Pending> {
        self.buffers.check(view.buffer)?;
        match &mut self.kind {
            Kind::Gpu(gpu) => Ok(Pending::Gpu(gpu.fetch(view))),
            _ => self.read(view).map(Pending::Ready),
        }
    }

    /// Whether a result that is being read is available.
    pub fn arrived(&self, pending: &Pending) -> bool {
        match (&self.kind, pending) {
            (Kind::Gpu(gpu), Pending::Gpu(ticket)) => gpu.arrived(ticket),
            _ => true,
        }
    }

    /// Returns a result that is being read, waiting if necessary.
    ///
    /// # Errors
    /// If the device fails.
    pub fn collect(&mut self, pending: Pending) -> Result<Vec<f32>> {
        match (&mut self.kind, pending) {
            (Kind::Gpu(gpu), Pending::Gpu(ticket)) => gpu.collect_reals(ticket),
            (_, Pending::Ready(data)) => Ok(data),
            _ => unreachable!("a result is collected from its own device"),
        }
    }

    /// Waits for all submitted work.
    ///
    /// # Errors
    /// If the device fails.
    pub fn wait(&mut self) -> Result<()> {
        if let Kind::Gpu(gpu) = &mut self.kind { gpu.wait() } else { Ok(()) }
    }
}

fn profile_calls<T: Real>(memory: &mut Memory<T>, calls: &[Call], step: &StepParams) -> Profile {
    memory.step = *step;
    let began = Instant::now();
    let now = || began.elapsed().as_secs_f64() * 1e9;
    let timed = calls.iter().enumerate().map(|(i, call)| {
        let start = now();
        call.run(memory);
        let end = now();
        Timed { kernel: call.label(), call: i, start, end }
    });
    Profile {
        clock: Clock::Calls,
        timed: timed.collect(),
        operations: calls.iter().map(Call::operation).collect(),
    }
}

fn put_words<T: Real>(memory: &mut Memory<T>, view: View, data: &[u32]) {
    let mut to = memory.take_words(view);
    to[..data.len()].copy_from_slice(data);
    memory.put_words(to);
}
