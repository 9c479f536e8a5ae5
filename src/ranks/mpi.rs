//! Exchange by MPI.

use std::ffi::{c_int, c_void};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::launcher::{Launched, Launcher};
pub use super::mpi_library::{Loaded, all, load};
use super::{Transport, lost};
use crate::error::{Error, Result};

/// Bytes that one call sends to a rank at most: counts are 32-bit numbers.
const MOST: usize = 1 << 28;

/// For so long a wait polls without pause. Later it sleeps between polls, to leave the core to
/// others, for example while rank 0 validates.
const EAGER: Duration = Duration::from_millis(20);
const PAUSE: Duration = Duration::from_micros(200);

/// Whether a wait for other ranks should end, because the program was asked to end.
pub type GivesUp = fn() -> bool;

/// The connection to the other ranks. MPI allows one thread at a time to call it.
#[derive(Debug)]
pub struct Mpi {
    loaded: Loaded,
    gives_up: GivesUp,
    calls: Mutex<()>,
}

/// A buffer that is large enough for the status of every library.
type Status = [u64; 16];

/// Starts MPI. Returns the connection, and the rank and size that the library reports.
///
/// # Errors
/// If there is no library, or it is not that of the launcher.
pub fn begin(launched: Launched, gives_up: GivesUp) -> Result<Mpi> {
    /// `MPI_THREAD_SERIALIZED`, in every interface but that of MPI-5: there 2048.
    const SERIALIZED: c_int = 2;
    let loaded = load(Some(launched.by))?;
    let functions = loaded.functions;
    let serialized = if functions.world == 0x101 { 2048 } else { SERIALIZED };
    let (mut provided, mut rank, mut size) = (0, 0, 0);
    // SAFETY: the arguments are those of the standard; null stands for the command line.
    #[allow(unsafe_code, reason = "functions of the MPI library")]
    let status = unsafe {
        let (no_count, no_arguments) = (std::ptr::null_mut(), std::ptr::null_mut());
        match (functions.init)(no_count, no_arguments, serialized, &raw mut provided) {
            0 => match (functions.rank)(functions.world, &raw mut rank) {
                0 => (functions.size)(functions.world, &raw mut size),
                error => error,
            },
            error => error,
        }
    };
    let mpi = Mpi { loaded, gives_up, calls: Mutex::new(()) };
    if status != 0 {
        return Err(Error::failed(format!("{} could not start (error {status})", mpi.name())));
    }
    if (rank as usize, size as usize) != (launched.rank, launched.size) {
        mpi.close();
        let launcher = match launched.by {
            Launcher::OpenMpi => "Open MPI",
            Launcher::Mpich => "MPICH or a relative of it",
            Launcher::Pmix | Launcher::Own => "another MPI",
        };
        return Err(Error::usage(format!(
            "the launcher, of {launcher}, started {} processes, but {} sees {size}; use the mpirun \
             of that library, or set CSAE_MPI to the library of the launcher",
            launched.size,
            mpi.name()
        )));
    }
    Ok(mpi)
}

impl Mpi {
    /// Starts an exchange with `call` and waits for its end.
    fn exchange(&self, call: impl FnOnce(*mut u64) -> c_int) -> Result<()> {
        let _one = self.calls.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut request = 0_u64;
        let mut status = call(&raw mut request);
        let begun = Instant::now();
        while status == 0 {
            let mut arrived = 0;
            let mut about: Status = [0; 16];
            // SAFETY: the request is that of the call; `about` has room for every status.
            #[allow(unsafe_code, reason = "a function of the MPI library")]
            unsafe {
                status = (self.loaded.functions.test)(
                    &raw mut request,
                    &raw mut arrived,
                    about.as_mut_ptr().cast(),
                );
            }
            if status == 0 && arrived != 0 {
                return Ok(());
            }
            if begun.elapsed() < EAGER {
                std::thread::yield_now();
            } else if (self.gives_up)() {
                return Err(lost("another process no longer answers"));
            } else {
                std::thread::sleep(PAUSE);
            }
        }
        Err(lost(format!("the exchange with other processes failed (MPI error {status})")))
    }

    /// Exchanges pieces of at most [`MOST`] bytes with each rank. `apart`: whether the pieces that
    /// are sent to different ranks differ.
    fn in_pieces(&self, send: &[u8], receive: &mut [u8], apart: bool) -> Result<()> {
        let functions = self.loaded.functions;
        let call = if apart { functions.all_to_all } else { functions.all_gather };
        let size = if apart { 0 } else { receive.len() / send.len().max(1) };
        let exchange = |send: &[u8], receive: &mut [u8], each: usize| {
            let each = each as c_int;
            self.exchange(|request| {
                // SAFETY: both buffers hold `each` bytes for each rank (`send` of an all-gather:
                // `each` bytes), and live until the exchange has ended. If the caller gives up, the
                // program ends.
                #[allow(unsafe_code, reason = "a function of the MPI library")]
                unsafe {
                    call(
                        send.as_ptr().cast::<c_void>(),
                        each,
                        functions.byte,
                        receive.as_mut_ptr().cast::<c_void>(),
                        each,
                        functions.byte,
                        functions.world,
                        request,
                    )
                }
            })
        };
        let ranks = if apart { self.ranks()? } else { size };
        let each = receive.len() / ranks.max(1);
        if each <= MOST {
            return exchange(send, receive, each);
        }
        for start in (0..each).step_by(MOST) {
            let len = MOST.min(each - start);
            let piece = |bytes: &[u8]| -> Vec<u8> {
                bytes.chunks_exact(each).flat_map(|own| own[start..][..len].to_vec()).collect()
            };
            let (sent, mut got) = (piece(send), vec![0; len * ranks]);
            exchange(&sent, &mut got, len)?;
            for (own, got) in receive.chunks_exact_mut(each).zip(got.chunks_exact(len)) {
                own[start..][..len].copy_from_slice(got);
            }
        }
        Ok(())
    }

    fn ranks(&self) -> Result<usize> {
        let mut size = 0;
        // SAFETY: the arguments are those of the standard.
        #[allow(unsafe_code, reason = "a function of the MPI library")]
        let status =
            unsafe { (self.loaded.functions.size)(self.loaded.functions.world, &raw mut size) };
        if status == 0 { Ok(size as usize) } else { Err(lost("MPI does not know its size")) }
    }
}

impl Transport for Mpi {
    fn all_to_all(&self, send: &[u8], receive: &mut [u8]) -> Result<()> {
        self.in_pieces(send, receive, true)
    }

    fn all_gather(&self, send: &[u8], receive: &mut [u8]) -> Result<()> {
        self.in_pieces(send, receive, false)
    }

    fn broadcast(&self, bytes: &mut [u8]) -> Result<()> {
        let functions = self.loaded.functions;
        for piece in bytes.chunks_mut(MOST) {
            self.exchange(|request| {
                // SAFETY: the buffer lives until the exchange has ended, see above.
                #[allow(unsafe_code, reason = "a function of the MPI library")]
                unsafe {
                    (functions.broadcast)(
                        piece.as_mut_ptr().cast(),
                        piece.len() as c_int,
                        functions.byte,
                        0,
                        functions.world,
                        request,
                    )
                }
            })?;
        }
        Ok(())
    }

    fn name(&self) -> String {
        self.loaded.version()
    }

    fn close(&self) {
        // SAFETY: no exchange is under way.
        #[allow(unsafe_code, reason = "a function of the MPI library")]
        unsafe {
            (self.loaded.functions.finalize)();
        }
    }
}
