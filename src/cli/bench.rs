//! `csae bench`: measures training steps and kernels.

use std::cell::RefCell;
use std::path::PathBuf;

use clap::Args;
use serde::Serialize;
use serde_json::{Value, json};

use super::ranks::RanksArgs;
use super::{CommandArgs, Common, refuse_existing, with_flags};
use crate::bench::compare::{self, Earlier};
use crate::bench::grow::{self, GrowResult};
use crate::bench::ranks;
use crate::bench::roofline::{self, Calibration, RooflineRow};
use crate::bench::{
    self, KernelBench, KernelEvent, KernelResult, KnownGpu, Peak, Trace, WORKLOADS, Workload, tune,
};
use crate::cache;
use crate::device::Device;
use crate::error::{Error, Result, did_you_mean};
use crate::files;
use crate::gpu::{Adapter, Tuned};
use crate::spec::Precision;

/// Time training steps and kernels on your device, and show where the time goes.
///
/// The training steps are of three models: W1 (28x28 gray), W2 (32x32 colour), W3 (64x64 colour).
/// Each number is the median of the timed windows after a warm-up. Kernels are timed by the
/// adapter's own clock if it has one: every operation of W1-W3 in its training step, at growing
/// batches, and every other operation on its own. Each time is also compared with its floor: the
/// time that the operations and bytes would take at the rate of the fastest matrix product and the
/// fastest copy, which are measured first.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  csae bench --device cpu --workload w1,w2
  csae bench --device gpu --batch 128,1024 --json
  csae bench --filter conv2d_fwd/w2
  csae bench --profile --workload w2 --trace w2.json
  csae bench --workload w1 --json > then.json; csae bench --workload w1 --compare then.json
  csae bench --grow --seconds 0.3 -o growth/
  csae bench --tune --device gpu
  csae bench --tune --precision f16 --device gpu
    csae bench --ranks --devices cpu,cpu --workload w1
  csae bench --roofline h200 --workload w2 --batch 128 -v")]
pub struct BenchArgs {
    /// Time only the training steps of these workloads: w1, w2, w3, comma-separated
    #[arg(long, value_delimiter = ',', value_name = "W,…")]
    workload: Vec<String>,
    /// Time only training steps, at these batch sizes, comma-separated [default: each workload's
    /// own]
    #[arg(long, value_delimiter = ',', value_name = "N,…")]
    batch: Vec<std::num::NonZeroUsize>,
    /// Time only training steps, with maps stored in this precision; with --tune, the precision of
    /// the tuned matrix products
    #[arg(long, value_name = "f32|f16", value_parser = precision, conflicts_with = "grow")]
    precision: Option<Precision>,
    /// Only benchmarks whose name contains this text (train_step/w1, conv2d_fwd/w2, sgd, …)
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// Duration of a timed window in seconds
    #[arg(long, default_value_t = 1.0, value_name = "S")]
    seconds: f64,
    /// Number of timed windows, at least 3
    #[arg(
        long,
        default_value_t = 3,
        value_name = "N",
        value_parser = clap::value_parser!(u16).range(3..)
    )]
    windows: u16,
    /// Show where a training step's time goes: a table by kernel; with -v every dispatch in order
    #[arg(long, conflicts_with = "grow")]
    profile: bool,
    /// With --profile: write a timeline of the steps, for ui.perfetto.dev or chrome://tracing
    #[arg(long, value_name = "FILE", requires = "profile")]
    trace: Option<PathBuf>,
    /// Measure how cost grows: images/s of W1 over batch size 1...1024, image side 28...256 and
    /// code size 64...4096, one at a time
    #[arg(long, conflicts_with_all = ["workload", "batch", "filter"])]
    grow: bool,
    /// With --grow: folder for the numbers (growth.jsonl) and a chart (growth.png)
    #[arg(short, long, value_name = "DIR", requires = "grow")]
    out: Option<PathBuf>,
    /// Time every kernel variant for the workloads' matrix products, and save a table of the
    /// fastest; all commands use it from then on. Prints the table's path at the end; delete the
    /// file to undo. Each --precision has its own part; the part for f16 can choose `matrix`
    #[arg(long, conflicts_with_all = ["profile", "grow", "compare", "filter"])]
    tune: bool,
    /// Predict the time of training steps on a GPU, without the GPU: h200, rtx4090, rx7900xtx,
    /// a770, m2 or igpu. Shows the sums and the ten longest dispatches, with -v every dispatch.
    /// Default: all workloads, at batches 128 and 1024
    #[arg(
        long,
        value_name = "GPU",
        value_parser = known_gpu,
        conflicts_with_all = [
            "profile", "grow", "tune", "compare", "filter", "precision", "seconds", "windows",
            "device", "kernels",
        ]
    )]
    roofline: Option<KnownGpu>,
    /// With --roofline: three times in µs, measured on the GPU. An iteration of a workgroup that
    /// runs alone (16 terms, 64 columns), an empty dispatch, and a load that waits for another
    #[arg(
        long,
        value_name = "ITERATION,DISPATCH,LOAD",
        value_parser = calibration,
        requires = "roofline"
    )]
    calibrate: Option<Calibration>,
    /// Time the exchange of gradients between the processes of --devices or of a launcher, and
    /// predict training on 2 to 1,024 processes that a network of 1 to 100 Gbit/s connects
    #[arg(
        long,
        conflicts_with_all = ["profile", "grow", "tune", "compare", "filter", "roofline"]
    )]
    ranks: bool,
    /// With --ranks: time of a small message in µs, for the predictions
    #[arg(long, value_name = "US", default_value_t = ranks::LATENCY, requires = "ranks")]
    latency: f64,
    /// Overwrite existing files of --trace and --out
    #[arg(long)]
    force: bool,
    /// Compare with the times of an earlier `csae bench --json > FILE`; changes over 10 % are
    /// flagged
    #[arg(long, value_name = "FILE")]
    compare: Option<PathBuf>,
    #[command(flatten)]
    devices: RanksArgs,
    #[command(flatten)]
    common: Common,
    /// Every result reported so far.
    #[arg(skip)]
    reported: RefCell<Vec<Value>>,
}

