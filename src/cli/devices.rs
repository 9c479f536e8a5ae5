//! `csae devices`: lists adapters.

use clap::Args;
use serde_json::json;

use super::drivers::quietly;
use super::{CommandArgs, Common};
use crate::gpu::{self, Adapter};

/// List every adapter, and which one `auto` chooses and why.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  csae devices
  csae devices -v
  csae devices --json
  csae devices --ranks")]
pub struct DevicesArgs {
    /// List the MPI libraries that are found, for training by several processes, and what started
    /// this one
    #[arg(long)]
    ranks: bool,
    #[command(flatten)]
    common: Common,
}

impl CommandArgs for DevicesArgs {
    fn common(&self) -> Option<&Common> {
        Some(&self.common)
    }

    fn writes_files(&self) -> bool {
        false
    }

    fn run(self) -> anyhow::Result<()> {
        run(self)
    }
}

fn run(args: DevicesArgs) -> anyhow::Result<()> {
    if args.ranks {
        return Ok(super::ranks::list(args.common.json)?);
    }
    let adapters = quietly(args.common.verbose, gpu::adapters);
    print(&args, &adapters);
    // Drivers print as they are closed, too.
    quietly(args.common.verbose, || drop(adapters));
    Ok(())
}

fn print(args: &DevicesArgs, adapters: &[Adapter]) {
    let chosen = gpu::choose_automatically(adapters);
    let why = match chosen {
        Some(adapter) => {
            format!("auto uses {}: the first GPU, {}", adapter.label(), adapter.kind())
        }
        None if adapters.is_empty() => "auto uses the CPU path: there is no adapter".to_owned(),
        None => "auto uses the CPU path: there is no GPU, and a software adapter is used only if \
                 --device names it"
            .to_owned(),
    };
    if args.common.json {
        for adapter in adapters {
            let chosen = chosen.is_some_and(|chosen| chosen.index == adapter.index);
            outln!("{}", describe(adapter, chosen, args.common.verbose));
        }
        outln!(
            "{}",
            json!({
                "kind": "choice", "auto": chosen.map_or("cpu", |adapter| &adapter.info.name),
                "why": why
            })
        );
        return;
    }
    for adapter in adapters {
        let (info, limits) = (&adapter.info, adapter.handle.limits());
        outln!("{}  {}", adapter.index, info.name);
        outln!(
            "   {} through {}; driver {} {}",
            adapter.kind(),
            info.backend,
            info.driver,
            info.driver_info
        );
        outln!(
            "   buffer {} MiB, binding {} MiB, workgroup {} invocations and {} KiB, {} storage \
             buffers, subgroups of {}–{}",
            limits.max_buffer_size >> 20,
            limits.max_storage_buffer_binding_size >> 20,
            limits.max_compute_invocations_per_workgroup,
            limits.max_compute_workgroup_storage_size >> 10,
            limits.max_storage_buffers_per_shader_stage,
            info.subgroup_min_size,
            info.subgroup_max_size
        );
        outln!("   {}", features(adapter, args.common.verbose).join(", "));
    }
    outln!("cpu  the CPU path, {} threads", rayon::current_num_threads());
    outln!("{why}");
}

/// The features that kernels use, or all features of the adapter.
fn features(adapter: &Adapter, all: bool) -> Vec<&'static str> {
    let has = adapter.handle.features();
    if all {
        return has.iter_names().map(|(name, _)| name).collect();
    }
    [
        (wgpu::Features::SHADER_F16, "f16"),
        (wgpu::Features::SUBGROUP, "subgroups"),
        (wgpu::Features::TIMESTAMP_QUERY, "timestamps"),
        (wgpu::Features::PIPELINE_CACHE, "pipeline cache"),
        (wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX, "cooperative matrices"),
    ]
    .into_iter()
    .map(|(feature, name)| if has.contains(feature) { name } else { "" })
    .filter(|name| !name.is_empty())
    .collect()
}

/// The properties of an adapter as JSON. `verbose` lists every feature.
pub fn describe(adapter: &Adapter, chosen: bool, verbose: bool) -> serde_json::Value {
    let (info, limits) = (&adapter.info, adapter.handle.limits());
    json!({
        "kind": "adapter", "index": adapter.index, "name": info.name,
        "backend": info.backend.to_string(), "type": adapter.kind(), "driver": info.driver,
        "driver_info": info.driver_info, "software": adapter.is_software(), "auto": chosen,
        "max_buffer_size": limits.max_buffer_size,
        "max_storage_buffer_binding_size": limits.max_storage_buffer_binding_size,
        "max_compute_workgroup_storage_size": limits.max_compute_workgroup_storage_size,
        "max_compute_invocations_per_workgroup": limits.max_compute_invocations_per_workgroup,
        "features": features(adapter, verbose),
    })
}
