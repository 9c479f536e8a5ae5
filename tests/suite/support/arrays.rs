//! Array files.

use csae::internals::data::bundled;

use super::TempFolder;

/// An IDX file of bytes, `values` sevens, with the given sizes in its header.
pub fn idx(dims: &[u32], values: usize) -> Vec<u8> {
    let head = [0, 0, 8, dims.len() as u8].into_iter();
    let dims = dims.iter().flat_map(|dim| dim.to_be_bytes());
    head.chain(dims).chain(std::iter::repeat_n(7, values)).collect()
}

/// A NumPy file: its type (`|u1`, `<f4`), its shape (`3, 8, 8`) and its data.
pub fn npy(descr: &str, shape: &str, data: &[u8]) -> Vec<u8> {
    let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({shape}), }}");
    [b"\x93NUMPY\x01\0", &(header.len() as u16).to_le_bytes()[..], header.as_bytes(), data].concat()
}

/// The bundled digits as a NumPy file. Unlike the bundled set, a file can be streamed.
pub fn digits(folder: &TempFolder) -> String {
    let digits = bundled::load("digits").unwrap();
    let shape = format!("{}, 8, 8", digits.len());
    folder.write("digits.npy", npy("|u1", &shape, &digits.bytes))
}
