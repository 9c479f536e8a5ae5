//! Reads every shader without a GPU: the registry and the folder agree, headers are there, every
//! variant that is dispatched validates with the portable capabilities, keeps to the portable
//! budget, translates for Vulkan, Metal and DX12, and has nothing that DX12's older compiler is
//! known to refuse. `tests/browser` compiles them with a browser's compiler too.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use csae::internals::gpu::{Kernel, Source, Storage};
use csae::internals::ops::kernels;
use naga::back::{PipelineConstants, hlsl, msl, pipeline_constants::process_overrides, spv};
use naga::proc::{BoundsCheckPolicies, BoundsCheckPolicy, Layouter};
use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};
use naga::{AddressSpace, BinaryOperator, Expression, Module, ScalarKind, ShaderStage};

use crate::support::recorded;
use crate::support::{dawn, fxc, skip, spirv};

/// The portable budget.
const INVOCATIONS: u32 = 256;
const WORKGROUP_BYTES: u32 = 16 << 10;
/// The budget of kernels that multiply cooperative matrices: every GPU that has them has it.
const WORKGROUP_BYTES_WITH_MATRICES: u32 = 32 << 10;
const STORAGE_BINDINGS: usize = 8;
/// The directive of kernels that multiply cooperative matrices.
const MATRICES: &str = "enable wgpu_cooperative_matrix";

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// A module with values for its overrides.
struct Resolved {
    module: Module,
    info: ModuleInfo,
    /// Whether it needs capabilities that are not portable.
    special: bool,
    /// Whether it multiplies cooperative matrices.
    matrices: bool,
    /// Whether it multiplies or emulates them.
    matrix_tile: bool,
}

/// The constants without those that a text has fixed.
fn fitting<'a>(text: &str, constants: &[(&'a str, f64)]) -> Vec<(&'a str, f64)> {
    let mut constants = constants.to_vec();
    constants.retain(|(name, _)| !text.contains(&format!("const {name}:")));
    constants
}

/// A kernel's text in every form that an adapter can need.
fn forms(kernel: Kernel) -> Vec<String> {
    let half = Storage { half: true, ..Storage::default() };
    let storages = [
        Storage::default(),
        Storage { int64: true, ..Storage::default() },
        half,
        Storage { tiles_8x4: true, ..Storage::default() },
        Storage { fixed_step: true, ..Storage::default() },
        Storage { single: true, ..Storage::default() },
        Storage { single: true, ..half },
        Storage { emulated: true, ..half },
        Storage { emulated: true, single: true, ..Storage::default() },
    ];
    let mut forms: Vec<String> =
        storages.into_iter().map(|storage| Source::with(kernel, storage).text).collect();
    // A kernel without maps has no half precision.
    forms.retain(|text| !text.contains("enable f16") || text.contains("Map"));
    forms.dedup();
    forms
}

/// Parses and validates WGSL and gives its overrides their values.
fn resolve(text: &str, constants: &[(&str, f64)]) -> Result<Resolved, String> {
    let module = naga::front::wgsl::parse_str(text).map_err(|error| error.emit_to_string(text))?;
    // Capabilities beyond the portable ones: subgroups and 64-bit integers, if the text uses them.
    let mut capabilities = Capabilities::empty();
    capabilities.set(Capabilities::SUBGROUP, text.contains("subgroup"));
    capabilities.set(Capabilities::SHADER_INT64, text.contains("u64"));
    capabilities.set(Capabilities::SHADER_FLOAT16, text.contains("enable f16"));
    let matrices = text.contains(MATRICES);
    capabilities.set(Capabilities::COOPERATIVE_MATRIX, matrices);
    let special = !capabilities.is_empty();
    // Every backend of wgpu has immediates.
    capabilities.set(Capabilities::IMMEDIATES, text.contains("var<immediate>"));
    let mut validator = Validator::new(ValidationFlags::all(), capabilities);
    let info = validator.validate(&module).map_err(|error| error.emit_to_string(text))?;
    let constants = fitting(text, constants)
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect::<PipelineConstants>();
    let entry = module.entry_points.first().ok_or("no entry point")?.name.clone();
    let resolved =
        process_overrides(&module, &info, Some((ShaderStage::Compute, &entry)), &constants);
    let (module, info) = resolved
        .map(|(module, info)| (module.into_owned(), info.into_owned()))
        .map_err(|error| error.to_string())?;
    let matrix_tile = text.contains("alias RowMatrix");
    Ok(Resolved { module, info, special, matrices, matrix_tile })
}

