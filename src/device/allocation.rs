//! Buffers with an owner, and the buffers of a device.

use std::ops::Deref;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::error::{Error, Result};
use crate::view::{Buffer, View};

/// A buffer with an owner. It dereferences to the [`View`] of the whole buffer.
///
/// A buffer is in use until its owner and every [`super::Program`] compiled for it are dropped. The
/// device then frees the memory the next time that it allocates, compiles, runs or reads.
///
/// A [`View`] does not keep a buffer alive. A device refuses views of a buffer whose owner has been
/// dropped. To share a buffer, put its owner into an [`Arc`].
#[derive(Debug)]
#[must_use = "the buffer is freed when its owner is dropped"]
pub struct Allocation {
    view: View,
    lease: Arc<Lease>,
}

impl Deref for Allocation {
    type Target = View;

    fn deref(&self) -> &View {
        &self.view
    }
}

impl Allocation {
    /// Size of the buffer on its device, in bytes.
    pub fn bytes(&self) -> u64 {
        self.lease.bytes
    }
}

/// Shared by the owner of a buffer and the programs that use it. When the last of them is dropped,
/// the buffer is returned.
#[derive(Debug)]
pub(super) struct Lease {
    buffer: Buffer,
    bytes: u64,
    returned: Arc<Returned>,
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.returned.lock().push((self.buffer, self.bytes));
    }
}

/// Returned buffers that the device has not freed yet, with their sizes in bytes.
#[derive(Debug, Default)]
struct Returned(Mutex<Vec<(Buffer, u64)>>);

impl Returned {
    fn lock(&self) -> MutexGuard<'_, Vec<(Buffer, u64)>> {
        // A panic cannot leave the list half changed: every access is a single push or pop.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The buffers of one device.
#[derive(Debug)]
pub(super) struct Buffers {
    /// Number of the device.
    pub(super) device: u32,
    entries: Vec<Entry>,
    /// Indices of entries whose buffer was freed.
    vacant: Vec<u32>,
    returned: Arc<Returned>,
}

#[derive(Debug, Default)]
struct Entry {
    generation: u32,
    lease: Weak<Lease>,
}

impl Buffers {
    /// Assigns a number to a new device, which has no buffers yet.
    pub(super) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(Buffer::FIRST_DEVICE);
        Self {
            device: NEXT.fetch_add(1, Ordering::Relaxed),
            entries: Vec::new(),
            vacant: Vec::new(),
            returned: Arc::default(),
        }
    }

    /// The handle of the next buffer. The handle is taken only when [`Buffers::own`] is called.
    pub(super) fn next(&self) -> Buffer {
        let index = self.vacant.last().map_or(self.entries.len(), |index| *index as usize);
        let generation = self.entries.get(index).map_or(0, |entry| entry.generation);
        Buffer { device: self.device, index: index as u32, generation }
    }

    /// Creates the owner of the buffer whose handle [`Buffers::next`] returned.
    pub(super) fn own(&mut self, view: View, bytes: u64) -> Allocation {
        let Buffer { index, generation, .. } = view.buffer;
        let lease =
            Arc::new(Lease { buffer: view.buffer, bytes, returned: Arc::clone(&self.returned) });
        let entry = Entry { generation, lease: Arc::downgrade(&lease) };
        if self.vacant.pop().is_some() {
            self.entries[index as usize] = entry;
        } else {
            self.entries.push(entry);
        }
        Allocation { view, lease }
    }

    /// Returns the lease of a buffer.
    ///
    /// # Errors
    /// If the buffer belongs to another device, or its owner has been dropped.
    pub(super) fn lease(&self, buffer: Buffer) -> Result<Arc<Lease>> {
        self.entry(buffer)?.lease.upgrade().ok_or_else(ownerless)
    }

    /// Fails if [`Buffers::lease`] fails.
    pub(super) fn check(&self, buffer: Buffer) -> Result<()> {
        match self.entry(buffer)?.lease.strong_count() {
            0 => Err(ownerless()),
            _ => Ok(()),
        }
    }

