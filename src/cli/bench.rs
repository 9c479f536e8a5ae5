//! `csae bench`

use std::cell::RefCell;
use std::path::PathBuf;

use clap::Args;
use csae::bench::compare::{self, Earlier};
use csae::bench::grow::{self, GrowResult};
use csae::bench::{
    self, KernelBench, KernelEvent, KernelResult, Peak, Trace, WORKLOADS, Workload, tune,
};
use csae::cache;
use csae::device::Device;
use csae::error::{Error, Result};
use csae::files;
use csae::gpu::{Matrices, Tuned};
use csae::spec::Precision;
use serde::Serialize;
use serde_json::{Value, json};

use super::{Common, Kernels, refuse_existing};

/// Time training steps and kernels on your device, and see where the time goes.
///
/// Training steps are those of three models: W1 (28x28 gray), W2 (32x32 colour), W3 (64x64 colour).
/// Each figure is the median of the windows after a warm-up. Kernels are timed by the adapter's own
/// clock where it has one, every operation of W1-W3 where it stands in the step, at growing
/// batches, and every other operation on its own; beside each its share of the floor: what its
/// operations and bytes would take at the rate of the fastest matrix product and of the fastest
/// copy measured in the same run.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  csae bench --device cpu --workload w1,w2\n  csae bench --device gpu --batch 128,1024 --json\n  csae bench --filter conv2d_fwd/w2\n  csae bench --profile --workload w2 --trace w2.json\n  csae bench --workload w1 --json > then.json; csae bench --workload w1 --compare then.json\n  csae bench --grow --seconds 0.3 -o growth/\n  csae bench --tune --device gpu\n  csae bench --tune --precision f16 --device gpu"
)]
pub struct BenchArgs {
    /// Training steps to time, and no kernels: w1, w2, w3, comma-separated
    #[arg(long, value_delimiter = ',', value_name = "LIST")]
    workload: Vec<String>,
    /// Batches of the training steps, and no kernels; each workload's own unless given
    #[arg(long, value_delimiter = ',', value_name = "LIST")]
    batch: Vec<std::num::NonZeroUsize>,
    /// What maps are kept in by the training steps, f32 or f16, and no kernels; or by the products
    /// that --tune times
    #[arg(long, value_name = "f32|f16", value_parser = precision, conflicts_with = "grow")]
    precision: Option<Precision>,
    /// Only benchmarks whose name contains this (train_step/w1, conv2d_fwd/w2, sgd, …)
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// Seconds of one timed window
    #[arg(long, default_value_t = 1.0, value_name = "S")]
    seconds: f64,
    /// Timed windows, at least 3
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u16).range(3..))]
    windows: u16,
    /// Where a training step's time goes: a table by kernel; with -v every dispatch in order
    #[arg(long, conflicts_with = "grow")]
    profile: bool,
    /// With --profile: write a timeline of the steps, for ui.perfetto.dev or chrome://tracing
    #[arg(long, value_name = "FILE", requires = "profile")]
    trace: Option<PathBuf>,
    /// How cost grows: W1's images/s over batch 1...1024, image side 28...256, code 64...4096, each
    /// alone
    #[arg(long, conflicts_with_all = ["workload", "batch", "filter"])]
    grow: bool,
    /// With --grow: a folder for the figures (growth.jsonl) and a picture of them (growth.png)
    #[arg(short, long, value_name = "DIR", requires = "grow")]
    out: Option<PathBuf>,
    /// Time every kind of kernel for the matrix products of the workloads, and keep a table of the
    /// fastest: the other commands choose by it from then on. Where it lies is said at the end;
    /// delete it to forget it. Each --precision has a part of its own; that of f16 may take
    /// `matrix`
    #[arg(long, conflicts_with_all = ["profile", "grow", "compare", "filter"])]
    tune: bool,
    /// Write over existing files of --trace and --out
    #[arg(long)]
    force: bool,
    /// Set times beside those of an earlier `csae bench --json > FILE`; changes over 10 % are
    /// flagged
    #[arg(long, value_name = "FILE")]
    compare: Option<PathBuf>,
    #[command(flatten)]
    pub(super) common: Common,
    /// Every line told so far.
    #[arg(skip)]
    told: RefCell<Vec<Value>>,
}