impl BenchArgs {
    fn workloads(&self) -> Result<Vec<(Workload, usize)>> {
        let chosen: Vec<Workload> = if self.workload.is_empty() {
            WORKLOADS.to_vec()
        } else {
            let named = self.workload.iter().map(|name| Workload::named(name));
            named.collect::<Result<_>>().map_err(|error| error.at("--workload"))?
        };
        let batches = |workload: &Workload| {
            if self.batch.is_empty() && self.roofline.is_some() {
                ROOFLINE_BATCHES.to_vec()
            } else if self.batch.is_empty() {
                vec![workload.batch]
            } else {
                self.batch.iter().map(|batch| batch.get()).collect()
            }
        };
        let mut jobs: Vec<(Workload, usize)> = chosen
            .iter()
            .flat_map(|workload| batches(workload).into_iter().map(|batch| (*workload, batch)))
            .collect();
        jobs.retain(|(workload, batch)| {
            // `--profile` selects by workload only.
            self.profile
                || self.wants(&compare::step_name(
                    workload.name,
                    *batch,
                    self.precision.unwrap_or_default(),
                ))
        });
        Ok(jobs)
    }

    fn precision(&self, device: &Device) -> Result<Precision> {
        let precision = self.precision.unwrap_or_default();
        device.takes(precision).map_err(|error| error.at("--precision")).map(|()| precision)
    }

    fn wants(&self, name: &str) -> bool {
        self.filter.as_ref().is_none_or(|filter| name.contains(filter))
    }

    /// Prints a result as JSON, or `line` without `--json`.
    fn report(&self, result: &impl Serialize, line: &str) {
        let value = json!(result);
        if self.common.json {
            outln!("{value}");
        } else {
            outln!("{line}");
        }
        self.reported.borrow_mut().push(value);
    }

    /// Prints lines, unless `--json` is set.
    fn show(&self, lines: &[String]) {
        if !self.common.json {
            lines.iter().for_each(|line| outln!("{line}"));
        }
    }

    fn peak(&self, device: &mut Device) -> Result<Peak> {
        let peak = Peak::measure(device)?;
        self.report(&peak, &peak.lines().join("\n"));
        Ok(peak)
    }
}

/// Batch sizes of predictions: a small one, which leaves parts of large GPUs idle, and a large one.
const ROOFLINE_BATCHES: [usize; 2] = [128, 1024];
/// Number of dispatches that a prediction shows without `--verbose`.
const LONGEST: usize = 10;
/// Maximum of a calibrated time in µs: a tenth of a second, above that of any GPU.
const SLOWEST: f64 = 1e5;

fn known_gpu(name: &str) -> std::result::Result<KnownGpu, String> {
    KnownGpu::named(name).ok_or_else(|| {
        let known: Vec<&str> = KnownGpu::names().collect();
        format!("use one of {}{}", known.join(", "), did_you_mean(name, KnownGpu::names()))
    })
}