/// Checks a module against the portable budget.
fn check_budget(resolved: &Resolved) -> Result<(), String> {
    let module = &resolved.module;
    let mut layouter = Layouter::default();
    layouter.update(module.to_ctx()).map_err(|error| error.to_string())?;
    let [entry] = &module.entry_points[..] else { return Err("one entry point a file".to_owned()) };
    if entry.name != "main" {
        return Err(format!("the entry point is called {}, not main", entry.name));
    }
    let invocations: u32 = entry.workgroup_size.iter().product();
    if invocations > INVOCATIONS {
        return Err(format!(
            "{invocations} invocations in a workgroup, portable are {INVOCATIONS}"
        ));
    }
    let of = |space: &dyn Fn(AddressSpace) -> bool| -> Vec<_> {
        module
            .global_variables
            .iter()
            .map(|(_, variable)| variable)
            .filter(|variable| space(variable.space))
            .collect()
    };
    let bytes: u32 = of(&|space| space == AddressSpace::WorkGroup)
        .iter()
        .map(|variable| layouter[variable.ty].size)
        .sum();
    let most = if resolved.matrix_tile { WORKGROUP_BYTES_WITH_MATRICES } else { WORKGROUP_BYTES };
    if bytes > most {
        return Err(format!("{bytes} bytes of workgroup memory, portable are {most}"));
    }
    let storage = of(&|space| matches!(space, AddressSpace::Storage { .. })).len();
    if storage > STORAGE_BINDINGS {
        return Err(format!("{storage} storage bindings, portable are {STORAGE_BINDINGS}"));
    }
    let mut seen = BTreeSet::new();
    for variable in
        of(&|space| matches!(space, AddressSpace::Storage { .. } | AddressSpace::Uniform))
    {
        let binding = variable.binding.ok_or("a buffer without a binding")?;
        if binding.group != 0 || !seen.insert(binding.binding) {
            return Err(format!(
                "@group({}) @binding({}): all in group 0, each once",
                binding.group, binding.binding
            ));
        }
    }
    Ok(())
}

fn write_spirv(
    module: &Module,
    info: &ModuleInfo,
    options: &spv::Options,
) -> Result<Vec<u32>, String> {
    let entry_point = module.entry_points[0].name.clone();
    let pipeline = spv::PipelineOptions { shader_stage: ShaderStage::Compute, entry_point };
    spv::write_vec(module, info, options, Some(&pipeline))
        .map_err(|error| format!("SPIR-V: {error}"))
}

/// Translates a module with the options that wgpu gives naga on each platform.
fn translate(Resolved { module, info, special, matrices, .. }: &Resolved) -> Result<(), String> {
    let entry = &module.entry_points[0].name;
    for buffer in [BoundsCheckPolicy::Restrict, BoundsCheckPolicy::Unchecked] {
        let bounds_check_policies = BoundsCheckPolicies {
            index: BoundsCheckPolicy::Restrict,
            buffer,
            ..BoundsCheckPolicies::default()
        };
        let lang_version = if *special { (1, 3) } else { spv::Options::default().lang_version };
        let options =
            spv::Options { bounds_check_policies, lang_version, ..spv::Options::default() };
        let words = write_spirv(module, info, &options)?;
        if words.first() != Some(&0x0723_0203) {
            return Err("SPIR-V: no magic number".to_owned());
        }
    }
    if *matrices {
        // wgpu offers these matrices only with Vulkan: Metal has 8x8 matrices, naga's HLSL none.
        return Ok(());
    }
    let (mut options, pipeline) = metal(module, entry);
    if *special {
        options.lang_version = (2, 4);
    }
    let (text, translation) = msl::write_string(module, info, &options, &pipeline)
        .map_err(|error| format!("MSL: {error}"))?;
    named(&text, &translation.entry_point_names, "MSL")?;
    let models = [hlsl::ShaderModel::V5_1, hlsl::ShaderModel::V6_0];
    for shader_model in models.into_iter().skip(usize::from(*special)) {
        let options = hlsl::Options {
            shader_model,
            zero_initialize_workgroup_memory: false,
            immediates_target: Some(hlsl::BindTarget::default()),
            ..hlsl::Options::default()
        };
        let pipeline =
            hlsl::PipelineOptions { entry_point: Some((ShaderStage::Compute, entry.clone())) };
        let mut text = String::new();
        let reflection = hlsl::Writer::new(&mut text, &options, &pipeline)
            .write(module, info, None)
            .map_err(|error| format!("HLSL: {error}"))?;
        named(&text, &reflection.entry_point_names, "HLSL")?;
    }
    Ok(())
}

