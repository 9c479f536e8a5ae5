//! Lists the machine's adapters and finds the one that a `--device` argument means.

use crate::advice::Advice;
use crate::error::{Error, Result};

/// An adapter and its description.
#[derive(Clone, Debug)]
pub struct Adapter {
    /// Position in the list of `csae devices`.
    pub index: usize,
    /// wgpu's handle.
    pub handle: wgpu::Adapter,
    /// Name, backend, driver.
    pub info: wgpu::AdapterInfo,
}

impl Adapter {
    /// Whether it runs on the CPU. Software adapters are used only if named.
    pub fn is_software(&self) -> bool {
        let name = self.info.name.to_lowercase();
        self.info.device_type == wgpu::DeviceType::Cpu
            || ["llvmpipe", "swiftshader", "microsoft basic render"]
                .iter()
                .any(|software| name.contains(software))
    }

    /// Whether it uses the machine's main memory, which then limits its buffers.
    pub fn shares_memory(&self) -> bool {
        self.is_software() || self.info.device_type == wgpu::DeviceType::IntegratedGpu
    }

    /// Kind of adapter, for reports.
    pub fn kind(&self) -> &'static str {
        match self.info.device_type {
            _ if self.is_software() => "software",
            wgpu::DeviceType::DiscreteGpu => "discrete GPU",
            wgpu::DeviceType::IntegratedGpu => "integrated GPU",
            wgpu::DeviceType::VirtualGpu => "virtual GPU",
            _ => "GPU of unknown kind",
        }
    }

    /// Name and backend.
    pub fn label(&self) -> String {
        format!("{} ({})", self.info.name, self.info.backend)
    }

    /// Name, backend and driver: a string under which measurements of this adapter are stored.
    pub fn identity(&self) -> String {
        let text = format!("{}, {} {}", self.label(), self.info.driver, self.info.driver_info);
        text.trim_end_matches([' ', ',']).to_owned()
    }

    /// An error of this adapter: one line with its name, its driver and `message`.
    pub fn fault(&self, message: &str) -> Error {
        let driver = format!("{} {}", self.info.driver, self.info.driver_info);
        // Messages of wgpu and of some drivers have several lines.
        let words: Vec<&str> = message.split_whitespace().collect();
        Error::adapter(format!("{}, driver {}: {}", self.label(), driver.trim(), words.join(" ")))
    }

    /// Position of the backend in the order of preference.
    fn backend_rank(&self) -> usize {
        use wgpu::Backend;
        [Backend::Vulkan, Backend::Metal, Backend::Dx12, Backend::Gl]
            .iter()
            .position(|b| *b == self.info.backend)
            .unwrap_or(9)
    }

    /// Position of the kind of adapter in the order of preference.
    fn kind_rank(&self) -> usize {
        match self.info.device_type {
            wgpu::DeviceType::DiscreteGpu => 0,
            wgpu::DeviceType::IntegratedGpu => 1,
            wgpu::DeviceType::VirtualGpu => 2,
            _ => 3,
        }
    }
}

/// Describes an error that wgpu reports, and what to do about it.
pub(super) fn explain(error: &wgpu::Error) -> String {
    match error {
        wgpu::Error::OutOfMemory { .. } => {
            format!("out of memory: {} or model, or {}", Advice::SmallerBatch, Advice::UseCpu)
        }
        other => format!(
            "{other}; run `csae verify` to see which kernels work here, or {}",
            Advice::UseCpu
        ),
    }
}

/// Every adapter of the machine: those of Vulkan, Metal and DX12 first, then those of OpenGL.
pub fn adapters() -> Vec<Adapter> {
    let mut found =
        enumerate(wgpu::Backends::VULKAN | wgpu::Backends::METAL | wgpu::Backends::DX12);
    found.extend(enumerate(wgpu::Backends::GL));
    with_indices(found)
}

/// The adapters of Vulkan, Metal and DX12. Enumerating OpenGL takes longer and is rarely needed.
fn primary() -> Vec<Adapter> {
    with_indices(enumerate(wgpu::Backends::VULKAN | wgpu::Backends::METAL | wgpu::Backends::DX12))
}

fn with_indices(mut adapters: Vec<Adapter>) -> Vec<Adapter> {
    for (index, adapter) in adapters.iter_mut().enumerate() {
        adapter.index = index;
    }
    adapters
}

fn enumerate(backends: wgpu::Backends) -> Vec<Adapter> {
    let descriptor = wgpu::InstanceDescriptor {
        backends,
        ..wgpu::InstanceDescriptor::new_without_display_handle()
    };
    let instance = wgpu::Instance::new(descriptor);
    let mut found: Vec<Adapter> = pollster::block_on(instance.enumerate_adapters(backends))
        .into_iter()
        .map(|handle| Adapter { index: 0, info: handle.get_info(), handle })
        .collect();
    found.sort_by_key(Adapter::backend_rank);
    found
}

/// The adapter that `auto` and `gpu` select: a hardware GPU, discrete before integrated, then
/// Vulkan before Metal, DX12 and GL.
pub fn choose_automatically(adapters: &[Adapter]) -> Option<&Adapter> {
    adapters
        .iter()
        .filter(|adapter| !adapter.is_software())
        .min_by_key(|adapter| (adapter.kind_rank(), adapter.backend_rank()))
}

/// The adapter that `wanted` means: `gpu`, an index in the list of [`adapters`], or any part of the
/// name or driver, ignoring case. `lavapipe` means `llvmpipe`, as Mesa names the adapter.
///
/// # Errors
/// If no adapter matches.
pub fn find(wanted: &str) -> Result<Adapter> {
    if wanted == "gpu" {
        let all = primary();
        let all = if choose_automatically(&all).is_some() { all } else { adapters() };
        return choose_automatically(&all).cloned().ok_or_else(|| {
            let software: Vec<String> = all.iter().map(Adapter::label).collect();
            let hint = if software.is_empty() {
                format!("install your GPU's Vulkan driver, or {}", Advice::UseCpu)
            } else {
                let names = software.join(", ");
                format!("{}, or name a software adapter: {names}", Advice::UseCpu)
            };
            Error::usage(format!("device gpu: no GPU found; {hint}"))
        });
    }
    if let Ok(index) = wanted.parse::<usize>() {
        let all = adapters();
        let count = all.len();
        // A number may also be part of a name, such as 4090.
        let named = all.iter().find(|adapter| adapter.info.name.contains(wanted)).cloned();
        return all.into_iter().nth(index).or(named).ok_or_else(|| {
            Error::usage(format!(
                "device {index}: there are {count} adapters, numbered from 0; {}",
                Advice::ListDevices
            ))
        });
    }
    // Every name contains the empty text.
    if wanted.trim().is_empty() {
        return Err(Error::usage(format!("the device has no name; {}", Advice::ListDevices)));
    }
    let name = wanted.to_lowercase().replace("lavapipe", "llvmpipe");
    let matching = |all: Vec<Adapter>| {
        all.into_iter().find(|adapter| {
            let info = &adapter.info;
            format!("{}\n{}\n{}", info.name, info.driver, info.driver_info)
                .to_lowercase()
                .contains(&name)
        })
    };
    matching(primary()).or_else(|| matching(adapters())).ok_or_else(|| {
        let names: Vec<String> = adapters().iter().map(Adapter::label).collect();
        let list = if names.is_empty() {
            "none: no graphics driver is installed".to_owned()
        } else {
            names.join(", ")
        };
        Error::usage(format!(
            "device {wanted}: no such adapter; use auto, cpu, gpu, or the name or number of an \
             adapter ({list})"
        ))
    })
}
