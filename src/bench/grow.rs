//! Measures how training speed scales: trains W1 with growing batch, image size and code size, one
//! at a time.

use std::time::Instant;

use serde::Serialize;

use super::fits;
use super::workloads::{self, Running};
use crate::advice::Advice;
use crate::device::Device;
use crate::error::Result;
use crate::report::chart;
use crate::report::chart::{Axis, Chart, Look, Series};
use crate::report::picture::Picture;
use crate::spec::Precision;
use crate::spec::{Config, preset_text};

/// Batch while the code grows.
const CODE_BATCH: usize = 128;
/// Batch while images grow: small enough that the largest images still fit a binding.
const SIDE_BATCH: usize = 16;
/// Side of W1's images.
const SIDE: usize = 28;
/// Units of W1's code.
const CODE: usize = 128;
/// Minimum number of timed windows.
const MIN_WINDOWS: usize = 2;
/// Seconds of a window if steps are short: long enough that the clock's resolution does not matter.
const WINDOW: f64 = 0.05;
/// A point is skipped if it is expected to take this many times the requested seconds (and more
/// than this many seconds).
const TOO_LONG: f64 = 20.0;

/// The quantity that grows while the others are fixed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GrowAxis {
    /// The batch: 1…1024.
    Batch,
    /// The side of the images: 28…256.
    Side,
    /// The code's units: 64…4096.
    Code,
}

/// All quantities.
pub const AXES: [GrowAxis; 3] = [GrowAxis::Batch, GrowAxis::Side, GrowAxis::Code];

/// The result for one size.
#[derive(Clone, Debug, Serialize)]
pub struct GrowResult {
    /// `grow`
    pub kind: &'static str,
    /// `grow/AXIS.VALUE`
    pub name: String,
    /// The quantity that grows.
    pub axis: &'static str,
    /// Its value.
    pub value: usize,
    /// Batch.
    pub batch: usize,
    /// Side of the images.
    pub side: usize,
    /// Units of the code.
    pub code: usize,
    /// Name of the device.
    pub device: String,
    /// Images per second.
    pub images_per_s: f64,
    /// Milliseconds per step, in the fastest window.
    pub ms: f64,
    /// 10⁹ floating-point operations per second.
    pub gflops: f64,
    /// 10⁹ bytes per second, counting the minimum number of bytes to move.
    pub gbps: f64,
    /// Number of learned parameters.
    pub params: usize,
    /// MiB of the step's buffers.
    pub mib: f64,
}

impl GrowAxis {
    /// Name of the quantity.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Batch => "batch",
            Self::Side => "side",
            Self::Code => "code",
        }
    }

    /// The values that are measured.
    pub fn values(self) -> Vec<usize> {
        match self {
            Self::Batch => (0..=10).map(|power| 1 << power).collect(),
            Self::Side => vec![28, 32, 64, 128, 256],
            Self::Code => (6..=12).map(|power| 1 << power).collect(),
        }
    }

    /// Batch, image side and code units for a value of the quantity.
    const fn sizes(self, value: usize) -> [usize; 3] {
        match self {
            Self::Batch => [value, SIDE, CODE],
            Self::Side => [SIDE_BATCH, value, CODE],
            Self::Code => [CODE_BATCH, SIDE, value],
        }
    }

    /// Describes the fixed quantities, for the title of a chart.
    const fn fixed(self) -> &'static str {
        match self {
            Self::Batch => "28x28 gray, code 128",
            Self::Side => "batch 16, code 128",
            Self::Code => "28x28 gray, batch 128",
        }
    }
}

