//! How cost grows: the rate of training W1 as its batch, its images and its code grow, each alone.

use std::time::Instant;

use serde::Serialize;

use super::fits;
use super::workloads::{self, Running};
use crate::device::Device;
use crate::error::Result;
use crate::report::chart;
use crate::report::chart::{Axis, Chart, Look, Series};
use crate::report::picture::Picture;
use crate::spec::Precision;
use crate::spec::{Config, preset_text};

/// Batch where the code grows.
const BATCH: usize = 128;
/// Batch where images grow: the largest of them still fit an adapter's binding.
const FEW: usize = 16;
/// Side of W1's images, and its code.
const SIDE: usize = 28;
const CODE: usize = 128;
/// Timed windows at least, and the seconds of one that holds several steps.
const STEPS: usize = 2;
const WINDOW: f64 = 0.05;
/// The next point of an axis is not tried if it is expected to take so many times the window.
const TOO_LONG: f64 = 20.0;

/// One thing that grows, the rest stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grows {
    /// The batch: 1…1024.
    Batch,
    /// The side of the images: 28…256.
    Side,
    /// The code's units: 64…4096.
    Code,
}

/// The three.
pub const AXES: [Grows; 3] = [Grows::Batch, Grows::Side, Grows::Code];

/// One size.
#[derive(Clone, Debug, Serialize)]
pub struct GrowResult {
    /// `grow`
    pub kind: &'static str,
    /// `grow/AXIS.VALUE`
    pub name: String,
    /// What grows.
    pub axis: &'static str,
    /// How far.
    pub value: usize,
    /// Batch.
    pub batch: usize,
    /// Side of the images.
    pub side: usize,
    /// Units of the code.
    pub code: usize,
    /// Where.
    pub device: String,
    /// Images a second.
    pub images_per_s: f64,
    /// Milliseconds a step, in the fastest window.
    pub ms: f64,
    /// 10⁹ floating-point operations a second.
    pub gflops: f64,
    /// 10⁹ bytes a second of the least that must move.
    pub gbps: f64,
    /// Learned values.
    pub params: usize,
    /// MiB of the step's own buffers.
    pub mib: f64,
}

impl Grows {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Batch => "batch",
            Self::Side => "side",
            Self::Code => "code",
        }
    }

    /// Its sizes.
    pub fn values(self) -> Vec<usize> {
        match self {
            Self::Batch => (0..=10).map(|power| 1 << power).collect(),
            Self::Side => vec![28, 32, 64, 128, 256],
            Self::Code => (6..=12).map(|power| 1 << power).collect(),
        }
    }

    /// Batch, side and code.
    const fn sizes(self, value: usize) -> [usize; 3] {
        match self {
            Self::Batch => [value, SIDE, CODE],
            Self::Side => [FEW, value, CODE],
            Self::Code => [BATCH, SIDE, value],
        }
    }

    const fn fixed(self) -> &'static str {
        match self {
            Self::Batch => "28x28 gray, code 128",
            Self::Side => "batch 16, code 128",
            Self::Code => "28x28 gray, batch 128",
        }
    }
}

/// Trains W1 at each size of an axis for `seconds` and tells of each. Returns why it stopped early,
/// if it did.
pub fn grow(
    device: &mut Device,
    grows: Grows,
    seconds: f64,
    tell: &mut dyn FnMut(GrowResult),
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
        if let Some(expected) = expected
            .filter(|expected| (STEPS + 1) as f64 * expected > (TOO_LONG * seconds).max(TOO_LONG))
        {
            return Ok(Some(format!(
                "{} {value}: a step would take {expected:.0} s; more --seconds allow more",
                grows.name()
            )));
        }
        let mut running = Running::new(device, &graph, batch, Precision::F32)?;
        running.run(device, 1)?;
        let began = Instant::now();
        // The fastest counts: what else the machine does only adds, and the first ones decide how
        // many make a window.
        let mut best = running.run(device, 1)?;
        let steps = (WINDOW / best).clamp(1.0, 1000.0) as u32;
        let mut done = 1;
        while done < STEPS || began.elapsed().as_secs_f64() < seconds {
            best = best.min(running.run(device, steps)? / f64::from(steps));
            done += 1;
        }
        rate = Some(cost.flops / best);
        let round = |x: f64| (x * 1e3).round() / 1e3;
        tell(GrowResult {
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
    /// A line for people.
    pub fn line(&self) -> String {
        let Self { axis, value, images_per_s, ms, gflops, gbps, params, mib, .. } = self;
        format!(
            "{axis:<6} {value:>5}  {images_per_s:>10.1} images/s  {ms:>10.3} ms  {gflops:>8.2} \
             GFLOP/s  {gbps:>7.2} GB/s  {params:>9} parameters  {mib:>7.1} MiB"
        )
    }
}

/// Rates over each axis, side by side.
pub fn picture(results: &[GrowResult]) -> Picture {
    let device = results.first().map_or(String::new(), |result| result.device.clone());
    let charts: Vec<Chart> = AXES
        .into_iter()
        .map(|grows| {
            let points = results.iter().filter(|result| result.axis == grows.name());
            let points = points.map(|result| (result.value as f64, result.images_per_s)).collect();
            let axis = |label: &str| Axis { label: label.to_owned(), log: true, include: None };
            let label = match grows {
                Grows::Batch => "batch",
                Grows::Side => "image side, pixels",
                Grows::Code => "units of the code",
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
