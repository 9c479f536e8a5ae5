//! Ctrl-C and other requests to end the program. The first request lets the step finish and write a
//! checkpoint. Another one, at least a second later, ends the program at once.
//!
//! `timeout` and cluster schedulers can send two signals within milliseconds, to the process and to
//! its group. These are one request.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

/// Number of the signal that made the first request; 0 without one.
static SIGNAL: AtomicU8 = AtomicU8::new(0);
/// When the first request came.
static FIRST: Mutex<Option<Instant>> = Mutex::new(None);

/// The number of SIGINT, which Ctrl-C sends.
const INTERRUPT: u8 = 2;
/// A request within this time of the first is the same request.
const AGAIN: Duration = Duration::from_secs(1);
/// For so long a stopping process waits for others that train with it.
const PATIENCE: Duration = Duration::from_secs(5);

/// Exit status of a command that a signal stopped: 128 + the signal, as in shells.
pub fn status() -> u8 {
    let own = signal();
    let of_another = super::ranks::group().map_or(0, |group| group.signal());
    128 + [own, of_another].into_iter().find(|signal| *signal > 0).unwrap_or(INTERRUPT)
}

/// Number of the signal that asked this process to end; 0 without one.
pub fn signal() -> u8 {
    SIGNAL.load(Ordering::SeqCst)
}

/// Whether the program was asked to end so long ago that it should not wait for other processes.
pub fn overdue() -> bool {
    requested() && first().is_some_and(|first| first.elapsed() >= PATIENCE)
}

fn first() -> std::sync::MutexGuard<'static, Option<Instant>> {
    FIRST.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// A command that stopped because of Ctrl-C.
#[derive(Debug)]
pub struct Interrupted(pub String);

impl std::fmt::Display for Interrupted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Interrupted {}

/// Handles requests to end: the first only sets [`requested`].
pub fn watch() {
    if let Err(error) = system::handle() {
        errln!("note: Ctrl-C will lose the steps since the last checkpoint: {error}");
    }
}

/// Whether the program was asked to end.
pub fn requested() -> bool {
    signal() > 0
}

/// A signal has come. `insists`: whether it ends the program at once if it comes again.
fn received(signal: u8, insists: bool) {
    let mut first = first();
    match *first {
        None => {
            *first = Some(Instant::now());
            SIGNAL.store(signal, Ordering::SeqCst);
            errln!(
                "finishing this step and saving; press Ctrl-C again after a second to stop at once"
            );
        }
        Some(first) if insists && first.elapsed() >= AGAIN => {
            std::process::exit(i32::from(128 + signal));
        }
        Some(_) => {}
    }
}

#[cfg(unix)]
mod system {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
    use signal_hook::iterator::Signals;

    /// The signals that end the program, and whether they end it at once if they come again. The
    /// limit of processor time sends SIGXCPU every second.
    const SIGNALS: [(i32, bool); 6] = [
        (SIGINT, true),
        (SIGTERM, true),
        (SIGHUP, true),
        (SIGUSR1, false),
        (SIGUSR2, false),
        (libc::SIGXCPU, false),
    ];

    /// Handles the signals on a thread. Signals that the program ignores stay ignored, as `nohup`
    /// wants it.
    pub fn handle() -> std::io::Result<()> {
        let wanted = SIGNALS.iter().map(|(signal, _)| *signal);
        let mut signals = Signals::new(wanted.filter(|signal| !is_ignored(*signal)))?;
        std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
            for signal in signals.forever() {
                let insists = SIGNALS.contains(&(signal, true));
                super::received(signal as u8, insists);
            }
        })?;
        Ok(())
    }

    fn is_ignored(signal: i32) -> bool {
        // SAFETY: the call only writes how the signal is handled into `now`, a plain struct.
        #[allow(unsafe_code, reason = "the standard library cannot ask how a signal is handled")]
        unsafe {
            let mut now: libc::sigaction = std::mem::zeroed();
            libc::sigaction(signal, std::ptr::null(), &raw mut now) == 0
                && now.sa_sigaction == libc::SIG_IGN
        }
    }
}

#[cfg(not(unix))]
mod system {
    /// Handles Ctrl-C and the closing of the console.
    pub fn handle() -> Result<(), ctrlc::Error> {
        ctrlc::set_handler(|| super::received(super::INTERRUPT, true))
    }
}