/// Trains W1 at each value of a quantity for `seconds` and reports each result. Returns the reason
/// if it stopped early.
///
/// # Errors
/// If the device fails.
pub fn grow(
    device: &mut Device,
    grows: GrowAxis,
    seconds: f64,
    report: &mut dyn FnMut(GrowResult),
) -> Result<Option<String>> {
    let mut rate: Option<f64> = None;
    for value in grows.values() {
        let [batch, side, code] = grows.sizes(value);
        let sets =
            [format!("model.input=[1, {side}, {side}]"), format!("model.layers.code.units={code}")];
        let config = Config::parse(preset_text("w1")?, "w1", &sets)?;
        let graph = workloads::graph(&config)?;
        if let Some(reason) = fits(device, &graph, batch)? {
            return Ok(Some(format!("{} {value}: {reason}", grows.name())));
        }
        let (plan, calls) = workloads::planned(&graph, batch, Precision::F32)?;
        let cost = calls.iter().fold(crate::profile::Cost::default(), |mut sum, call| {
            sum += call.cost();
            sum
        });
        let expected = rate.map(|rate| cost.flops / rate);
        if let Some(expected) = expected.filter(|expected| {
            (MIN_WINDOWS + 1) as f64 * expected > (TOO_LONG * seconds).max(TOO_LONG)
        }) {
            return Ok(Some(format!(
                "{} {value}: a step would take about {expected:.0} s; {}",
                grows.name(),
                Advice::MoreSeconds
            )));
        }
        let mut running = Running::new(device, &graph, batch, Precision::F32)?;
        running.run(device, 1)?;
        let began = Instant::now();
        // The fastest window counts, because other load on the machine only adds time. The first
        // step determines the number of steps in a window.
        let mut best = running.run(device, 1)?;
        let steps = (WINDOW / best).clamp(1.0, 1000.0) as u32;
        let mut done = 1;
        while done < MIN_WINDOWS || began.elapsed().as_secs_f64() < seconds {
            best = best.min(running.run(device, steps)? / f64::from(steps));
            done += 1;
        }
        rate = Some(cost.flops / best);
        let round = |x: f64| (x * 1e3).round() / 1e3;
        report(GrowResult {
            kind: "grow",
            name: format!("grow/{}.{value}", grows.name()),
            axis: grows.name(),
            value,
            batch,
            side,
            code,
            device: device.label(),
            images_per_s: round(batch as f64 / best),
            ms: round(best * 1e3),
            gflops: round(cost.flops / best / 1e9),
            gbps: round(cost.bytes / best / 1e9),
            params: graph.parameter_count(),
            mib: round(plan.total as f64 / f64::from(1 << 20)),
        });
    }
    Ok(None)
}

impl GrowResult {
    /// The result as a line of text.
    pub fn line(&self) -> String {
        let Self { axis, value, images_per_s, ms, gflops, gbps, params, mib, .. } = self;
        format!(
            "{axis:<6} {value:>5}  {images_per_s:>10.1} images/s  {ms:>10.3} ms  \
             {gflops:>8.2} GFLOP/s  {gbps:>7.2} GB/s  {params:>9} parameters  {mib:>7.1} MiB"
        )
    }
}

/// Charts of images per second over each quantity, side by side.
pub fn picture(results: &[GrowResult]) -> Picture {
    let device = results.first().map_or(String::new(), |result| result.device.clone());
    let charts: Vec<Chart> = AXES
        .into_iter()
        .map(|grows| {
            let points = results.iter().filter(|result| result.axis == grows.name());
            let points = points.map(|result| (result.value as f64, result.images_per_s)).collect();
            let axis = |label: &str| Axis { label: label.to_owned(), log: true, include: None };
            let label = match grows {
                GrowAxis::Batch => "batch",
                GrowAxis::Side => "image side, pixels",
                GrowAxis::Code => "units of the code",
            };
            Chart {
                title: grows.fixed().to_owned(),
                x: axis(label),
                y: axis("images/s"),
                series: vec![Series {
                    name: device.clone(),
                    points,
                    spread: Vec::new(),
                    look: Look::Dots,
                }],
                bars: Vec::new(),
            }
        })
        .collect();
    chart::charts(&charts, charts.len())
}
