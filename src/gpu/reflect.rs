//! Reads the bindings of a shader with naga. WGSL is the authority on bindings; Rust refers to them
//! by name only.

use naga::{AddressSpace, ArraySize, StorageAccess, TypeInner};

use super::kernels::{Kernel, Source};
use crate::error::{Error, Result};

/// The kind of a binding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// A uniform block: its fields' names and types.
    Uniform(Vec<(String, &'static str)>),
    /// A storage array.
    Storage {
        /// Whether the shader may write it.
        writable: bool,
        /// Whether its elements are in half precision.
        half: bool,
    },
}

/// One binding of a shader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// Name of the variable.
    pub name: String,
    /// `@binding` in group 0.
    pub index: u32,
    /// Minimum size in bytes.
    pub min_size: u64,
    /// Uniform or storage.
    pub role: Role,
}

/// A block of immediates: values that the commands of a dispatch contain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Immediates {
    /// Name of the variable.
    pub name: String,
    /// Size in bytes.
    pub size: u32,
    /// Names and types of its fields.
    pub fields: Vec<(String, &'static str)>,
}

/// A shader's interface.
#[derive(Clone, Debug)]
pub struct Reflection {
    /// Bindings of group 0, by index.
    pub bindings: Vec<Binding>,
    /// Its block of immediates, if it has one.
    pub immediates: Option<Immediates>,
    /// Number of invocations in a workgroup.
    pub workgroup_size: u32,
    /// Names of its `override` constants.
    pub overrides: Vec<String>,
    /// The parsed module.
    pub module: naga::Module,
}

impl Reflection {
    /// Parses a kernel and reads its bindings.
    ///
    /// # Errors
    /// If naga does not accept the text; the message names file and line.
    pub fn of(kernel: Kernel, source: &Source) -> Result<Self> {
        let module = naga::front::wgsl::parse_str(&source.text).map_err(|error| {
            let place = error
                .location(&source.text)
                .map_or((kernel.name(), 0), |at| source.locate(at.line_number as usize));
            Error::failed(format!("{}:{}: {error}", place.0, place.1))
        })?;
        let mut layouter = naga::proc::Layouter::default();
        layouter
            .update(module.to_ctx())
            .map_err(|error| Error::failed(format!("{}: {error}", kernel.name())))?;
        let (mut bindings, mut immediates) = (Vec::new(), None);
        for (_, variable) in module.global_variables.iter() {
            if variable.space == AddressSpace::Immediate {
                immediates = Some(Immediates {
                    name: variable.name.clone().unwrap_or_default(),
                    size: layouter[variable.ty].size,
                    fields: fields(&module, &module.types[variable.ty].inner),
                });
            }
            let Some(binding) = &variable.binding else { continue };
            let ty = &module.types[variable.ty];
            let min_size = match ty.inner {
                TypeInner::Array { size: ArraySize::Dynamic, stride, .. } => stride,
                _ => layouter[variable.ty].size,
            };
            let role = match variable.space {
                AddressSpace::Storage { access } => Role::Storage {
                    writable: access.contains(StorageAccess::STORE),
                    half: is_half(&module, &ty.inner),
                },
                _ => Role::Uniform(fields(&module, &ty.inner)),
            };
            let name = variable.name.clone().unwrap_or_default();
            bindings.push(Binding {
                name,
                index: binding.binding,
                min_size: u64::from(min_size),
                role,
            });
        }
        bindings.sort_by_key(|binding| binding.index);
        let entry = module
            .entry_points
            .first()
            .ok_or_else(|| Error::failed(format!("{}: no entry point", kernel.name())))?;
        let workgroup_size = entry.workgroup_size.iter().product();
        let overrides = module.overrides.iter().filter_map(|(_, item)| item.name.clone()).collect();
        Ok(Self { bindings, immediates, workgroup_size, overrides, module })
    }

    /// The binding called `name`.
    pub fn binding(&self, name: &str) -> Option<&Binding> {
        self.bindings.iter().find(|binding| binding.name == name)
    }
}

fn is_half(module: &naga::Module, inner: &TypeInner) -> bool {
    match *inner {
        TypeInner::Array { base, .. } => is_half(module, &module.types[base].inner),
        TypeInner::Scalar(scalar) | TypeInner::Vector { scalar, .. } => scalar == naga::Scalar::F16,
        _ => false,
    }
}

fn fields(module: &naga::Module, inner: &TypeInner) -> Vec<(String, &'static str)> {
    let TypeInner::Struct { members, .. } = inner else { return Vec::new() };
    let kind = |ty| match module.types[ty].inner {
        TypeInner::Scalar(naga::Scalar::U32) => "u32",
        TypeInner::Scalar(naga::Scalar::I32) => "i32",
        TypeInner::Scalar(naga::Scalar::F32) => "f32",
        TypeInner::Array { .. } => "array",
        _ => "other",
    };
    members
        .iter()
        .map(|member| (member.name.clone().unwrap_or_default(), kind(member.ty)))
        .collect()
}