/// Checks a module against what FXC refuses.
fn check_fxc(Resolved { module, info, special, .. }: &Resolved) -> Result<(), String> {
    if *special {
        // FXC supports none of these capabilities, so that wgpu does not offer them with it.
        return Ok(());
    }
    fxc::check_assignments(module, info)?;
    fxc::check_barriers(module)
}

/// Refuses remainders of signed integers: GLSL, into which they are translated as they are, leaves
/// those of negative numbers undefined.
fn check_remainders(Resolved { module, info, .. }: &Resolved) -> Result<(), String> {
    let functions = module.functions.iter().map(|(handle, function)| (function, &info[handle]));
    let entries = module.entry_points.iter().enumerate();
    let entries = entries.map(|(i, entry)| (&entry.function, info.get_entry_point(i)));
    for (function, info) in functions.chain(entries) {
        for (_, expression) in function.expressions.iter() {
            let Expression::Binary { op: BinaryOperator::Modulo, left, .. } = *expression else {
                continue;
            };
            let kind = info[left].ty.inner_with(&module.types).scalar_kind();
            if kind == Some(ScalarKind::Sint) {
                let name = function.name.as_deref().unwrap_or("main");
                return Err(format!("`{name}` has a remainder of signed integers: use u32"));
            }
        }
    }
    Ok(())
}

/// Slots for Metal: one for each binding in order of declaration, one for the sizes of runtime
/// arrays, and one for immediates.
fn metal(module: &Module, entry: &str) -> (msl::Options, msl::PipelineOptions) {
    let bound: Vec<_> = module
        .global_variables
        .iter()
        .filter_map(|(_, variable)| variable.binding.map(|at| (at, variable.space)))
        .collect();
    let written = |space: AddressSpace| {
        let store = naga::StorageAccess::STORE;
        matches!(space, AddressSpace::Storage { access } if access.contains(store))
    };
    let target = |slot: usize, space: AddressSpace| msl::BindTarget {
        buffer: Some(slot as u8),
        mutable: written(space),
        ..msl::BindTarget::default()
    };
    let resources =
        bound.iter().enumerate().map(|(slot, (at, space))| (*at, target(slot, *space))).collect();
    let resources = msl::EntryPointResources {
        resources,
        immediates_buffer: Some(bound.len() as u8 + 1),
        sizes_buffer: Some(bound.len() as u8),
    };
    let restrict = BoundsCheckPolicy::Restrict;
    let options = msl::Options {
        lang_version: (2, 0),
        per_entry_point_map: msl::EntryPointResourceMap::from([(entry.to_owned(), resources)]),
        fake_missing_bindings: false,
        bounds_check_policies: BoundsCheckPolicies {
            index: restrict,
            buffer: restrict,
            ..BoundsCheckPolicies::default()
        },
        zero_initialize_workgroup_memory: false,
        ..msl::Options::default()
    };
    let pipeline = msl::PipelineOptions {
        entry_point: Some((ShaderStage::Compute, entry.to_owned())),
        ..msl::PipelineOptions::default()
    };
    (options, pipeline)
}

/// Fails unless the only entry point has a name that is in the text.
fn named<E: std::fmt::Display>(
    text: &str,
    names: &[Result<String, E>],
    language: &str,
) -> Result<(), String> {
    match names {
        [Ok(name)] if text.contains(name.as_str()) => Ok(()),
        [Err(error)] => Err(format!("{language}: {error}")),
        _ => Err(format!("{language}: the entry point is missing")),
    }
}