fn calibration(text: &str) -> std::result::Result<Calibration, String> {
    let times: Option<Vec<f64>> = text
        .split(',')
        .map(|time| time.trim().parse().ok().filter(|time| *time > 0.0 && *time <= SLOWEST))
        .collect();
    match times.as_deref() {
        Some(&[iteration, dispatch, load]) => Ok(Calibration {
            iteration: iteration / 1e6,
            dispatch: dispatch / 1e6,
            load: load / 1e6,
        }),
        _ => {
            Err(format!("give three times in µs, above 0 and up to {SLOWEST}, such as 1.1,3,0.16"))
        }
    }
}

fn precision(name: &str) -> std::result::Result<Precision, String> {
    serde_json::from_value(json!(name)).map_err(|_| "give f32 or f16".to_owned())
}

impl CommandArgs for BenchArgs {
    fn common(&self) -> Option<&Common> {
        Some(&self.common)
    }

    fn writes_files(&self) -> bool {
        self.trace.is_some() || self.out.is_some() || self.tune
    }

    fn ranks(&self) -> Option<&RanksArgs> {
        self.ranks.then_some(&self.devices)
    }

    fn run(self) -> anyhow::Result<()> {
        run(self)
    }
}

fn run(args: BenchArgs) -> anyhow::Result<()> {
    if !(args.seconds > 0.0 && args.seconds <= 3600.0) {
        return Err(Error::usage(format!(
            "--seconds {}: give a duration above 0 and up to 3600 seconds",
            args.seconds
        ))
        .into());
    }
    // clap's `requires` also accepts a boolean flag that was not given, so check again.
    args.out.as_deref().map_or(Ok(()), super::outputs::check_folder)?;
    if args.out.is_some() && !args.grow {
        return Err(Error::usage("--out needs --grow").into());
    }
    if args.trace.is_some() && !args.profile {
        return Err(Error::usage("--trace needs --profile").into());
    }
    if args.calibrate.is_some() && args.roofline.is_none() {
        return Err(Error::usage("--calibrate needs --roofline").into());
    }
    if !(args.latency > 0.0 && args.latency <= 1e6) {
        return Err(Error::usage(format!(
            "--latency {}: give microseconds above 0 and up to a million",
            args.latency
        ))
        .into());
    }
    if args.devices.are_given() && !args.ranks {
        return Err(Error::usage("--devices needs --ranks").into());
    }
    let earlier = args.compare.as_deref().map(Earlier::read).transpose()?;
    let jobs = args.workloads()?;
    if let Some(gpu) = args.roofline {
        return Ok(roofline(&args, gpu, &jobs)?);
    }
    let mut device = if args.ranks {
        together(&args, &jobs)?
    } else if args.tune {
        tune(&args, &jobs)?
    } else if args.grow {
        grow(&args)?
    } else if args.profile {
        profile(&args, &jobs)?
    } else {
        times(&args, &jobs, earlier.as_ref())?
    };
    if let Some(earlier) = earlier {
        let changes = earlier.compare(&args.reported.borrow())?;
        if let Some(note) = earlier.note(&device.label()) {
            args.common.status(&note);
        }
        if args.common.json {
            changes.iter().for_each(|change| outln!("{}", json!(change)));
        } else {
            outln!("");
            args.show(&compare::table(&changes));
        }
    }
    args.common.report_kernels(&mut device);
    Ok(())
}

