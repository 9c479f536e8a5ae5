//! Allocation of large buffers. Without memory for one it returns an error, where `vec!` ends the
//! process.

use std::cell::Cell;

use bytemuck::Zeroable;

use super::free;
use crate::error::{Error, Result};

thread_local! {
    /// Whether this thread handles an allocation that fails. Constant and without a destructor, so
    /// that an allocator can read it.
    static HANDLES_FAILURE: Cell<bool> = const { Cell::new(false) };
}

/// Whether the allocation that this thread makes now can fail without ending the process. A global
/// allocator asks this, see the program's (`cli/allocator.rs`).
pub fn failure_is_handled() -> bool {
    HANDLES_FAILURE.get()
}

/// Runs `allocate`, which handles the failure of its allocation.
fn handling_failure<T>(allocate: impl FnOnce() -> T) -> T {
    HANDLES_FAILURE.set(true);
    let result = allocate();
    HANDLES_FAILURE.set(false);
    result
}

/// The error for `len` elements of `T` that could not be allocated.
fn refused<T>(len: usize, what: &str) -> Error {
    let mib = |bytes: u64| bytes.div_ceil(1 << 20);
    let needed = mib((len as u64).saturating_mul(size_of::<T>() as u64));
    let free = free().map_or(String::new(), |free| format!(" ({} MiB are free)", mib(free)));
    Error::failed(format!(
        "not enough memory: {needed} MiB for {what} could not be allocated{free}; use smaller \
         images, a smaller batch or fewer threads, or allow the process more memory"
    ))
}

/// `len` zeros. The memory is taken from the system when it is first written, as with `vec!`.
///
/// # Errors
/// If there is not enough memory. `what` names what the buffer is for.
pub fn zeroed<T: Zeroable>(len: usize, what: &str) -> Result<Vec<T>> {
    handling_failure(|| bytemuck::allocation::try_zeroed_vec(len))
        .map_err(|()| refused::<T>(len, what))
}

/// An empty vector with room for exactly `len` elements.
///
/// # Errors
/// As [`zeroed`].
pub fn reserved<T>(len: usize, what: &str) -> Result<Vec<T>> {
    let mut vec = Vec::new();
    handling_failure(|| vec.try_reserve_exact(len)).map_err(|_| refused::<T>(len, what))?;
    Ok(vec)
}

/// Makes room for `more` elements in a vector that grows repeatedly.
///
/// # Errors
/// As [`zeroed`].
pub fn grow<T>(vec: &mut Vec<T>, more: usize, what: &str) -> Result<()> {
    let len = vec.len().saturating_add(more);
    handling_failure(|| vec.try_reserve(more)).map_err(|_| refused::<T>(len, what))
}

/// A copy of a slice.
///
/// # Errors
/// As [`zeroed`].
pub fn copied<T: Copy>(from: &[T], what: &str) -> Result<Vec<T>> {
    let mut copy = reserved(from.len(), what)?;
    copy.extend_from_slice(from);
    Ok(copy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    /// More than any address space, but less than the limit of a `Vec`, which panics.
    const TOO_MANY: usize = 1 << 59;

    #[test]
    fn too_large_a_buffer_is_an_error() {
        let errors = [
            zeroed::<f32>(TOO_MANY, "the maps of layer code").unwrap_err(),
            reserved::<f32>(TOO_MANY, "the maps of layer code").unwrap_err(),
            zeroed::<f64>(usize::MAX, "the maps of layer code").unwrap_err(),
        ];
        for error in errors {
            assert_eq!(error.kind, ErrorKind::Failed);
            let text = error.to_string();
            assert!(text.contains(" MiB for the maps of layer code"), "{text}");
            assert!(text.contains("a smaller batch"), "{text}");
        }
        assert!(!failure_is_handled());
    }

    #[test]
    fn buffers_have_their_length() {
        assert_eq!(zeroed::<f32>(3, "zeros").unwrap(), [0.0; 3]);
        let vec = reserved::<u8>(5, "bytes").unwrap();
        assert!(vec.is_empty() && vec.capacity() >= 5);
        assert_eq!(copied(&[1, 2], "numbers").unwrap(), [1, 2]);
        let mut vec = vec![1_u8];
        grow(&mut vec, 100, "bytes").unwrap();
        assert!(vec == [1] && vec.capacity() > 100);
        assert!(grow(&mut vec, TOO_MANY, "bytes").is_err());
    }
}
