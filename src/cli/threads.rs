//! The threads of the CPU path.

use std::num::NonZeroUsize;
use std::sync::Mutex;

use crate::error::{Error, Result};

/// Threads beside those of the CPU path: for signals, for reading images ahead, and the driver's.
const OTHERS: usize = 6;

/// Starts the threads: `wanted` of them, else one for each core. If the system allows fewer, for
/// example under `ulimit -u` or in a container, it starts these and says so.
///
/// # Errors
/// If `wanted` is far more than the number of cores.
pub fn start(wanted: Option<NonZeroUsize>) -> Result<()> {
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    // More threads than cores do not make the CPU path faster. The limit only rules out mistakes.
    let most = (4 * cores).max(64);
    if let Some(wanted) = wanted.filter(|wanted| wanted.get() > most) {
        return Err(Error::usage(format!(
            "--threads {wanted} is too many for {cores} cores; give at most {most}"
        )));
    }
    // rayon's own variable.
    let usual = || std::env::var("RAYON_NUM_THREADS").ok()?.parse().ok().filter(|n| *n > 0);
    // Processes that train together on the same cores share them.
    let share = (cores / super::ranks::sharing_cores()).max(1);
    let wanted = wanted.map(NonZeroUsize::get).or_else(usual).unwrap_or(share);
    let allowed = allowed(wanted + OTHERS);
    let threads = wanted.min(allowed.saturating_sub(OTHERS)).max(1);
    if threads < wanted {
        errln!("note: the system allows {allowed} more threads; csae computes on {threads}");
    }
    rayon::ThreadPoolBuilder::new().num_threads(threads).build_global().map_err(|error| {
        Error::failed(format!("cannot start a thread ({error}); raise the limit of threads"))
    })
}

/// The number of threads that the system allows to start, at most `most`. rayon can only try once,
/// so threads are started for the count.
fn allowed(most: usize) -> usize {
    /// Bytes of the stack of a thread that only waits.
    const STACK: usize = 64 << 10;
    // Until all are started, they wait for this.
    let gate = Mutex::new(());
    let held = gate.lock();
    std::thread::scope(|scope| {
        let started = (0..most).take_while(|_| {
            let wait = || drop(gate.lock());
            std::thread::Builder::new().stack_size(STACK).spawn_scoped(scope, wait).is_ok()
        });
        let count = started.count();
        drop(held);
        count
    })
}