    fn entry(&self, buffer: Buffer) -> Result<&Entry> {
        if buffer.device != self.device {
            return Err(foreign(buffer));
        }
        let entry = self.entries.get(buffer.index as usize);
        entry.filter(|entry| entry.generation == buffer.generation).ok_or_else(ownerless)
    }

    /// Removes a buffer from the list of returned buffers; the caller frees its memory.
    pub(super) fn take_returned(&mut self) -> Option<Buffer> {
        let (buffer, _) = self.returned.lock().pop()?;
        // The new generation makes views of the old buffer invalid.
        let entry = &mut self.entries[buffer.index as usize];
        entry.generation = entry.generation.wrapping_add(1);
        self.vacant.push(buffer.index);
        Some(buffer)
    }

    /// Bytes of buffers that are returned but not freed yet.
    pub(super) fn returned_bytes(&self) -> u64 {
        self.returned.lock().iter().map(|(_, bytes)| bytes).sum()
    }
}

fn ownerless() -> Error {
    Error::failed(
        "a buffer is used after its owner was dropped; keep the `Allocation` or the `Store` as \
         long as its views are used",
    )
}

/// The error for a program, buffer or result of another device.
pub(super) fn elsewhere(what: &str) -> Error {
    Error::usage(format!("{what} belongs to another device; create it on this device"))
}

fn foreign(buffer: Buffer) -> Error {
    match buffer.device {
        Buffer::PLANNED | Buffer::VIRTUAL => {
            Error::failed("a buffer exists only in a plan; allocate it on the device first")
        }
        _ => elsewhere("a buffer, such as a model's values,"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(buffers: &mut Buffers, bytes: u64) -> Allocation {
        buffers.own(View::whole(buffers.next(), 1), bytes)
    }

    #[test]
    fn a_place_is_reused_and_old_views_do_not_name_its_next_buffer() {
        let mut buffers = Buffers::new();
        let (first, second) = (own(&mut buffers, 4), own(&mut buffers, 5));
        let old = first.buffer;
        drop(first);
        assert_eq!(buffers.returned_bytes(), 4);
        assert!(buffers.check(old).is_err() && buffers.lease(old).is_err());
        assert_eq!(buffers.take_returned(), Some(old));
        assert_eq!((buffers.take_returned(), buffers.returned_bytes()), (None, 0));
        let third = own(&mut buffers, 6);
        assert_eq!((third.buffer.index, third.buffer.generation), (old.index, 1));
        assert!(buffers.check(old).is_err());
        buffers.check(third.buffer).unwrap();
        buffers.check(second.buffer).unwrap();
    }

    #[test]
    fn a_lease_keeps_a_buffer_whose_owner_is_gone() {
        let mut buffers = Buffers::new();
        let owner = own(&mut buffers, 4);
        let buffer = owner.buffer;
        let lease = buffers.lease(buffer).unwrap();
        drop(owner);
        buffers.check(buffer).unwrap();
        assert_eq!(buffers.take_returned(), None);
        drop(lease);
        assert_eq!(buffers.take_returned(), Some(buffer));
    }

    #[test]
    fn buffers_of_other_devices_and_of_plans_are_refused() {
        let (mut here, mut there) = (Buffers::new(), Buffers::new());
        let (_own, other) = (own(&mut here, 4), own(&mut there, 4));
        let message = |buffer| here.check(buffer).unwrap_err().to_string();
        assert!(message(other.buffer).contains("another device"));
        assert!(message(Buffer::planned(0)).contains("only in a plan"));
        assert!(message(Buffer::on_tape(0)).contains("only in a plan"));
    }

    #[test]
    fn owners_may_be_dropped_on_another_thread_and_after_their_device() {
        let mut buffers = Buffers::new();
        let (first, second) = (own(&mut buffers, 4), own(&mut buffers, 5));
        std::thread::spawn(move || drop(first)).join().unwrap();
        assert_eq!(buffers.returned_bytes(), 4);
        drop(buffers);
        drop(second);
    }
}
