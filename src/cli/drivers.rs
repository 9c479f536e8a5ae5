//! Hides what graphics drivers print on standard error while adapters are listed and opened: they
//! look for displays, and complain over SSH, in containers and on clusters.

/// The folder of Wayland's sockets. OpenGL's drivers look for a display there, and complain on
/// standard error if the variable is missing or names no absolute path: over SSH, in containers and
/// on clusters. [`quietly`] hides other messages, but with --verbose it does not.
#[cfg(unix)]
const DISPLAYS: &str = "XDG_RUNTIME_DIR";

/// Names a folder without displays if none is named, so that drivers find none in silence. Call it
/// before other threads start: it changes the environment.
#[cfg(unix)]
pub fn without_displays() {
    if std::env::var_os(DISPLAYS).is_some_and(|folder| std::path::Path::new(&folder).is_absolute())
    {
        return;
    }
    // A temporary folder that is not absolute would bring the complaint back.
    let folder = Some(std::env::temp_dir()).filter(|folder| folder.is_absolute());
    // SAFETY: no other thread runs yet that could read the environment.
    #[allow(unsafe_code, reason = "the standard library has no safe way to set a variable")]
    unsafe {
        std::env::set_var(DISPLAYS, folder.unwrap_or_else(|| "/".into()));
    }
}

/// Other systems have no such variable.
#[cfg(not(unix))]
pub const fn without_displays() {}

/// Runs `work` without the messages of drivers. With `verbose` they are shown.
pub fn quietly<R>(verbose: bool, work: impl FnOnce() -> R) -> R {
    let _hidden = (!verbose).then(Hidden::new);
    work()
}

/// Standard error leads nowhere while this exists.
#[cfg(unix)]
struct Hidden {
    /// A copy of standard error. `None` if it could not be replaced.
    kept: Option<std::os::fd::OwnedFd>,
}

#[cfg(unix)]
impl Hidden {
    fn new() -> Self {
        use std::os::fd::AsFd;
        let kept = std::io::stderr().as_fd().try_clone_to_owned();
        let nowhere = std::fs::OpenOptions::new().write(true).open("/dev/null");
        let kept = match (kept, nowhere) {
            (Ok(kept), Ok(nowhere)) => replace(&nowhere).then_some(kept),
            _ => None,
        };
        if let Some(kept) = &kept {
            use std::os::fd::AsRawFd;
            MESSAGES.store(kept.as_raw_fd(), std::sync::atomic::Ordering::Relaxed);
        }
        Self { kept }
    }
}

/// The descriptor on which the program's own messages are seen, also while those of drivers are
/// hidden. It allocates nothing.
#[cfg(unix)]
pub fn messages() -> std::os::fd::RawFd {
    MESSAGES.load(std::sync::atomic::Ordering::Relaxed)
}

#[cfg(unix)]
static MESSAGES: std::sync::atomic::AtomicI32 =
    std::sync::atomic::AtomicI32::new(libc::STDERR_FILENO);

/// Makes standard error lead to another file. Returns whether that worked.
#[cfg(unix)]
#[allow(unsafe_code, reason = "the standard library has no safe way to replace standard error")]
fn replace(by: &impl std::os::fd::AsRawFd) -> bool {
    // SAFETY: both descriptors are open, and the call changes no memory of the program.
    unsafe { libc::dup2(by.as_raw_fd(), libc::STDERR_FILENO) >= 0 }
}

#[cfg(unix)]
impl Drop for Hidden {
    fn drop(&mut self) {
        if let Some(kept) = &self.kept {
            replace(kept);
            MESSAGES.store(libc::STDERR_FILENO, std::sync::atomic::Ordering::Relaxed);
        }
        // The message of the panic is hidden, too.
        if std::thread::panicking() {
            errln!("csae: opening the graphics drivers failed; see its messages with --verbose");
        }
    }
}

/// Drivers of other systems print nothing on standard error.
#[cfg(not(unix))]
struct Hidden;

#[cfg(not(unix))]
impl Hidden {
    const fn new() -> Self {
        Self
    }
}