/// Times training steps and kernels.
fn times(
    args: &BenchArgs,
    jobs: &[(Workload, usize)],
    earlier: Option<&Earlier>,
) -> anyhow::Result<Device> {
    let steps_only =
        !args.workload.is_empty() || !args.batch.is_empty() || args.precision.is_some();
    let mut kernels = if steps_only { Vec::new() } else { bench::kernels()? };
    kernels.retain(|kernel| args.wants(&kernel.name));
    if jobs.is_empty() && kernels.is_empty() {
        let filter = args.filter.as_deref().unwrap_or_default();
        return Err(Error::usage(format!(
            "--filter {filter}: no benchmark has this in its name (try train_step, conv2d_fwd, sgd)"
        ))
        .into());
    }
    if let Some(earlier) = earlier {
        let steps: Vec<String> = jobs
            .iter()
            .map(|(workload, batch)| {
                compare::step_name(workload.name, *batch, args.precision.unwrap_or_default())
            })
            .collect();
        earlier.check_contains_any(
            steps
                .iter()
                .map(String::as_str)
                .chain(kernels.iter().map(|kernel| kernel.name.as_str())),
        )?;
    }
    let mut device = args.common.open_for(args.precision.unwrap_or_default())?;
    let precision = args.precision(&device)?;
    for (workload, batch) in jobs {
        let r = bench::train_step(
            &mut device,
            *workload,
            *batch,
            precision,
            args.seconds,
            usize::from(args.windows),
        )?;
        let line = format!(
            "train_step/{:<4} batch {:<5} {} {:>9.1} images/s ({:.1}–{:.1})  {:>9.3} ms  \
             first step {:.2} s  peak {} MiB",
            r.workload,
            r.batch,
            if precision == Precision::F16 { "f16" } else { "f32" },
            r.images_per_s,
            r.min,
            r.max,
            r.ms,
            r.first_step_s,
            r.peak_mib.map_or("?".to_owned(), |mib| mib.to_string())
        );
        args.report(&r, &line);
    }
    if !kernels.is_empty() {
        time_kernels(args, &mut device, &kernels)?;
    }
    Ok(device)
}

/// Times training steps and the exchange of their gradients between processes.
fn together(args: &BenchArgs, jobs: &[(Workload, usize)]) -> Result<Device> {
    let mut device = args.common.open_for(args.precision.unwrap_or_default())?;
    let precision = args.precision(&device)?;
    for (workload, batch) in jobs {
        let (seconds, windows) = (args.seconds, usize::from(args.windows));
        let step = bench::train_step(&mut device, *workload, *batch, precision, seconds, windows)?;
        let megabytes = 4.0 * step.params as f64 / 1e6;
        let heading = format!(
            "{}, batch {} for each process: {megabytes:.1} MB of gradients; a step takes {:.2} ms",
            step.workload, step.batch, step.ms
        );
        args.report(&step, &heading);
        if let Some(group) = super::ranks::group() {
            let found = ranks::exchange(group, &step, windows)?;
            let line = format!(
                "exchange between {} processes: {:.2} ms ({:.2}–{:.2}), {:.1} % of the step is \
                 work; by {}",
                found.processes,
                found.ms,
                found.min,
                found.max,
                100.0 * found.efficiency,
                found.transport
            );
            args.report(&found, &line);
        }
        let rows = ranks::scaling(&step, args.latency, ranks::own_seconds(&step)?);
        if args.common.json {
            rows.iter().for_each(|row| outln!("{}", json!(row)));
        } else {
            outln!("predicted, if each process has such a device and a connection of its own:");
            outln!("share of a step that is work, and batch from which on it is 80 %");
            ranks::table(&rows).iter().for_each(|line| outln!("{line}"));
        }
    }
    Ok(device)
}

fn time_kernels(args: &BenchArgs, device: &mut Device, kernels: &[KernelBench]) -> Result<()> {
    let peak = args.peak(device)?;
    let width = kernels.iter().map(|kernel| kernel.name.len()).max().unwrap_or(0);
    args.show(&[KernelResult::heading(width)]);
    let seconds = args.seconds * f64::from(args.windows) / 12.0;
    bench::run_kernels(device, kernels, seconds, &peak, &mut |reported| {
        match reported {
            KernelEvent::Result(result) => args.report(result, &result.line(width)),
            KernelEvent::Skipped(why) => {
                args.common.status(&format!("skipped: {}", with_flags(&why)))
            }
        }
        Ok(())
    })
}

/// Tunes: measures kernel variants and writes the user's kernel table.
fn tune(args: &BenchArgs, jobs: &[(Workload, usize)]) -> anyhow::Result<Device> {
    let wanted = args.precision.unwrap_or_default();
    let mut device = args.common.open_untuned(Adapter::matrices)?;
    let precision = if device.as_gpu().is_some() { args.precision(&device)? } else { wanted };
    let Some(gpu) = device.as_gpu() else {
        let hint = "choose an adapter with --device (`csae devices` lists them)";
        return Err(
            Error::usage(format!("--tune: the CPU path has no kernel variants; {hint}")).into()
        );
    };
    let identity = gpu.adapter().identity();
    let Some(path) = Tuned::path(&identity) else {
        let variable = cache::VARIABLE;
        return Err(Error::usage(format!(
            "--tune: no folder to store the table; set {variable} to one"
        ))
        .into());
    };
    let width = tune::width(jobs)?;
    args.show(&[tune::heading(width)]);
    let seconds = args.seconds * f64::from(args.windows) / 12.0;
    let table =
        tune::tune(&mut device, jobs, precision, seconds, &mut |reported| match reported {
            Ok(result) => args.report(result, &result.line(width)),
            Err(why) => args.common.status(&format!("skipped: {}", with_flags(&why))),
        })?;
    // Keep the part of the other precision. An unreadable table is replaced.
    let before = Tuned::read(&path, &identity).ok().flatten().unwrap_or_default();
    let table = table.beside(&before);
    path.parent().map_or(Ok(()), files::make_folder)?;
    files::write_atomically(&path, table.text(&identity).as_bytes())?;
    let (count, path) = (table.len(), path.display());
    args.common.status(&format!(
        "wrote {count} classes of products to {path}; csae uses them from now on; delete the file \
         to undo"
    ));
    Ok(device)
}

