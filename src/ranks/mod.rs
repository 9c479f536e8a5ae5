//! Processes that train a model together, each on its own device. A *rank* is one of them, counted
//! from 0, as in MPI (Message Passing Interface).
//!
//! A [`Group`] exchanges bytes between all ranks. Every rank makes the same calls in the same
//! order. The bytes travel by an MPI library that is loaded at run time ([`mpi`]), or over sockets
//! between processes that csae itself starts on one machine ([`sockets`]).

mod agreement;
#[cfg(feature = "cli")]
pub mod launcher;
#[cfg(all(feature = "cli", unix))]
pub mod mpi;
#[cfg(all(feature = "cli", unix))]
mod mpi_library;
#[cfg(feature = "cli")]
pub mod sockets;

#[cfg(test)]
mod tests;

use std::fmt::Debug;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Mutex, PoisonError};

pub use agreement::Ready;

use crate::error::Result;
#[cfg(feature = "cli")]
use crate::error::{Error, ErrorKind};

/// Exchanges bytes between the ranks of a group.
pub trait Transport: Debug + Send + Sync {
    /// Sends the n-th of equal pieces of `send` to rank n, and writes the piece from rank n to the
    /// n-th piece of `receive`.
    ///
    /// # Errors
    /// If another rank has ended, or the caller gave up.
    fn all_to_all(&self, send: &[u8], receive: &mut [u8]) -> Result<()>;

    /// Sends `send` to every rank, and writes what rank n sent to the n-th piece of `receive`.
    ///
    /// # Errors
    /// If another rank has ended, or the caller gave up.
    fn all_gather(&self, send: &[u8], receive: &mut [u8]) -> Result<()>;

    /// Sends the bytes of rank 0 to all others.
    ///
    /// # Errors
    /// If another rank has ended, or the caller gave up.
    fn broadcast(&self, bytes: &mut [u8]) -> Result<()>;

    /// What carries the bytes, with its version.
    fn name(&self) -> String;

    /// Closes the connection. Every rank calls it before it ends.
    fn close(&self) {}
}

/// All processes of a training, seen from one of them.
#[derive(Debug)]
pub struct Group {
    /// This process, counted from 0.
    pub rank: usize,
    /// Number of processes.
    pub size: usize,
    transport: Box<dyn Transport>,
    /// What the ranks run on.
    places: Vec<Place>,
    /// Memory for sums, kept between them.
    buffers: Mutex<Buffers>,

    /// Whether an exchange has failed, or the connection is closed.
    lost: AtomicBool,
    /// Whether all ranks have agreed to train.
    agreed: AtomicBool,
    /// Returns the number of the signal that asked this process to end, or 0.
    signal: fn() -> u8,
    /// The largest number of a signal that asked any rank to end, or 0.
    noted: AtomicU8,
}

/// What a sum of gradients sends and receives.
#[derive(Debug, Default)]
struct Buffers {
    send: Vec<f32>,
    received: Vec<f32>,
    sum: Vec<f32>,
}

/// The machine of a rank, and the processor cores that it can use.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    host: String,
    cores: Vec<u8>,
}

impl Place {
    fn bytes(&self) -> Vec<u8> {
        [self.host.as_bytes(), &[0], &self.cores].concat()
    }

    fn of(bytes: &[u8]) -> Self {
        let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
        let host = String::from_utf8_lossy(&bytes[..end]).into_owned();
        Self { host, cores: bytes.get(end + 1..).unwrap_or_default().to_vec() }
    }
}

impl Group {
    /// Meets the other ranks. `host` is the name of this machine, and `cores` says which of its
    /// cores this process can use, in any form. `signal` returns the number of the signal that
    /// asked this process to end, or 0.
    ///
    /// # Errors
    /// If another rank has ended.
    pub fn meet(
        rank: usize,
        size: usize,
        transport: Box<dyn Transport>,
        (host, cores): (String, Vec<u8>),
        signal: fn() -> u8,
    ) -> Result<Self> {
        let mut group = Self {
            rank,
            size,
            transport,
            places: Vec::new(),
            buffers: Mutex::default(),
            lost: AtomicBool::new(false),
            agreed: AtomicBool::new(false),
            signal,
            noted: AtomicU8::new(0),
        };
        let own = Place { host, cores }.bytes();
        group.places = group.gather(&own)?.iter().map(|bytes| Place::of(bytes)).collect();
        Ok(group)
    }

    /// Whether this is rank 0, which writes all files and messages.
    pub const fn leads(&self) -> bool {
        self.rank == 0
    }

    /// The number of the signal that asked this process to end, or 0.
    pub fn own_signal(&self) -> u8 {
        (self.signal)()
    }

    /// Records the signal that asked a rank to end.
    pub fn note_signal(&self, signal: u8) {
        self.noted.fetch_max(signal, Ordering::SeqCst);
    }

    /// The number of a signal that asked any rank to end, or 0.
    pub fn signal(&self) -> u8 {
        self.noted.load(Ordering::SeqCst)
    }

    /// What carries the bytes.
    pub fn transport(&self) -> String {
        self.transport.name()
    }

    /// The machine of a rank.
    pub fn host(&self, rank: usize) -> &str {
        &self.places[rank].host
    }

    /// The number of this rank among those of the same machine, from 0.
    pub fn local_rank(&self) -> usize {
        let own = &self.places[self.rank].host;
        self.places[..self.rank].iter().filter(|place| place.host == *own).count()
    }

    /// Number of ranks that use the same cores as this one.
    pub fn sharing_cores(&self) -> usize {
        self.places.iter().filter(|place| **place == self.places[self.rank]).count()
    }

