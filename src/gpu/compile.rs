//! Compiles the modules and pipelines of a plan: each once, several in parallel.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rayon::prelude::*;

use super::kernels::{Kernel, Source, Storage};
use super::pipeline_cache::PipelineCache;
use super::record::Dispatch;
use super::reflect::{Reflection, Role};
use crate::error::Result;

/// A compiled kernel.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) pipeline: wgpu::ComputePipeline,
    pub(super) layout: wgpu::BindGroupLayout,
    pub(super) reflection: Arc<Reflection>,
}

/// Identifies a pipeline: its module and the bits of its `override` constants.
type Key = (Module, Vec<(&'static str, u64)>);
/// Identifies a module: its kernel, whether maps are in half precision, and whether tiles are those
/// of [`super::Choice::Tiled8x4`].
type Module = (Kernel, bool, bool);

/// Everything that a device has compiled.
#[derive(Debug, Default)]
pub(super) struct Compiled {
    modules: HashMap<Module, (wgpu::ShaderModule, Arc<Reflection>)>,
    pipelines: HashMap<Key, Arc<Loaded>>,
    /// The driver's pipeline cache on disk.
    pub(super) cache: Option<PipelineCache>,
    /// Compile time of each pipeline. A kernel's first pipeline includes the time of its module.
    pub(super) log: Vec<(&'static str, Duration)>,
}

fn key(dispatch: &Dispatch) -> Key {
    (
        module_of(dispatch),
        dispatch.constants.iter().map(|(name, value)| (*name, value.to_bits())).collect(),
    )
}

const fn module_of(dispatch: &Dispatch) -> Module {
    (dispatch.kernel, dispatch.half, dispatch.tiles_8x4)
}

impl Compiled {
    /// Compiles the missing pipelines of `dispatches` and returns their number. Each dispatch
    /// decides whether its maps are in half precision; the rest of `storage` is the device's.
    /// Errors of the driver are reported to the device.
    ///
    /// # Errors
    /// If naga cannot parse a shader.
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
        let storage = |half, tiles_8x4| Storage { half, tiles_8x4, ..storage };
        let modules: Vec<_> = wanted
            .par_iter()
            .map(|(kernel, half, tiles_8x4)| {
                timed(|| module(device, *kernel, storage(*half, *tiles_8x4)))
            })
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
            trim_heap();
        }
        Ok(count)
    }

    /// The pipeline that [`Compiled::prepare`] has compiled for a dispatch.
    pub(super) fn of(&self, dispatch: &Dispatch) -> Arc<Loaded> {
        Arc::clone(&self.pipelines[&key(dispatch)])
    }

    /// Discards everything, because the driver refused something.
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
            immediate_size: reflection.immediates.as_ref().map_or(0, |block| block.size),
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
    let descriptor = wgpu::ShaderModuleDescriptor {
        label: Some(kernel.name()),
        source: wgpu::ShaderSource::Wgsl(source.text.into()),
    };
    let checks = wgpu::ShaderRuntimeChecks {
        force_loop_bounding: false,
        ..wgpu::ShaderRuntimeChecks::checked()
    };
    // SAFETY: all loops of the kernels end, since each counts up to a bound. So the counter that
    // naga adds to every loop is not needed. It would keep compilers from unrolling. Checks of
    // bounds stay on.
    #[allow(unsafe_code, reason = "wgpu has no safe way to leave out a single check")]
    let module = unsafe { device.create_shader_module_trusted(descriptor, checks) };
    Ok((module, Arc::new(reflection)))
}

/// Returns freed heap memory to the system. Drivers' compilers allocate and free much on every
/// compiling thread, and glibc would keep it.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn trim_heap() {
    // SAFETY: malloc_trim takes no pointer, and any thread may call it at any time.
    #[allow(unsafe_code, reason = "glibc has no safe interface for this")]
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
const fn trim_heap() {}

fn timed<T>(make: impl FnOnce() -> T) -> (T, Duration) {
    let began = Instant::now();
    (make(), began.elapsed())
}
