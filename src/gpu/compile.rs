//! Kernels made ready: every module and every pipeline of a plan once, several at a time.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rayon::prelude::*;

use super::kernels::{Kernel, Source, Storage};
use super::pipeline_cache::PipelineCache;
use super::record::Dispatch;
use super::reflect::{Reflection, Role};
use crate::error::Result;

/// A kernel ready to run.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) pipeline: wgpu::ComputePipeline,
    pub(super) layout: wgpu::BindGroupLayout,
    pub(super) reflection: Arc<Reflection>,
}

/// A kernel, whether its maps are in half precision, and the bits of its constants.
type Key = (Module, Vec<(&'static str, u64)>);
/// A kernel's text.
type Module = (Kernel, bool);

/// What a device has made so far.
#[derive(Debug, Default)]
pub(super) struct Compiled {
    modules: HashMap<Module, (wgpu::ShaderModule, Arc<Reflection>)>,
    pipelines: HashMap<Key, Arc<Loaded>>,
    /// What the driver keeps between runs.
    pub(super) cache: Option<PipelineCache>,
    /// Time spent on each pipeline, a kernel's first one with its module's.
    pub(super) log: Vec<(&'static str, Duration)>,
}

fn key(dispatch: &Dispatch) -> Key {
    (
        module_of(dispatch),
        dispatch.constants.iter().map(|(name, value)| (*name, value.to_bits())).collect(),
    )
}

const fn module_of(dispatch: &Dispatch) -> Module {
    (dispatch.kernel, dispatch.half)
}

impl Compiled {
    /// Makes what dispatches need and is not there yet, in the device's storage but for the halves.
    /// Returns the number of pipelines made. What a driver refuses is reported to the device.
    pub(super) fn prepare(
        &mut self,
        device: &wgpu::Device,
        storage: Storage,
        dispatches: &[Dispatch],
    ) -> Result<usize> {
        let mut missing: Vec<&Dispatch> = Vec::new();
        for dispatch in dispatches {
            let wanted = key(dispatch);
            if !self.pipelines.contains_key(&wanted)
                && !missing.iter().any(|other| key(other) == wanted)
            {
                missing.push(dispatch);
            }
        }
        let mut wanted: Vec<Module> = missing.iter().map(|dispatch| module_of(dispatch)).collect();
        wanted.sort_unstable();
        wanted.dedup();
        wanted.retain(|module| !self.modules.contains_key(module));
        let storage = |half| Storage { half, ..storage };
        let modules: Vec<_> = wanted
            .par_iter()
            .map(|(kernel, half)| timed(|| module(device, *kernel, storage(*half))))
            .collect();
        let mut spent = HashMap::new();
        for (wanted, (made, time)) in wanted.into_iter().zip(modules) {
            self.modules.insert(wanted, made?);
            spent.insert(wanted, time);
        }
        let made: Vec<_> =
            missing.par_iter().map(|dispatch| timed(|| self.load(device, dispatch))).collect();
        let count = made.len();
        for (dispatch, (loaded, time)) in missing.into_iter().zip(made) {
            let module = spent.remove(&module_of(dispatch)).unwrap_or_default();
            self.log.push((dispatch.kernel.name(), module + time));
            self.pipelines.insert(key(dispatch), Arc::new(loaded));
        }
        if count > 0 {
            give_back();
        }
        Ok(count)
    }

    /// What [`Compiled::prepare`] has made for a dispatch.
    pub(super) fn of(&self, dispatch: &Dispatch) -> Arc<Loaded> {
        Arc::clone(&self.pipelines[&key(dispatch)])
    }

    /// Keeps nothing: something was refused.
    pub(super) fn clear(&mut self) {
        self.modules.clear();
        self.pipelines.clear();
    }

    fn load(&self, device: &wgpu::Device, dispatch: &Dispatch) -> Loaded {
        let (module, reflection) = &self.modules[&module_of(dispatch)];
        let entries: Vec<wgpu::BindGroupLayoutEntry> = reflection
            .bindings
            .iter()
            .map(|binding| wgpu::BindGroupLayoutEntry {
                binding: binding.index,
                visibility: wgpu::ShaderStages::COMPUTE,
                ty: wgpu::BindingType::Buffer {
                    ty: match binding.role {
                        Role::Uniform(_) => wgpu::BufferBindingType::Uniform,
                        Role::Storage { writable, .. } => {
                            wgpu::BufferBindingType::Storage { read_only: !writable }
                        }
                    },
                    has_dynamic_offset: false,
                    min_binding_size: wgpu::BufferSize::new(binding.min_size),
                },
                count: None,
            })
            .collect();
        let label = Some(dispatch.kernel.name());
        let layout = device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
            label,
            entries: &entries,
        });
        let pipeline_layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label,
            bind_group_layouts: &[Some(&layout)],
            immediate_size: 0,
        });
        let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label,
            layout: Some(&pipeline_layout),
            module,
            entry_point: None,
            compilation_options: wgpu::PipelineCompilationOptions {
                constants: &dispatch.constants,
                zero_initialize_workgroup_memory: false,
            },
            cache: self.cache.as_ref().map(|cache| &cache.handle),
        });
        Loaded { pipeline, layout, reflection: Arc::clone(reflection) }
    }
}

fn module(
    device: &wgpu::Device,
    kernel: Kernel,
    storage: Storage,
) -> Result<(wgpu::ShaderModule, Arc<Reflection>)> {
    let source = Source::with(kernel, storage);
    let reflection = Reflection::of(kernel, &source)?;
    let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
        label: Some(kernel.name()),
        source: wgpu::ShaderSource::Wgsl(source.text.into()),
    });
    Ok((module, Arc::new(reflection)))
}

/// Gives memory back that drivers' compilers have freed: glibc keeps it, of every thread that
/// compiled.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn give_back() {
    // SAFETY: it takes no pointer, and any thread may call it at any time.
    #[allow(unsafe_code, reason = "the one way to tell glibc")]
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
const fn give_back() {}

fn timed<T>(make: impl FnOnce() -> T) -> (T, Duration) {
    let began = Instant::now();
    (make(), began.elapsed())
}