    /// A rank for messages, with its machine if there are several.
    pub fn name_of(&self, rank: usize) -> String {
        let several = self.places.iter().any(|place| place.host != self.places[0].host);
        let host = if several { format!(" ({})", self.host(rank)) } else { String::new() };
        format!("rank {rank} of {}{host}", self.size)
    }

    /// Sends the bytes of each rank to every rank. The numbers of bytes can differ.
    ///
    /// # Errors
    /// If another rank has ended.
    pub fn gather(&self, bytes: &[u8]) -> Result<Vec<Vec<u8>>> {
        let lengths = self.gather_equal((bytes.len() as u64).to_le_bytes().to_vec())?;
        let lengths: Vec<usize> = lengths
            .chunks_exact(8)
            .map(|length| u64::from_le_bytes(length.try_into().expect("8 bytes")) as usize)
            .collect();
        let longest = lengths.iter().copied().max().unwrap_or(0);
        let mut padded = bytes.to_vec();
        padded.resize(longest, 0);
        let all = self.gather_equal(padded)?;
        let each = lengths.iter().enumerate();
        Ok(each.map(|(rank, length)| all[rank * longest..][..*length].to_vec()).collect())
    }

    /// Sends the same number of bytes of each rank to every rank.
    ///
    /// # Errors
    /// If another rank has ended.
    pub fn gather_equal(&self, bytes: Vec<u8>) -> Result<Vec<u8>> {
        let mut all = vec![0; bytes.len() * self.size];
        if bytes.is_empty() {
            return Ok(all);
        }
        let done = self.transport.all_gather(&bytes, &mut all);
        Ok(self.kept(done, (bytes, all))?.1)
    }

    /// Returns the bytes of rank 0, on every rank. The length must be the same on all.
    ///
    /// # Errors
    /// If another rank has ended.
    pub fn broadcast(&self, mut bytes: Vec<u8>) -> Result<Vec<u8>> {
        if bytes.is_empty() {
            return Ok(bytes);
        }
        let done = self.transport.broadcast(&mut bytes);
        self.kept(done, bytes)
    }

    /// The buffers of an exchange that succeeded. After one that did not, another rank can still
    /// write into them, so their memory must stay.
    fn kept<T>(&self, done: Result<()>, buffers: T) -> Result<T> {
        match done {
            Ok(()) => Ok(buffers),
            Err(error) => {
                self.lost.store(true, Ordering::SeqCst);
                std::mem::forget(buffers);
                Err(error)
            }
        }
    }

    /// The sum of `parts` and of the parts of all other ranks, in the order of ranks and then of
    /// parts. All parts have the same length, and all ranks the same number of parts.
    ///
    /// Each rank sums a slice of the elements over all parts, and then gets the slices of the
    /// others. So the sum is the same on every rank, and equals that of one process which adds one
    /// part after another.
    ///
    /// # Errors
    /// If another rank has ended.
    pub fn sum_in_order(&self, parts: &[Vec<f32>]) -> Result<Vec<f32>> {
        let (own, len) = (parts.len(), parts.first().map_or(0, Vec::len));
        let slice = len.div_ceil(self.size);
        let kept =
            std::mem::take(&mut *self.buffers.lock().unwrap_or_else(PoisonError::into_inner));
        let Buffers { mut send, mut received, mut sum } = kept;
        // All elements that someone reads are written anew.

        for buffer in [&mut send, &mut received] {
            buffer.resize(self.size * own * slice, 0.0);
        }
        for (at, part) in parts.iter().enumerate() {
            for (to, values) in part.chunks(slice.max(1)).enumerate() {
                send[(to * own + at) * slice..][..values.len()].copy_from_slice(values);
            }
        }
        let done = self
            .transport
            .all_to_all(bytemuck::cast_slice(&send), bytemuck::cast_slice_mut(&mut received));
        let (send, received) = self.kept(done, (send, received))?;
        sum.clear();
        sum.extend_from_slice(&received[..slice]);
        for part in received.chunks_exact(slice.max(1)).skip(1) {
            sum.iter_mut().zip(part).for_each(|(sum, value)| *sum += value);
        }
        let mut all = vec![0.0_f32; self.size * slice];
        let done = self
            .transport
            .all_gather(bytemuck::cast_slice(&sum), bytemuck::cast_slice_mut(&mut all));
        let (sum, mut all) = self.kept(done, (sum, all))?;
        *self.buffers.lock().unwrap_or_else(PoisonError::into_inner) =
            Buffers { send, received, sum };
        all.truncate(len);

        Ok(all)
    }

    /// Whether an exchange has failed. No other one is possible then.
    pub fn is_lost(&self) -> bool {
        self.lost.load(Ordering::SeqCst)
    }

    /// Closes the connection to the other ranks. After a failed exchange, or a second time, it does
    /// nothing.
    pub fn close(&self) {
        if !self.lost.swap(true, Ordering::SeqCst) {
            self.transport.close();
        }
    }
}

/// The error when other ranks no longer answer.
#[cfg(feature = "cli")]
fn lost(what: impl std::fmt::Display) -> Error {
    Error::failed(what.to_string()).of(ErrorKind::Rank)
}

/// The name of this machine.
#[cfg(feature = "cli")]
pub fn host() -> String {
    let read = |path: &str| std::fs::read_to_string(path).ok();
    let name = read("/proc/sys/kernel/hostname")
        .or_else(|| read("/etc/hostname"))
        .or_else(|| std::env::var("HOSTNAME").ok())
        .or_else(|| std::env::var("COMPUTERNAME").ok());
    name.map_or_else(|| "this machine".to_owned(), |name| name.trim().to_owned())
}

/// Which cores this process can use, in the form of the system. Empty if it does not say.
#[cfg(feature = "cli")]
pub fn cores() -> Vec<u8> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    list.unwrap_or_default().trim().as_bytes().to_vec()
}