impl BenchArgs {
    fn workloads(&self) -> Result<Vec<(Workload, usize)>> {
        let chosen: Vec<Workload> = if self.workload.is_empty() {
            WORKLOADS.to_vec()
        } else {
            self.workload.iter().map(|name| Workload::named(name)).collect::<Result<_>>()?
        };
        let batches = |workload: &Workload| {
            if self.batch.is_empty() {
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
            // A profile is chosen by its workload, whatever kernels are looked for.
            self.profile
                || self.wants(&compare::step_name(
                    workload.name,
                    *batch,
                    self.precision.unwrap_or_default(),
                ))
        });
        Ok(jobs)
    }

    /// Whether a file is to be written: a timeline, figures, a table.
    pub(super) const fn writes_files(&self) -> bool {
        self.trace.is_some() || self.out.is_some() || self.tune
    }

    fn precision(&self, device: &Device) -> Result<Precision> {
        let precision = self.precision.unwrap_or_default();
        device.takes(precision).map_err(|error| error.at("--precision")).map(|()| precision)
    }

    fn wants(&self, name: &str) -> bool {
        self.filter.as_ref().is_none_or(|filter| name.contains(filter))
    }

    /// A JSON line, or the line for people.
    fn tell(&self, result: &impl Serialize, line: &str) {
        let value = json!(result);
        if self.common.json {
            outln!("{value}");
        } else {
            outln!("{line}");
        }
        self.told.borrow_mut().push(value);
    }

    /// Lines for people alone.
    fn show(&self, lines: &[String]) {
        if !self.common.json {
            lines.iter().for_each(|line| outln!("{line}"));
        }
    }

    fn peak(&self, device: &mut Device) -> Result<Peak> {
        let peak = Peak::measure(device)?;
        self.tell(&peak, &peak.lines().join("\n"));
        Ok(peak)
    }
}

fn precision(name: &str) -> std::result::Result<Precision, String> {
    serde_json::from_value(json!(name)).map_err(|_| "there are f32 and f16".to_owned())
}

pub fn run(args: BenchArgs) -> anyhow::Result<()> {
    if !(args.seconds > 0.0 && args.seconds <= 3600.0) {
        return Err(Error::usage(format!(
            "--seconds {}: a window lasts between 0 and 3600 seconds",
            args.seconds
        ))
        .into());
    }
    // clap takes a flag that is not given for one that is
    if args.out.is_some() && !args.grow {
        return Err(Error::usage("--out: figures and a picture are of --grow; add it").into());
    }
    if args.trace.is_some() && !args.profile {
        return Err(Error::usage("--trace: a timeline is of --profile; add it").into());
    }
    let earlier = args.compare.as_deref().map(Earlier::read).transpose()?;
    let jobs = args.workloads()?;
    let mut device = if args.tune {
        tune(&args, &jobs)?
    } else if args.grow {
        grow(&args)?
    } else if args.profile {
        profile(&args, &jobs)?
    } else {
        times(&args, &jobs, earlier.as_ref())?
    };
    if let Some(earlier) = earlier {
        let changes = earlier.compare(&args.told.borrow())?;
        if let Some(note) = earlier.note(&device.label()) {
            args.common.say(&note);
        }
        if args.common.json {
            changes.iter().for_each(|change| outln!("{}", json!(change)));
        } else {
            outln!("");
            args.show(&compare::table(&changes));
        }
    }
    args.common.say_kernels(&mut device);
    Ok(())
}

/// Training steps and kernels.
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
            "--filter {filter}: no benchmark's name contains it (try train_step, conv2d_fwd, sgd)"
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
        earlier.must_know(
            steps
                .iter()
                .map(String::as_str)
                .chain(kernels.iter().map(|kernel| kernel.name.as_str())),
        )?;
    }
    let mut device = args.common.open()?;
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
            "train_step/{:<4} batch {:<5} {} {:>9.1} images/s ({:.1}–{:.1})  {:>9.3} ms  first step {:.2} s  peak {} MiB",
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
        args.tell(&r, &line);
    }
    if !kernels.is_empty() {
        time_kernels(args, &mut device, &kernels)?;
    }
    Ok(device)
}

fn time_kernels(args: &BenchArgs, device: &mut Device, kernels: &[KernelBench]) -> Result<()> {
    let peak = args.peak(device)?;
    let width = kernels.iter().map(|kernel| kernel.name.len()).max().unwrap_or(0);
    args.show(&[KernelResult::heading(width)]);
    let seconds = args.seconds * f64::from(args.windows) / 12.0;
    bench::run_kernels(device, kernels, seconds, &peak, &mut |told| {
        match told {
            KernelEvent::Result(result) => args.tell(result, &result.line(width)),
            KernelEvent::Skipped(why) => args.common.say(&format!("skipped: {why}")),
        }
        Ok(())
    })
}

