//! Buffers with an owner, and a device's record of those that it has made.

use std::ops::Deref;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::error::{Error, Result};
use crate::view::{Buffer, View};

/// A buffer with an owner. It dereferences to the [`View`] of the whole buffer.
///
/// When it is dropped, and with it every [`super::Program`] compiled for the buffer, the memory
/// goes back to the device: the device frees it the next time that it allocates, compiles, runs or
/// reads. A [`View`] does not keep a buffer alive, and a device refuses the views of a buffer whose
/// owner is gone. To share a buffer, put its owner into an [`Arc`].
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
    /// Bytes that it takes on its device.
    pub fn bytes(&self) -> u64 {
        self.lease.bytes
    }
}

/// What an owner and the programs that use a buffer share. The last of them returns the buffer.
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

/// Buffers without an owner that the device has not freed yet, and their bytes.
#[derive(Debug, Default)]
struct Returned(Mutex<Vec<(Buffer, u64)>>);

impl Returned {
    fn lock(&self) -> MutexGuard<'_, Vec<(Buffer, u64)>> {
        // A push or a take leaves the list whole, even if its thread panics.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The buffers of one device.
#[derive(Debug)]
pub(super) struct Buffers {
    /// Which device it is.
    pub(super) device: u32,
    entries: Vec<Entry>,
    /// Entries whose buffer was freed.
    vacant: Vec<u32>,
    returned: Arc<Returned>,
}

#[derive(Debug, Default)]
struct Entry {
    generation: u32,
    lease: Weak<Lease>,
}

impl Buffers {
    /// Those of a new device: none.
    pub(super) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(Buffer::FIRST_DEVICE);
        Self {
            device: NEXT.fetch_add(1, Ordering::Relaxed),
            entries: Vec::new(),
            vacant: Vec::new(),
            returned: Arc::default(),
        }
    }

    /// The name of the next buffer. It counts as made with [`Buffers::own`].
    pub(super) fn next(&self) -> Buffer {
        let index = self.vacant.last().map_or(self.entries.len(), |index| *index as usize);
        let generation = self.entries.get(index).map_or(0, |entry| entry.generation);
        Buffer { device: self.device, index: index as u32, generation }
    }

    /// Gives the buffer that [`Buffers::next`] named an owner.
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

    /// The lease of a buffer.
    ///
    /// # Errors
    /// When the buffer is not one of this device, or its owner is gone.
    pub(super) fn lease(&self, buffer: Buffer) -> Result<Arc<Lease>> {
        self.entry(buffer)?.lease.upgrade().ok_or_else(ownerless)
    }

    /// Fails where [`Buffers::lease`] does.
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

    /// Takes a buffer that was returned, whose memory is then to be freed.
    pub(super) fn take_returned(&mut self) -> Option<Buffer> {
        let (buffer, _) = self.returned.lock().pop()?;
        // Views of the old buffer do not name the next one here.
        let entry = &mut self.entries[buffer.index as usize];
        entry.generation = entry.generation.wrapping_add(1);
        self.vacant.push(buffer.index);
        Some(buffer)
    }

    /// Bytes of buffers that were returned and not yet freed.
    pub(super) fn returned_bytes(&self) -> u64 {
        self.returned.lock().iter().map(|(_, bytes)| bytes).sum()
    }
}

fn ownerless() -> Error {
    Error::failed(
        "a buffer is used after its owner was dropped; keep the `Allocation`, or the `Store`, as \
         long as its views are used",
    )
}

/// The error of a program, or of results, that another device made.
pub(super) fn elsewhere(what: &str) -> Error {
    Error::usage(format!(
        "{what} of another device cannot be used here; make it again on this device"
    ))
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
        let told = |buffer| here.check(buffer).unwrap_err().to_string();
        assert!(told(other.buffer).contains("another device"));
        assert!(told(Buffer::planned(0)).contains("only in a plan"));
        assert!(told(Buffer::on_tape(0)).contains("only in a plan"));
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
