//! Measures the device's peak rates, with a copy and a matrix product, in the run that compares
//! with them.

use std::time::Instant;

use rayon::prelude::*;
use serde::Serialize;

use crate::device::Device;
use crate::error::Result;
use crate::ops::{Activation, Combine, Conv2dBwdInput, Conv2dBwdWeight, Conv2dFwd};
use crate::profile::Cost;
use crate::program::Call;
use crate::rng::Stream;
use crate::shape::Conv2d;
use crate::view::StepParams;

/// Side of the matrices: large enough for a device's peak rate.
const SIDE: usize = 1024;
/// Elements copied: 128 MiB, more than a cache holds, and not more than the portable limit of a
/// binding.
const COPIED: usize = 32 << 20;
/// Maximum number of runs; the fastest counts.
const TRIES: usize = 12;
/// Maximum seconds of all runs.
const SECONDS: f64 = 0.7;

/// The device's peak rates.
#[derive(Clone, Debug, Serialize)]
pub struct Peak {
    /// `peak`
    pub kind: &'static str,
    /// Name of the device.
    pub device: String,
    /// 10⁹ bytes per second, read and written, of the fastest copy.
    pub gbps: f64,
    /// The method of the fastest copy.
    pub copy: &'static str,
    /// MiB copied.
    pub copied_mib: usize,
    /// 10⁹ floating-point operations per second of the fastest product of two 1024×1024 matrices.
    pub gflops: f64,
    /// The operation of the fastest product.
    pub product: String,
}

impl Peak {
    /// Measures a device.
    ///
    /// # Errors
    /// If the device fails.
    pub fn measure(device: &mut Device) -> Result<Self> {
        let (gflops, product) = product(device)?;
        let len = COPIED.min(usize::try_from(device.max_elements()).unwrap_or(COPIED));
        let (gbps, copy) = copy(device, len)?;
        let round = |x: f64| (x * 10.0).round() / 10.0;
        let device = device.label();
        Ok(Self {
            kind: "peak",
            device,
            gbps: round(gbps),
            copy,
            copied_mib: len >> 18,
            gflops: round(gflops),
            product,
        })
    }

    /// Minimum time of some work in seconds, at the peak rates (the roofline).
    pub fn floor(&self, cost: Cost) -> f64 {
        (cost.flops / self.gflops).max(cost.bytes / self.gbps) / 1e9
    }

    /// The rates as two lines of text.
    pub fn lines(&self) -> [String; 2] {
        [
            format!(
                "peak/copy     {:>10.1} GB/s     {} of {} MiB",
                self.gbps, self.copy, self.copied_mib
            ),
            format!(
                "peak/product  {:>10.1} GFLOP/s  {SIDE}x{SIDE}x{SIDE} by {}",
                self.gflops, self.product
            ),
        ]
    }
}

/// The time of the fastest of several runs, in seconds, after one run to warm up.
fn best(mut run: impl FnMut() -> Result<f64>) -> Result<f64> {
    let began = Instant::now();
    run()?;
    let mut best = f64::INFINITY;
    for i in 0..TRIES {
        if i > 1 && began.elapsed().as_secs_f64() > SECONDS {
            break;
        }
        best = best.min(run()?);
    }
    Ok(best)
}

/// The time of a call in seconds.
fn time(device: &mut Device, call: Call) -> Result<f64> {
    let program = device.compile(vec![call])?;
    best(|| Ok(device.profile(&program, &StepParams::default())?.total() / 1e9))
}

/// The rate of the fastest of the three products of a fully connected layer, in GFLOP/s, and its
/// name.
fn product(device: &mut Device) -> Result<(f64, String)> {
    let size = Conv2d::linear(SIDE, SIDE, SIDE);
    let mut stream = Stream::new(0, "peak");
    let values: Vec<f32> = (0..SIDE * SIDE).map(|_| stream.uniform() - 0.5).collect();
    let mut made = Vec::new();
    for name in ["a", "b", "c"] {
        let buffer = device.alloc_real(name, SIDE * SIDE)?;
        device.write(*buffer, &values);
        made.push(buffer);
    }
    let len = Conv2dBwdWeight::partials_len(&size, false, false)
        .max(Conv2dFwd::partials_len(&size))
        .max(Conv2dBwdInput::partials_len(&size));
    let scratch = device.alloc_real("partials", len)?;
    let partials = *scratch;
    let (activation, [a, b, c]) = (Activation::Identity, [*made[0], *made[1], *made[2]]);
    let calls: [Call; 3] = [
        Conv2dFwd {
            size,
            activation,
            penalty: 0.0,
            x: a,
            w: b,
            b: None,
            gate: None,
            y: c,
            partials,
        }
        .into(),
        Conv2dBwdInput {
            size,
            activation,
            penalty: 0.0,
            y: a,
            w: b,
            b: None,
            gate: None,
            x: c,
            partials,
        }
        .into(),
        Conv2dBwdWeight { size, transposed: false, x: a, dy: b, dw: c, db: None, partials }.into(),
    ];
    let mut rates = Vec::new();
    for call in calls {
        let (flops, label) = (call.cost().flops, call.label());
        rates.push((flops / time(device, call)? / 1e9, label));
    }
    Ok(rates.into_iter().max_by(|a, b| a.0.total_cmp(&b.0)).expect("three were measured"))
}

/// The rate of the fastest way to copy, in GB/s, and its name.
fn copy(device: &mut Device, len: usize) -> Result<(f64, &'static str)> {
    let moved = 8.0 * len as f64;
    if device.as_gpu().is_none() {
        let (from, mut to) = (vec![1.0_f32; len], vec![0.0_f32; len]);
        let seconds = best(|| {
            let start = Instant::now();
            to.par_chunks_mut(1 << 20)
                .zip(from.par_chunks(1 << 20))
                .for_each(|(to, from)| to.copy_from_slice(from));
            Ok(start.elapsed().as_secs_f64())
        })?;
        return Ok((moved / seconds / 1e9, "memcpy on all threads"));
    }
    let (from, to) = (device.alloc_real("copied", len)?, device.alloc_real("copy", len)?);
    let (a, y) = (*from, *to);
    let by_kernel = time(device, Combine { alpha: 1.0, beta: 0.0, a, b: None, y }.into())?;
    let by_queue = best(|| device.as_gpu().map_or(Ok(f64::INFINITY), |gpu| gpu.time_copy(a, y)))?;
    let (seconds, how) = if by_kernel < by_queue {
        (by_kernel, "kernel combine")
    } else {
        (by_queue, "copy_buffer_to_buffer")
    };
    Ok((moved / seconds / 1e9, how))
}