/// Checks a kernel's header: a comment above the parameters that names the grid and the CPU twin,
/// which must exist.
fn check_header(text: &str) -> Result<(), String> {
    let header: Vec<&str> = text
        .lines()
        .skip_while(|line| line.starts_with("//!include"))
        .take_while(|line| line.starts_with("// "))
        .collect();
    if header.len() < 2 {
        return Err("the header is missing: formula, layouts, invocation, grid, twin".to_owned());
    }
    let header = header.join("\n");
    for word in ["Twin: ", "Grid: "] {
        if !header.contains(word) {
            return Err(format!("the header lacks `{word}`"));
        }
    }
    let (_, twin) = header.split_once("Twin: ").unwrap_or_default();
    let path = twin
        .split_whitespace()
        .map(|word| word.trim_end_matches(['.', ',', ';', ')']))
        .find(|word| word.starts_with("src/"));
    let path = path.ok_or("the header names no file of the twin")?;
    if !root().join(path).is_file() {
        return Err(format!("the twin {path} does not exist"));
    }
    Ok(())
}

/// Stems of the `.wgsl` files directly in a folder. Other files are an error.
fn stems(folder: &Path) -> BTreeSet<String> {
    let entries =
        std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let files = entries
        .map(|entry| entry.expect("the folder can be read").path())
        .filter(|path| path.is_file());
    files
        .map(|path| {
            assert!(
                path.extension().is_some_and(|extension| extension == "wgsl"),
                "{} is not a shader",
                path.display()
            );
            path.file_stem().expect("a file has a name").to_string_lossy().into_owned()
        })
        .collect()
}

fn set<'a>(names: impl IntoIterator<Item = &'a str>) -> BTreeSet<String> {
    names.into_iter().map(str::to_owned).collect()
}

fn includes(text: &str) -> BTreeSet<String> {
    set(text
        .lines()
        .filter_map(|line| line.strip_prefix("//!include "))
        .flat_map(str::split_whitespace))
}

/// Fails unless two sets of names are equal.
fn same(what: &str, found: &BTreeSet<String>, wanted: &BTreeSet<String>) -> Result<(), String> {
    let differing: Vec<&String> = found.symmetric_difference(wanted).collect();
    if differing.is_empty() {
        Ok(())
    } else {
        Err(format!("{what}: only on one side: {differing:?}"))
    }
}

