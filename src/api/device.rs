use std::fmt;

use crate::device::Device;
use crate::error::Result;
use crate::gpu;

/// The device that a [`Model`](crate::Model) computes on.
///
/// Strings are converted as by the program's flag `--device`: `auto`, `cpu`, `gpu`, a part of an
/// adapter's name, or an adapter's number in [`devices`].
///
/// # Examples
///
/// ```
/// use csae::DeviceChoice;
///
/// assert_eq!(DeviceChoice::from("cpu"), DeviceChoice::Cpu);
/// assert_eq!(DeviceChoice::from("nvidia"), DeviceChoice::Named("nvidia".to_owned()));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeviceChoice {
    /// The best GPU of the machine, or the CPU if there is no GPU. Software adapters are not used.
    #[default]
    Auto,
    /// The CPU path. The same input gives the same bytes on every run.
    Cpu,
    /// The best GPU of the machine. Opening fails if there is no GPU.
    Gpu,
    /// An adapter: a part of its name or driver, or its number in [`devices`].
    Named(String),
}

impl DeviceChoice {
    pub(super) fn open(&self) -> Result<Device> {
        Device::open(&self.to_string())
    }
}

impl From<&str> for DeviceChoice {
    fn from(name: &str) -> Self {
        match name {
            "auto" => Self::Auto,
            "cpu" => Self::Cpu,
            "gpu" => Self::Gpu,
            other => Self::Named(other.to_owned()),
        }
    }
}

/// The string that converts to this choice.
impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Cpu => "cpu",
            Self::Gpu => "gpu",
            Self::Named(name) => name,
        })
    }
}

/// The adapters of the machine: name and graphics interface of each, in the order of their numbers.
/// The CPU path is always available and not listed.
///
/// # Examples
///
/// ```no_run
/// for (number, name) in csae::devices().iter().enumerate() {
///     println!("{number}: {name}");
/// }
/// ```
pub fn devices() -> Vec<String> {
    gpu::adapters().iter().map(gpu::Adapter::label).collect()
}
