//! The flags shared by all commands that use a model or a device: the device, the threads, and how
//! much is printed.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use clap::{Args, ValueEnum};

use super::drivers::quietly;
use super::{not_a_model, out, ranks};
use crate::cache;
use crate::device::Device;
use crate::gpu::{Adapter, BuiltIn, Choice, Gpu, Matrices, Tuned};
use crate::model::LoadedModel;
use crate::spec::{Config, Precision};
use crate::train::load_model;
use crate::verify::check_units_once;

/// Which kernel variant to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kernels {
    /// Chosen by adapter and shape: from your table (`csae bench --tune`), else from a built-in one
    Auto,
    /// The plain variants, which support every shape
    Plain,
    /// Matrix products with sums in the registers of each invocation
    Registers,
    /// Matrix products with sums in registers; values are exchanged within a subgroup
    Subgroup,
    /// Matrix products with sums in registers; values are exchanged through workgroup memory
    Tiled,
    /// As tiled, with half as many sums in the registers of each invocation
    #[value(name = "tiled-8x4")]
    Tiled8x4,
    /// Matrix products on the adapter's cooperative matrices (tensor cores), an experimental
    /// feature: products in half precision, on Metal all; others as tiled
    Matrix,
}

impl From<Kernels> for Choice {
    fn from(kernels: Kernels) -> Self {
        match kernels {
            Kernels::Auto => Self::Auto,
            Kernels::Plain => Self::Plain,
            Kernels::Registers => Self::Registers,
            Kernels::Subgroup => Self::Subgroup,
            Kernels::Tiled => Self::Tiled,
            Kernels::Tiled8x4 => Self::Tiled8x4,
            Kernels::Matrix => Self::Matrix,
        }
    }
}

/// Flags shared by all commands that use a model or a device.
#[derive(Clone, Debug, Args)]
pub struct Common {
    /// Device: auto, cpu, gpu, part of an adapter's name or driver, or its number in `csae devices`
    /// [default: auto; for `resume` the run's device]
    #[arg(long, value_name = "DEVICE", help_heading = "General")]
    pub device: Option<String>,
    /// Number of CPU threads [default: all cores]
    #[arg(long, value_name = "N", help_heading = "General")]
    pub threads: Option<std::num::NonZeroUsize>,
    /// Kernel variant on a GPU
    #[arg(long, value_enum, default_value_t = Kernels::Auto, help_heading = "General")]
    pub kernels: Kernels,
    /// Print JSON lines on standard output
    #[arg(long, help_heading = "General")]
    pub json: bool,
    /// Print only results, errors and a count of skipped files; nothing about written files
    #[arg(short, long, help_heading = "General")]
    pub quiet: bool,
    /// Print more: chosen kernels and compile times, every skipped file, every feature of an
    /// adapter, messages of graphics drivers
    #[arg(short, long, help_heading = "General")]
    pub verbose: bool,
}

impl Common {
    /// The device to use.
    pub fn device(&self) -> &str {
        self.device.as_deref().unwrap_or("auto")
    }

    /// Opens the device and prints its name. On a GPU, kernels are chosen by the user's table if
    /// there is one, and compiled pipelines are cached.
    ///
    /// # Errors
    /// If there is no such device, or it does not support the kernel variant.
    pub fn open(&self) -> crate::error::Result<Device> {
        self.open_for(Precision::F32)
    }

    /// As [`Common::open`], for training in `precision`. For half precision the adapter's
    /// cooperative matrices are checked once for each driver, and used from then on if they compute
    /// correctly.
    ///
    /// # Errors
    /// As [`Common::open`].
    pub fn open_for(&self, precision: Precision) -> crate::error::Result<Device> {
        let mut read = Ok(None);
        // Cooperative matrices are experimental, so they are enabled only if a flag or the table
        // asks for them, or in half precision, where a check comes first.
        let mut device = self.open_with(|adapter| {
            read = self.table(adapter);
            let tuned = matches!(&read, Ok(Some(table)) if table.names(Choice::Matrix));
            let could_use = self.kernels == Kernels::Auto && precision == Precision::F16;
            if tuned || could_use || self.kernels == Kernels::Matrix {
                adapter.matrices()
            } else {
                Matrices::None
            }
        })?;
        if let Some(gpu) = device.as_gpu() {
            gpu.choose(self.kernels.into())?;
            if let Some(path) = cache::file("pipelines", &gpu.adapter().identity(), "bin") {
                gpu.keep_pipelines(path);
            }
        }
        if self.kernels == Kernels::Auto && precision == Precision::F16 {
            self.check_units(&mut device)?;
        }
        if let Some(gpu) = device.as_gpu()
            && gpu.choice == Choice::Auto
        {
            self.take_table(gpu, read, Tuned::path(&gpu.adapter().identity()));
        }
        match ranks::group() {
            Some(group) => {
                device.share(Arc::clone(group));
                self.status(&format!(
                    "device: {}, and those of {} other processes; connected by {}",
                    device.label(),
                    group.size - 1,
                    group.transport()
                ));
            }
            None => self.status(&format!("device: {}", device.label())),
        }
        Ok(device)
    }