fn report(failures: &[String]) {
    assert!(failures.is_empty(), "{} failed:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn no_shader_is_an_orphan() {
    let shaders = root().join("shaders");
    same("shaders and the registry", &stems(&shaders), &set(kernels().map(Kernel::name))).unwrap();
    let common = stems(&shaders.join("common"));
    same("shaders/common and the registry", &common, &set(Source::common_names())).unwrap();
    let mut included: BTreeSet<String> =
        kernels().flat_map(|kernel| includes(kernel.text())).collect();
    // These replace others.
    let replacing = [
        "fixed_step",
        "fours_int64",
        "map_half",
        "matrix_8x8",
        "matrix_emulated",
        "matrix_memory_8x8",
        "workgroup_tile_8x4",
    ];
    included.extend(replacing.map(str::to_owned));
    same("shaders/common and what kernels include", &common, &included).unwrap();
}

#[test]
fn an_orphan_is_found() {
    let error = same("both", &set(["a", "orphan"]), &set(["a"])).unwrap_err();
    assert!(error.contains("orphan"), "{error}");
}

#[test]
fn every_shader_has_a_header() {
    let failures: Vec<String> = kernels()
        .filter_map(|kernel| {
            check_header(kernel.text())
                .err()
                .map(|error| format!("{}.wgsl: {error}", kernel.name()))
        })
        .collect();
    report(&failures);
}

#[test]
fn a_missing_header_and_a_missing_twin_are_found() {
    assert!(check_header("//!include grid\n@compute fn main() {}").is_err());
    assert!(
        check_header("// y = x\n// Grid: one.\n// Twin: X in src/reference/nothing.rs.\n").is_err()
    );
}

/// A grid can be folded into two dimensions: only `common/grid.wgsl` knows how.
fn check_grid(text: &str) -> Result<(), String> {
    let direct = ["global_invocation_id", "group.x", "group.y", "group.z", "groups.x"];
    direct
        .iter()
        .find(|word| text.contains(*word))
        .map_or(Ok(()), |word| Err(format!("`{word}`: use flat_invocation or flat_workgroup")))
}

#[test]
fn every_shader_supports_folded_grids() {
    for kernel in kernels() {
        check_grid(kernel.text()).unwrap_or_else(|error| panic!("{}.wgsl: {error}", kernel.name()));
    }
}

#[test]
fn an_index_from_an_unfolded_grid_is_found() {
    assert!(check_grid("let i = group.x * 64u + local;").is_err());
}

/// A store to an atomic that was loaded since the last barrier or the start of the function.
/// NVIDIA's compiler (driver 580) moves such a load past the store. A load within the store's own
/// line is needed for the value stored.
fn check_atomics(text: &str) -> Result<(), String> {
    let names = |line: &str, call: &str| -> Vec<String> {
        let arguments = line.split(call).skip(1);
        let end = |c: char| !(c.is_alphanumeric() || c == '_');
        arguments.map(|rest| rest.split(end).next().unwrap_or("").to_owned()).collect()
    };
    let mut loaded: Vec<String> = Vec::new();
    for line in text.lines() {
        let line = line.split("//").next().unwrap_or("");
        if line.contains("Barrier(") || line.starts_with("fn ") {
            loaded.clear();
        }
        if let Some(name) = names(line, "atomicStore(&").iter().find(|name| loaded.contains(name)) {
            return Err(format!("{name}: a barrier must lie between atomicLoad and atomicStore"));
        }
        loaded.extend(names(line, "atomicLoad(&"));
    }
    Ok(())
}

#[test]
fn no_atomic_is_stored_to_soon_after_a_load() {
    for kernel in kernels() {
        let text = Source::of(kernel).text;
        check_atomics(&text).unwrap_or_else(|error| panic!("{}.wgsl: {error}", kernel.name()));
    }
}

#[test]
fn a_store_to_an_atomic_after_a_load_is_found() {
    let (load, store) = ("let n = atomicLoad(&counts[i]);\n", "atomicStore(&counts[i], 0u);\n");
    assert!(check_atomics(&format!("fn f() {{\n{load}{store}}}")).is_err());
    assert!(check_atomics(&format!("fn f() {{\n{load}workgroupBarrier();\n{store}}}")).is_ok());
    assert!(check_atomics(&format!("fn f() {{\n{load}}}\nfn g() {{\n{store}}}")).is_ok());
    assert!(check_atomics(&format!("{load}atomicStore(&others[i], 0u);\n")).is_ok());
}

#[test]
fn every_variant_validates_and_translates() {
    let failures: Vec<String> = recorded::variants()
        .into_iter()
        .flat_map(|(kernel, constants)| {
            forms(kernel).into_iter().map(move |text| (kernel, constants.clone(), text))
        })
        .filter_map(|(kernel, constants, text)| {
            let outcome = resolve(&text, &constants).and_then(|resolved| {
                check_budget(&resolved)?;
                check_fxc(&resolved)?;
                check_remainders(&resolved)?;
                translate(&resolved)
            });
            outcome.err().map(|error| format!("{} {constants:?}: {error}", kernel.name()))
        })
        .collect();
    report(&failures);
}

/// naga's Metal loads and stores cooperative matrices by pointers to scalars.
#[test]
fn matrices_in_single_precision_have_memory_of_scalars() {
    let single = Storage { single: true, ..Storage::default() };
    let (mut found, mut failures) = (0, Vec::new());
    for kernel in kernels().filter(|kernel| includes(kernel.text()).contains("matrix_tile")) {
        let text = Source::with(kernel, single).text;
        let module = naga::front::wgsl::parse_str(&text).unwrap();
        let memory = module.global_variables.iter().map(|(_, variable)| variable);
        for variable in memory.filter(|variable| variable.space == AddressSpace::WorkGroup) {
            let naga::TypeInner::Array { base, .. } = module.types[variable.ty].inner else {
                continue;
            };
            found += 1;
            if !matches!(module.types[base].inner, naga::TypeInner::Scalar(_)) {
                failures.push(format!("{}: {:?}", kernel.name(), variable.name));
            }
        }
    }
    assert!(found >= 3 * 6, "{found} arrays");
    report(&failures);
}

/// The module as wgpu gives it to a driver of Vulkan 1.3.
fn vulkan(Resolved { module, info, .. }: &Resolved) -> Result<Vec<u32>, String> {
    let bounds_check_policies = BoundsCheckPolicies {
        index: BoundsCheckPolicy::Restrict,
        buffer: BoundsCheckPolicy::Restrict,
        ..BoundsCheckPolicies::default()
    };
    let options =
        spv::Options { bounds_check_policies, lang_version: (1, 6), ..spv::Options::default() };
    write_spirv(module, info, &options)
}

#[test]
fn every_variant_is_valid_spirv() {
    if !spirv::is_installed() {
        return skip("there is no spirv-val (Debian: spirv-tools)");
    }
    let variants = recorded::variants().into_iter().flat_map(|(kernel, constants)| {
        forms(kernel).into_iter().map(move |text| (kernel, constants.clone(), text))
    });
    let failures = variants.filter_map(|(kernel, constants, text)| {
        let outcome = resolve(&text, &constants).and_then(|resolved| {
            // Versions of spirv-val before 2024 do not know cooperative matrices.
            if resolved.matrices {
                return Ok(());
            }
            spirv::validate(&vulkan(&resolved)?)
        });
        outcome.err().map(|error| format!("{} {constants:?}: {error}", kernel.name()))
    });
    report(&failures.collect::<Vec<_>>());
}

#[test]
fn invalid_spirv_is_found() {
    if !spirv::is_installed() {
        return skip("there is no spirv-val (Debian: spirv-tools)");
    }
    let text = "@group(0) @binding(0) var<storage, read_write> y: array<u32>;\n\
                @compute @workgroup_size(64) fn main() { y[0] = 1u; }";
    let mut words = vulkan(&resolve(text, &[]).unwrap()).unwrap();
    spirv::validate(&words).unwrap();
    // Without its last instruction the function does not end.
    words.pop();
    assert!(spirv::validate(&words).unwrap_err().contains("spirv-val"));
}

#[test]
fn invalid_and_unportable_shaders_are_found() {
    let kernel = |declarations: &str, size: u32, body: &str| {
        format!(
            "override SIZE: u32 = 1u;\n{declarations}\n\
             @compute @workgroup_size({size}) fn main() {{ {body} }}"
        )
    };
    let fails = |text: &str, constants: &[(&str, f64)], what: &str| {
        let error = resolve(text, constants)
            .and_then(|resolved| check_budget(&resolved).and_then(|()| translate(&resolved)))
            .unwrap_err();
        assert!(error.contains(what), "{error}");
    };
    let sound =
        kernel("@group(0) @binding(0) var<storage, read_write> y: array<u32>;", 64, "y[0] = SIZE;");
    resolve(&sound, &[("SIZE", 3.0)])
        .and_then(|resolved| check_budget(&resolved).and_then(|()| translate(&resolved)))
        .unwrap();
    fails(&sound, &[("UNKNOWN", 3.0)], "UNKNOWN");
    fails(&kernel("", 64, "let x: u32 = 1.0;"), &[], "x");
    fails(&kernel("enable f16; var<private> x: f16;", 64, "x = 1h;"), &[], "");
    fails(&kernel("", 512, ""), &[], "512 invocations");
    fails(
        &kernel("var<workgroup> tile: array<f32, 5000>;", 64, "tile[0] = 1.0;"),
        &[],
        "20000 bytes",
    );
    let mut many = String::new();
    let mut sum = String::from("let all = 0u");
    for i in 0..9 {
        writeln!(many, "@group(0) @binding({i}) var<storage, read> x{i}: array<u32>;").unwrap();
        write!(sum, " + x{i}[0]").unwrap();
    }
    fails(&kernel(&many, 64, &format!("{sum};")), &[], "9 storage bindings");
    let elsewhere = "@group(1) @binding(0) var<storage, read_write> y: array<u32>;";
    fails(&kernel(elsewhere, 64, "y[0] = SIZE;"), &[], "group 0");
}

#[test]
fn remainders_of_signed_integers_are_found() {
    let check = |body: &str| {
        let binding = "@group(0) @binding(0) var<storage, read_write> y: array<i32>;";
        let helper = format!("fn helper(at: i32) -> i32 {{ {body} }}");
        let main = "@compute @workgroup_size(64) fn main() { y[0] = helper(y[1]); }";
        check_remainders(&resolve(&format!("{binding}\n{helper}\n{main}"), &[]).unwrap())
    };
    assert!(check("return at % 6;").unwrap_err().contains("`helper`"));
    assert!(check("let two = vec2<i32>(at, 1) % vec2<i32>(6); return two.x;").is_err());
    assert_eq!(check("return at / 6 + i32(u32(at + 6) % 6u) + i32(f32(at) % 6.0);"), Ok(()));
}

#[test]
fn what_fxc_refuses_is_found() {
    let check = |declarations: &str, body: &str| {
        let text = format!(
            "override SIZE: u32 = 2u;\n\
             @group(0) @binding(0) var<uniform> n: u32;\n\
             @group(0) @binding(1) var<storage, read_write> y: array<f32>;\n\
             var<workgroup> tile: array<vec4<f32>, 4>;\n\
             var<workgroup> chosen: u32;\n\
             {declarations}\n\
             @compute @workgroup_size(64)\n\
             fn main(\n\
                 @builtin(workgroup_id) group: vec3<u32>,\n\
                 @builtin(local_invocation_index) local: u32,\n\
             ) {{ {body} }}"
        );
        let resolved = resolve(&text, &[("SIZE", 3.0)]).unwrap_or_else(|error| panic!("{error}"));
        check_fxc(&resolved)
    };
    let fails = |declarations: &str, body: &str, what: &str| {
        let error = check(declarations, body).expect_err(body);
        assert!(error.contains(what), "{body}: {error}");
    };
    // Components and columns by variable indices.
    let index = "by a variable index";
    fails("", "var v = vec4<f32>(0.0); v[local] = 1.0; y[0] = v.x;", index);
    fails("", "var v = vec4<u32>(0u); v[n] += 1u; y[0] = f32(v.x);", index);
    fails("", "var m = mat4x4<f32>(); m[local] = vec4<f32>(1.0); y[0] = m[0].x;", index);
    fails("", "var m = mat4x4<f32>(); m[0][local] = 1.0; y[0] = m[0].x;", index);
    fails("", "var m = mat4x4<f32>(); m[local].x = 1.0; y[0] = m[0].x;", index);
    fails("var<private> v: vec4<f32>;", "if n > 0u { loop { v[local] = 1.0; break; } }", index);
    fails("struct S { v: vec2<f32> }", "var s: array<S, 2>; s[1].v[local] = 1.0;", index);
    fails(
        "fn put(v: ptr<function, vec4<f32>>, i: u32) { (*v)[i] = 1.0; }",
        "var v = vec4<f32>(0.0); put(&v, n);",
        "`put`",
    );
    check("", "var v = vec4<f32>(0.0); v[SIZE - 2u] = 1.0; v[3] = 2.0; y[0] = v[local];").unwrap();
    check("", "var a: array<vec4<f32>, 4>; a[local].x = 1.0; y[0] = a[n].x;").unwrap();
    check("", "tile[local] = vec4<f32>(1.0); y[local] = 1.0;").unwrap();
    // Barriers that not all invocations reach, or that depend on memory that they write.
    let barrier = "has a barrier";
    let meet = "fn meet() { workgroupBarrier(); }";
    fails("", "if local < 4u { workgroupBarrier(); }", barrier);
    fails(meet, "if local < 4u { meet(); }", barrier);
    fails("", "if local < n { return; } workgroupBarrier();", barrier);
    fails("", "for (var i = 0u; i < local; i++) { storageBarrier(); }", barrier);
    fails("", "loop { if tile[0].x > 0.0 { break; } workgroupBarrier(); }", barrier);
    fails("", "while y[0] > 0.0 { workgroupBarrier(); }", barrier);
    fails(
        "",
        "let to = workgroupUniformLoad(&chosen); if to > 0u { workgroupBarrier(); }",
        barrier,
    );
    fails("", "for (var i = n; i > 0u; i -= chosen) { workgroupBarrier(); }", barrier);
    fails("", "for (var i = 0u; i < n && chosen == i; i++) { workgroupBarrier(); }", barrier);
    fails(
        "fn below() -> bool { if tile[0].x > 0.0 { return true; } return false; }",
        "if below() { workgroupBarrier(); }",
        barrier,
    );
    check(meet, "if group.x >= n { return; } for (var i = n; i > 0u; i /= 2u) { meet(); }")
        .unwrap();
    check("", "for (var i = 0u; i < local; i++) { y[i] = 1.0; } workgroupBarrier();").unwrap();
    check(
        "",
        "for (var i = 0u; i < SIZE; i++) { if chosen > i { y[local] = 1.0; } workgroupBarrier(); }",
    )
    .unwrap();
}

/// Compiles variants with Dawn and reports the file and line of each fault.
fn compile_for_browsers(variants: &[(recorded::Variant, Storage)]) -> Vec<String> {
    let sources: Vec<_> =
        variants.iter().map(|((kernel, _), storage)| Source::with(*kernel, *storage)).collect();
    let shaders = sources.iter().zip(variants);
    let shaders: Vec<_> = shaders
        .map(|(source, ((_, constants), _))| {
            (source.text.clone(), fitting(&source.text, constants))
        })
        .collect();
    let faults = dawn::compile(&shaders);
    assert_eq!(faults.len(), shaders.len());
    let faults = faults.into_iter().zip(sources.iter().zip(variants));
    faults
        .filter_map(|(fault, (source, ((kernel, constants), storage)))| {
            let dawn::Fault { line, message } = fault?;
            let place = if line > 0 {
                let (file, line) = source.locate(line);
                format!("{file}:{line}")
            } else {
                kernel.name().to_owned()
            };
            Some(format!("{place} {constants:?} {storage:?}: {message}"))
        })
        .collect()
}

#[test]
fn browsers_compile_every_variant() {
    if !dawn::is_installed() {
        return skip(&format!("{} is not set: use tests/browser", dawn::FOLDER));
    }
    // Cooperative matrices and 64-bit integers are not in WGSL. With emulated matrices the code
    // around them is compiled. Those of 16 by 16 need more memory than a browser grants.
    let emulated = Storage { emulated: true, single: true, ..Storage::default() };
    let variants = recorded::variants().into_iter().flat_map(|(kernel, constants)| {
        let mut storages = vec![emulated, Storage { tiles_8x4: true, ..emulated }];
        storages.push(Storage { fixed_step: true, ..emulated });
        // A kernel without maps has no half precision.
        if Source::of(kernel).text.contains("Map") {
            storages.push(Storage { half: true, ..emulated });
        }
        storages.into_iter().map(move |storage| ((kernel, constants.clone()), storage))
    });
    report(&compile_for_browsers(&variants.collect::<Vec<_>>()));
}

#[test]
fn what_browsers_refuse_is_found() {
    if !dawn::is_installed() {
        return skip(&format!("{} is not set: use tests/browser", dawn::FOLDER));
    }
    let kernel = |body: &str| {
        format!(
            "@group(0) @binding(0) var<storage, read_write> y: array<f32>;\n\
             override SIZE: u32 = 1u;\n\
             var<workgroup> tile: array<f32, SIZE>;\n\
             fn meet() {{ workgroupBarrier(); }}\n\
             @compute @workgroup_size(64)\n\
             fn main(@builtin(local_invocation_index) local: u32) {{\n{body}\n}}"
        )
    };
    let cases = [
        ("y[local] = tile[0];", 4.0, ""),
        ("y[local] = subgroupBroadcast(1.0, 0u);", 4.0, ""),
        ("if SIZE == 4u { meet(); }", 4.0, ""),
        ("if local < 4u { meet(); }", 4.0, "uniform control flow"),
        ("if y[0] > 0.0 { return; } workgroupBarrier();", 4.0, "uniform control flow"),
        ("if local < 4u { y[0] = subgroupBroadcast(1.0, 0u); }", 4.0, "uniform control flow"),
        ("let x: u32 = 1.0;", 4.0, "cannot convert"),
        ("let x = 4.0h;", 4.0, "f16"),
        // These depend on the value of the override.
        ("y[0] = f32(4u / (SIZE - 4u));", 4.0, "cannot be represented"),
        ("y[0] = tile[0];", 5000.0, "workgroup storage"),
        ("var a = array<f32, 4>(); y[0] = a[SIZE];", 4.0, "out of bounds"),
    ];
    let shaders = cases.map(|(body, size, _)| (kernel(body), vec![("SIZE", size)]));
    let faults = dawn::compile(&shaders);
    assert_eq!(faults.len(), cases.len());
    for ((body, _, what), fault) in cases.into_iter().zip(faults) {
        match fault {
            None => assert_eq!(what, "", "{body} is accepted"),
            Some(fault) => {
                let found = !what.is_empty() && fault.message.contains(what);
                assert!(found, "{body}: {}", fault.message);
            }
        }
    }
}