fn profile(args: &BenchArgs, jobs: &[(Workload, usize)]) -> anyhow::Result<Device> {
    if let Some(path) = &args.trace {
        refuse_existing(path, args.force)?;
        files::ensure_writable(path)?;
    }
    let mut device = args.common.open_for(args.precision.unwrap_or_default())?;
    let precision = args.precision(&device)?;
    let peak = args.peak(&mut device)?;
    let mut trace = Trace::default();
    for (workload, batch) in jobs {
        let found =
            bench::profile_step(&mut device, *workload, *batch, precision, args.seconds, &peak)?;
        let name = format!("{} batch {batch}", workload.name);
        trace.add(&name, &device.label(), &found.last);
        let what = if device.as_gpu().is_some() { "dispatches" } else { "operations" };
        let (clock, calls, steps) = (found.median.clock.describe(), found.sum.calls, found.steps);
        args.show(&[
            String::new(),
            format!("{name}: {calls} {what} per step; {clock}; median of {steps} steps"),
        ]);
        let mut lines = found.table().into_iter();
        args.show(&lines.by_ref().take(1).collect::<Vec<_>>());
        for (row, line) in found.rows.iter().chain([&found.sum]).zip(&mut lines) {
            args.report(row, &line);
        }
        args.show(&lines.collect::<Vec<_>>());
        if args.common.verbose {
            args.show(&[String::new()]);
            args.show(&found.timeline(&peak));
        }
    }
    if let Some(path) = &args.trace {
        files::write_atomically(path, trace.text().as_bytes())?;
        args.common.status(&format!(
            "wrote {}: open it at ui.perfetto.dev or chrome://tracing",
            path.display()
        ));
    }
    Ok(device)
}

/// Predicts training steps. Opens no device.
fn roofline(args: &BenchArgs, gpu: KnownGpu, jobs: &[(Workload, usize)]) -> Result<()> {
    for (i, (workload, batch)) in jobs.iter().enumerate() {
        let found = roofline::roofline(gpu, args.calibrate, *workload, *batch)?;
        if i > 0 {
            args.show(&[String::new()]);
        }
        args.show(&[found.title(), RooflineRow::heading()]);
        for row in found.longest((!args.common.verbose).then_some(LONGEST)) {
            args.report(row, &row.line());
        }
        args.report(&found.sum, &found.sum.lines().join("\n"));
    }
    Ok(())
}

fn grow(args: &BenchArgs) -> anyhow::Result<Device> {
    let paths = args
        .out
        .as_ref()
        .map(|folder| (folder, folder.join("growth.jsonl"), folder.join("growth.png")));
    if let Some((folder, numbers, picture)) = &paths {
        refuse_existing(numbers, args.force)?;
        refuse_existing(picture, args.force)?;
        files::make_folder(folder)?;
        files::ensure_writable(numbers)?;
    }
    let mut device = args.common.open()?;
    let mut results: Vec<GrowResult> = Vec::new();
    for axis in grow::AXES {
        let stopped = grow::grow(&mut device, axis, args.seconds, &mut |result| {
            args.report(&result, &result.line());
            results.push(result);
        })?;
        if let Some(why) = stopped {
            args.common.status(&format!("stopped at {}", with_flags(&why)));
        }
    }
    if let Some((_, numbers, picture)) = paths {
        let lines: Vec<String> =
            results.iter().map(|result| format!("{}\n", json!(result))).collect();
        files::write_atomically(&numbers, lines.concat().as_bytes())?;
        grow::picture(&results).save(&picture)?;
        args.common.status(&format!("{}, {}", numbers.display(), picture.display()));
    }
    Ok(device)
}