    /// Opens the device without the messages of its driver. `matrices` decides which cooperative
    /// matrices to enable on an adapter.
    ///
    /// # Errors
    /// If there is no such device.
    pub fn open_with(
        &self,
        matrices: impl FnOnce(&Adapter) -> Matrices,
    ) -> crate::error::Result<Device> {
        let wanted = ranks::device(self.device());
        quietly(self.verbose, || Device::open_with(&wanted, matrices))
    }

    /// Decides whether products in half precision run on the adapter's cooperative matrices.
    fn check_units(&self, device: &mut Device) -> crate::error::Result<()> {
        if device.as_gpu().is_none_or(|gpu| gpu.traits().matrices == Matrices::None) {
            return Ok(());
        }
        let start =
            || self.status("checking the matrix units of this adapter, once for its driver");
        let fault = check_units_once(device, &start)?;
        if let Some(fault) = &fault {
            self.status(&format!(
                "note: products run without the adapter's matrix units ({fault})"
            ));
        }
        if let Some(gpu) = device.as_gpu() {
            gpu.verified = fault.is_none();
        }
        Ok(())
    }

    /// Opens a device without the user's kernel table. `matrices` decides which cooperative
    /// matrices to enable on an adapter.
    ///
    /// # Errors
    /// If there is no such device, or it does not support the kernel variant.
    pub fn open_untuned(
        &self,
        matrices: impl FnOnce(&Adapter) -> Matrices,
    ) -> crate::error::Result<Device> {
        let mut device = self.open_with(matrices)?;
        if let Some(gpu) = device.as_gpu() {
            gpu.choose(self.kernels.into())?;
            if gpu.choice == Choice::Auto {
                self.take_table(gpu, Ok(None), None);
            }
        }
        self.status(&format!("device: {}", device.label()));
        Ok(device)
    }

    /// The user's kernel table for an adapter, if it is enabled.
    fn table(&self, adapter: &Adapter) -> crate::error::Result<Option<Tuned>> {
        let identity = adapter.identity();
        let path = Tuned::path(&identity).filter(|_| self.kernels == Kernels::Auto);
        path.map_or(Ok(None), |path| Tuned::read(&path, &identity))
    }

    /// Installs the user's kernel table. A table that is invalid or belongs to another adapter is
    /// ignored.
    fn take_table(
        &self,
        gpu: &mut Gpu,
        read: crate::error::Result<Option<Tuned>>,
        path: Option<std::path::PathBuf>,
    ) {
        let (table, ignored) = match read {
            Ok(table) => (table, None),
            Err(error) => (None, Some(error)),
        };
        gpu.tuned = table.map(std::rc::Rc::new);
        if !self.verbose {
            return;
        }
        if let Some(error) = ignored {
            self.status(&format!(
                "ignored the kernel table: {error}; `csae bench --tune` writes a new one"
            ));
        }
        self.status(&match (&path, &gpu.tuned) {
            (Some(path), Some(table)) => {
                format!(
                    "kernels for matrix products: table {}, {} classes",
                    path.display(),
                    table.len()
                )
            }
            _ => format!(
                "kernels for matrix products: built-in table of {}",
                BuiltIn::of(&gpu.traits()).name
            ),
        });
    }

    /// Warns if the test images are the training images.
    pub fn warn_same_data(&self, training: &str, test: Option<&String>) {
        let canonical =
            |source: &str| Path::new(source).canonicalize().unwrap_or_else(|_| source.into());
        if test.is_some_and(|test| canonical(test) == canonical(training)) {
            self.status(
                "note: testing on the training images; these numbers do not measure generalization",
            );
        }
    }

    /// With `-v`, prints the GPU kernels that were compiled and how long each took, or the CPU
    /// path's instruction set.
    pub fn report_kernels(&self, device: &mut Device) {
        if !self.verbose {
            return;
        }
        let label = device.label();
        match device.as_gpu() {
            Some(gpu) => {
                for (kernel, time) in gpu.compile_log() {
                    errln!("pipeline {kernel}: {:.1} ms", time.as_secs_f64() * 1e3);
                }
            }
            None => {
                errln!("{label}: matrix products with {}", crate::linalg::gemm::instructions());
            }
        }
    }

    /// Names the keys of a new run's configuration that the user wrote and that have no effect.
    /// `more` is a note about one more of them.
    pub fn report_unused_keys(
        &self,
        config: &Config,
        written: &BTreeSet<String>,
        more: Option<&String>,
    ) {
        for note in config.keys_without_effect(written).iter().chain(more) {
            self.status(&format!("note: {note}"));
        }
    }

    /// Reads a model, see [`load_model`], and prints its note.
    ///
    /// # Errors
    /// As [`load_model`].
    pub fn load_model(&self, path: &Path) -> crate::error::Result<LoadedModel> {
        let loaded = load_model(path).map_err(|error| not_a_model::explain(path, error))?;
        if let Some(note) = &loaded.note {
            self.status(&format!("note: {note}"));
        }
        Ok(loaded)
    }

    /// Prints a line about files that were written on standard output, unless `--quiet` is set:
    /// then the files alone are the result.
    pub fn report_written(&self, line: impl std::fmt::Display) {
        if !self.quiet {
            out(line);
        }
    }

    /// Prints a status line on standard error, unless `--quiet` is set.
    pub fn status(&self, line: &str) {
        if !self.quiet {
            errln!("{line}");
        }
    }
}
