//! Writes safetensors files of floats without a second copy of 32-bit values in memory.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::Path;

use half::f16;
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};

use crate::error::{Error, Result};
use crate::files::Partial;

/// A tensor to be written.
#[derive(Clone, Debug)]
pub struct Tensor<'a> {
    /// Name, unique in its file.
    pub name: &'a str,
    /// Sizes of the dimensions.
    pub shape: Vec<usize>,
    /// The elements; the last dimension is contiguous.
    pub values: &'a [f32],
}

/// Writes `tensors` to `path` atomically. The header's metadata has one entry, `key` with `text`.
///
/// # Errors
/// If the file cannot be written.
///
/// # Panics
/// If a shape and a number of values differ.
pub fn write(path: &Path, tensors: Vec<Tensor<'_>>, key: &str, text: String) -> Result<()> {
    stage(path, tensors, key, text)?.finish()
}

/// As [`write()`], but the file gets its name only by [`Partial::finish`].
///
/// # Errors
/// If the temporary file cannot be written.
///
/// # Panics
/// If a shape and a number of values differ.
pub fn stage(path: &Path, tensors: Vec<Tensor<'_>>, key: &str, text: String) -> Result<Partial> {
    let (header, tensors) =
        begin(tensors, Dtype::F32, key, text).map_err(|error| error.at(path.display()))?;
    let mut file = Partial::create(path)?;
    file.write(&header)?;
    for Tensor { values, .. } in tensors {
        file.write(&bytes(values))?;
    }
    Ok(file)
}

/// The bytes of the file that [`write()`] writes.
///
/// # Errors
/// If the names and `text` are too long for a header.
///
/// # Panics
/// If a shape and a number of values differ.
pub fn encode(tensors: Vec<Tensor<'_>>, key: &str, text: String) -> Result<Vec<u8>> {
    let (mut file, tensors) = begin(tensors, Dtype::F32, key, text)?;
    for Tensor { values, .. } in tensors {
        file.extend_from_slice(&bytes(values));
    }
    Ok(file)
}

/// As [`encode()`], with values of 16 bits: they are rounded to the nearest.
///
/// # Errors
/// If the names and `text` are too long for a header.
///
/// # Panics
/// If a shape and a number of values differ.
pub fn encode_half(tensors: Vec<Tensor<'_>>, key: &str, text: String) -> Result<Vec<u8>> {
    let (mut file, tensors) = begin(tensors, Dtype::F16, key, text)?;
    for Tensor { values, .. } in tensors {
        file.extend(values.iter().flat_map(|x| f16::from_f32(*x).to_le_bytes()));
    }
    Ok(file)
}

/// The first bytes of a file, and the tensors in the order in which they follow.
fn begin<'t>(
    mut tensors: Vec<Tensor<'t>>,
    dtype: Dtype,
    key: &str,
    text: String,
) -> Result<(Vec<u8>, Vec<Tensor<'t>>)> {
    // The order of `safetensors::serialize`, so that files are equal to those that it writes.
    tensors.sort_by(|a, b| a.name.cmp(b.name));
    let mut end = 0;
    let entries = tensors.iter().map(|Tensor { name, shape, values }| {
        let start = end;
        end += values.len() * dtype.bitsize() / 8;
        let info = TensorInfo { dtype, shape: shape.clone(), data_offsets: (start, end) };
        ((*name).to_owned(), info)
    });
    let entries = entries.collect();
    let metadata = Metadata::new(Some(HashMap::from([(key.to_owned(), text)])), entries)
        .expect("shapes fit their values");
    let mut header = serde_json::to_vec(&metadata).expect("a header is JSON");
    // Padded with spaces, so that the values are aligned to 8 bytes.
    header.resize(header.len().next_multiple_of(8), b' ');
    // Readers refuse longer headers.
    if header.len() > 100_000_000 {
        return Err(Error::failed(
            "the names and descriptions are too long for a safetensors file",
        ));
    }
    let mut first = (header.len() as u64).to_le_bytes().to_vec();
    first.append(&mut header);
    Ok((first, tensors))
}

/// The values as little-endian bytes; a copy only where memory has the other order.
pub fn bytes(values: &[f32]) -> Cow<'_, [u8]> {
    if cfg!(target_endian = "little") {
        Cow::Borrowed(bytemuck::cast_slice(values))
    } else {
        Cow::Owned(values.iter().flat_map(|x| x.to_le_bytes()).collect())
    }
}

#[cfg(test)]
mod tests {
    use safetensors::tensor::TensorView;

    use super::*;
    use crate::testing::Folder;

    #[test]
    fn files_are_those_of_the_library() {
        let folder = Folder::new("tensor-file");
        let path = folder.path.join("x.safetensors");
        let values: Vec<f32> = (0..7).map(|i| i as f32 - 2.5).collect();
        for text in ["{}", "{\"a\": 1}", ""] {
            let tensor =
                |name, shape: &[usize], values| Tensor { name, shape: shape.to_vec(), values };
            let tensors = vec![
                tensor("z", &[2, 3], &values[..6]),
                tensor("b", &[7], &values),
                tensor("empty", &[0, 4], &[]),
            ];
            let views = tensors.iter().map(|Tensor { name, shape, values }| {
                let data = bytemuck::cast_slice(values);
                (*name, TensorView::new(Dtype::F32, shape.clone(), data).unwrap())
            });
            let metadata = HashMap::from([("key".to_owned(), text.to_owned())]);
            let wanted = safetensors::serialize(views, Some(metadata)).unwrap();
            assert_eq!(encode(tensors.clone(), "key", text.to_owned()).unwrap(), wanted);
            write(&path, tensors, "key", text.to_owned()).unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), wanted, "{text:?}");
        }
    }

    #[test]
    fn a_staged_file_has_its_name_only_when_finished() {
        let folder = Folder::new("staged-file");
        let path = folder.path.join("x.safetensors");
        let tensor = || vec![Tensor { name: "x", shape: vec![2], values: &[1.0, 2.0] }];
        drop(stage(&path, tensor(), "key", String::new()).unwrap());
        assert_eq!(std::fs::read_dir(&folder.path).unwrap().count(), 0);
        let staged = stage(&path, tensor(), "key", String::new()).unwrap();
        assert!(!path.exists());
        staged.finish().unwrap();
        assert!(path.exists());
    }

    #[test]
    #[should_panic(expected = "shapes fit their values")]
    fn a_wrong_shape_is_a_bug() {
        let tensor = Tensor { name: "x", shape: vec![3], values: &[1.0, 2.0] };
        let _ = stage(Path::new("x"), vec![tensor], "key", String::new());
    }
}
