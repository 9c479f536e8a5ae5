//! Whether an adapter's cooperative matrices compute correctly. They are an experimental feature of
//! wgpu, so kernels use them by default only after this check, once for each driver.

use super::{Case, built_in, compare, execute};
use crate::cache;
use crate::device::Device;
use crate::error::Result;
use crate::files;
use crate::gpu::Choice;

/// The operations whose products can run on cooperative matrices.
const OPERATIONS: [&str; 3] = ["conv2d", "conv_transpose2d", "linear"];
/// What the cache holds if all cases passed.
const PASSED: &str = "passed";

/// Whether a case is one of the operations whose products can run on cooperative matrices.
pub fn is_product(case: &Case) -> bool {
    OPERATIONS.contains(&case.op.as_str())
}

/// Runs the built-in cases of matrix products in half precision with the `_matrix` kernels. Returns
/// the first fault, or `None` if all cases pass.
///
/// # Errors
/// If the answers cannot be computed.
pub fn check_units(device: &mut Device) -> Result<Option<String>> {
    let of = |device: &mut Device, choice| {
        if let Some(gpu) = device.as_gpu() {
            gpu.choice = choice;
        }
    };
    for case in built_in().into_iter().filter(is_product) {
        let case = case.halved()?;
        of(device, Choice::Matrix);
        let fault = fault(device, &case);
        of(device, Choice::Auto);
        if fault.is_some() {
            return Ok(fault);
        }
    }
    Ok(None)
}

fn fault(device: &mut Device, case: &Case) -> Option<String> {
    match execute(device, case) {
        Ok(found) => {
            let wrong = compare(case, &found).into_iter().find(|comparison| !comparison.passed)?;
            Some(format!("{}: {} differs by {:.1e}", case.id(), wrong.output, wrong.error))
        }
        Err(error) => Some(format!("{}: {error}", case.id())),
    }
}

/// As [`check_units`], with the answer of the cache if it has one for the device and this version
/// of the program. `start` is called before the cases run. Without a cache folder nothing runs,
/// since the check would delay every start; the answer is then that it was not checked.
///
/// # Errors
/// If the answers cannot be computed, or the cache cannot be written.
pub fn check_units_once(device: &mut Device, start: &dyn Fn()) -> Result<Option<String>> {
    let identity = format!("{}, csae {}", device.identity(), env!("CARGO_PKG_VERSION"));
    let Some(path) = cache::file("matrices", &identity, "txt") else {
        return Ok(Some(format!("not checked, because {} is off", cache::VARIABLE)));
    };
    if let Ok(known) = files::read_text(&path) {
        return Ok((known != PASSED).then_some(known));
    }
    start();
    let found = check_units(device)?;
    path.parent().map_or(Ok(()), files::make_folder)?;
    files::write_atomically(&path, found.as_deref().unwrap_or(PASSED).as_bytes())?;
    Ok(found)
}