/// Measures, and writes the user's table of kernels.
fn tune(args: &BenchArgs, jobs: &[(Workload, usize)]) -> anyhow::Result<Device> {
    // An adapter's cooperative matrices are measured as well where they could be taken.
    let wanted = args.precision.unwrap_or_default();
    let named = args.common.kernels == Kernels::Matrix;
    let matrices =
        if named || wanted == Precision::F16 { Matrices::Cooperative } else { Matrices::None };
    let mut device = args.common.open_untuned(|_| matrices)?;
    let precision = if device.as_gpu().is_some() { args.precision(&device)? } else { wanted };
    let Some(gpu) = device.as_gpu() else {
        let hint = "name an adapter by --device (`csae devices` lists them)";
        return Err(
            Error::usage(format!("--tune: the CPU path has one kind of kernel; {hint}")).into()
        );
    };
    let identity = gpu.adapter().identity();
    let Some(path) = Tuned::path(&identity) else {
        let variable = cache::VARIABLE;
        return Err(Error::usage(format!(
            "--tune: no folder to keep the table in; set {variable} to one"
        ))
        .into());
    };
    let width = tune::width(jobs)?;
    args.show(&[tune::heading(width, precision)]);
    let seconds = args.seconds * f64::from(args.windows) / 12.0;
    let table = tune::tune(&mut device, jobs, precision, seconds, &mut |told| match told {
        Ok(result) => args.tell(result, &result.line(width)),
        Err(why) => args.common.say(&format!("left out: {why}")),
    })?;
    // What was measured of the other precision stays. A table that cannot be read is written over.
    let before = Tuned::read(&path, &identity).ok().flatten().unwrap_or_default();
    let table = table.beside(&before);
    path.parent().map_or(Ok(()), files::make_folder)?;
    files::write_atomically(&path, table.text(&identity).as_bytes())?;
    let (count, path) = (table.len(), path.display());
    args.common
        .say(&format!("{count} classes of products in {path}: csae chooses kernels by it from now on; delete it to forget it"));
    Ok(device)
}

fn profile(args: &BenchArgs, jobs: &[(Workload, usize)]) -> anyhow::Result<Device> {
    if let Some(path) = &args.trace {
        refuse_existing(path, args.force)?;
        files::ensure_writable(path)?;
    }
    let mut device = args.common.open()?;
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
            format!("{name}: {calls} {what} a step; {clock}; median of {steps} steps"),
        ]);
        let mut lines = found.table().into_iter();
        args.show(&lines.by_ref().take(1).collect::<Vec<_>>());
        for (row, line) in found.rows.iter().chain([&found.sum]).zip(&mut lines) {
            args.tell(row, &line);
        }
        args.show(&lines.collect::<Vec<_>>());
        if args.common.verbose {
            args.show(&[String::new()]);
            args.show(&found.timeline(&peak));
        }
    }
    if let Some(path) = &args.trace {
        files::write_atomically(path, trace.text().as_bytes())?;
        args.common.say(&format!(
            "timeline in {}: open it at ui.perfetto.dev or chrome://tracing",
            path.display()
        ));
    }
    Ok(device)
}

fn grow(args: &BenchArgs) -> anyhow::Result<Device> {
    let places = args
        .out
        .as_ref()
        .map(|folder| (folder, folder.join("growth.jsonl"), folder.join("growth.png")));
    if let Some((folder, figures, picture)) = &places {
        refuse_existing(figures, args.force)?;
        refuse_existing(picture, args.force)?;
        files::make_folder(folder)?;
        files::ensure_writable(figures)?;
    }
    let mut device = args.common.open()?;
    let mut results: Vec<GrowResult> = Vec::new();
    for axis in grow::AXES {
        let stopped = grow::grow(&mut device, axis, args.seconds, &mut |result| {
            args.tell(&result, &result.line());
            results.push(result);
        })?;
        if let Some(why) = stopped {
            args.common.say(&format!("stopped at {why}"));
        }
    }
    if let Some((_, figures, picture)) = places {
        let lines: Vec<String> =
            results.iter().map(|result| format!("{}\n", json!(result))).collect();
        files::write_atomically(&figures, lines.concat().as_bytes())?;
        grow::picture(&results).save(&picture)?;
        args.common.say(&format!("{}, {}", figures.display(), picture.display()));
    }
    Ok(device)
}
