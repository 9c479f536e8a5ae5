//! Attributes by which NetCDF, MATLAB and h5py describe arrays.

use hdf5_reader::Dataset;
use hdf5_reader::group::Group;

use crate::data::numbers::{Element, Result};
use crate::error::Error;

/// The text of an attribute.
fn text(dataset: &Dataset, name: &str) -> Option<String> {
    dataset.attribute(name).ok()?.read_string().ok()
}

/// The number of an attribute.
fn number(dataset: &Dataset, name: &str) -> Option<f64> {
    dataset.attribute(name).ok()?.read_as_f64().ok()
}

/// Whether a data set only describes others: the positions along an axis, or text of MATLAB.
pub(super) fn is_helper(dataset: &Dataset) -> bool {
    text(dataset, "CLASS").is_some_and(|class| class == "DIMENSION_SCALE")
        || matlab_class(dataset).is_some_and(|class| class == "char")
}

/// The class of a MATLAB array, such as `double`.
pub(super) fn matlab_class(dataset: &Dataset) -> Option<String> {
    text(dataset, "MATLAB_class")
}

/// The type of the elements of a MATLAB array.
///
/// # Errors
/// If it does not contain numbers.
pub(super) fn matlab_element(dataset: &Dataset, class: &str, stored: Element) -> Result<Element> {
    if number(dataset, "MATLAB_empty").is_some_and(|empty| empty != 0.0) {
        return Err(Error::usage("the array is empty"));
    }
    match class {
        "logical" if stored.size() == 1 => Ok(Element::Bool),
        "char" | "cell" | "struct" | "function_handle" => Err(Error::usage(format!(
            "is a MATLAB {class}, not an array of numbers; choose or save an array"
        ))),
        _ => Ok(stored),
    }
}

/// The names of the axes: the dimensions of NetCDF, or the labels of h5py.
pub(super) fn axes(group: &Group, dataset: &Dataset) -> Vec<String> {
    let count = dataset.ndim();
    if let Some(names) = dimensions(group, dataset) {
        return names;
    }
    let labels = dataset.attribute("DIMENSION_LABELS").ok().and_then(|a| a.read_strings().ok());
    labels
        .filter(|names| names.len() == count && names.iter().any(|n| !n.is_empty()))
        .unwrap_or_default()
}

/// The names of the dimension scales that `DIMENSION_LIST` refers to.
fn dimensions(group: &Group, dataset: &Dataset) -> Option<Vec<String>> {
    let list = dataset.attribute("DIMENSION_LIST").ok()?;
    let each = dataset.vlen_reference_size();
    let width = usize::from(group.offset_size());
    let references = list.raw_data.chunks_exact(each);
    if references.len() != dataset.ndim() {
        return None;
    }
    let name = |reference: &[u8]| {
        let address = dataset.resolve_vlen_reference_bytes(reference, width).ok()?;
        let address = hdf5_reader::reference::resolve_object_reference(&address, width as u8);
        group.child_name_by_address(address.ok()?).ok()?
    };
    let names: Vec<String> = references.map(|r| name(r).unwrap_or_default()).collect();
    names.iter().any(|name| !name.is_empty()).then_some(names)
}

/// How stored numbers become values.
pub(super) struct Scaling {
    /// The type of the stored numbers.
    pub stored: Element,
    /// Scale and offset.
    pub linear: Option<(f64, f64)>,
    /// Stored numbers that mark a missing value.
    pub missing: Vec<f64>,
    pub notes: Vec<String>,
}

/// The scaling by the attributes of NetCDF and of the CF conventions: `scale_factor`, `add_offset`,
/// `_FillValue`, `missing_value` and `_Unsigned`.
pub(super) fn scaling(dataset: &Dataset, element: Element) -> Scaling {
    let (scale, offset) = (number(dataset, "scale_factor"), number(dataset, "add_offset"));
    // A fill value that is NaN, as xarray writes it, needs no conversion.
    let fill = |name| number(dataset, name).filter(|value: &f64| !value.is_nan());
    let fills = ["_FillValue", "missing_value"].map(|name| (name, fill(name)));
    let is_unsigned = text(dataset, "_Unsigned").is_some_and(|value| value == "true");
    let stored = match element {
        Element::I8 if is_unsigned => Element::U8,
        Element::I16 if is_unsigned => Element::U16,
        Element::I32 if is_unsigned => Element::U32,
        Element::I64 if is_unsigned => Element::U64,
        other => other,
    };
    let mut notes = Vec::new();
    for (name, value) in [("scale_factor", scale), ("add_offset", offset)] {
        notes.extend(value.map(|value| format!("{name} {value} applied")));
    }
    for (name, value) in fills {
        notes.extend(value.map(|value| format!("{name} {value} read as NaN")));
    }
    if stored != element {
        notes.push("stored as signed, read as unsigned (_Unsigned)".to_owned());
    }
    let ranges = ["valid_range", "valid_min", "valid_max"];
    if let Some(name) = ranges.iter().find(|name| dataset.attribute(name).is_ok()) {
        notes.push(format!("{name} not applied"));
    }
    // The fill value of unsigned numbers has their stored type, which is signed.
    let bits = stored.size() as i32 * 8;
    let wrapped = |value: f64| {
        if value < 0.0 && stored != element { value + f64::from(bits).exp2() } else { value }
    };
    let missing = fills.into_iter().filter_map(|(_, value)| value.map(wrapped)).collect();
    let linear = (scale.is_some() || offset.is_some())
        .then(|| (scale.unwrap_or(1.0), offset.unwrap_or(0.0)));
    Scaling { stored, linear, missing, notes }
}
