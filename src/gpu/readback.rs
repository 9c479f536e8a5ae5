//! Asynchronous readback: queues a copy into a mappable buffer and collects it later, so that the
//! host does not stall.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use super::device::Gpu;
use half::f16;

use crate::error::Result;
use crate::view::View;

const PENDING: u8 = 0;
const READY: u8 = 1;
const BROKEN: u8 = 2;

/// A queued readback.
#[derive(Debug)]
pub struct Ticket {
    buffer: wgpu::Buffer,
    bytes: u64,
    /// Whether the elements are f16.
    half: bool,
    /// Number of elements.
    len: usize,
    state: Arc<AtomicU8>,
}

impl Gpu {
    /// Queues a copy of a view to the host.
    pub fn fetch(&mut self, view: View) -> Ticket {
        let from = self.buffer(view.buffer).clone();
        let bytes = (view.len as u64 * view.element()).next_multiple_of(4);
        let ticket = self.fetch_bytes(&from, view.start as u64 * view.element(), bytes);
        Ticket { half: view.half, len: view.len, ..ticket }
    }

    /// Queues a copy of `bytes` bytes (a multiple of 4) of a wgpu buffer to the host.
    pub(super) fn fetch_bytes(&mut self, from: &wgpu::Buffer, offset: u64, bytes: u64) -> Ticket {
        let buffer = self.staging(bytes);
        let mut encoder = self
            .device()
            .create_command_encoder(&wgpu::CommandEncoderDescriptor { label: Some("readback") });
        encoder.copy_buffer_to_buffer(from, offset, &buffer, 0, bytes);
        self.submit(encoder);
        let state = Arc::new(AtomicU8::new(PENDING));
        let seen = Arc::clone(&state);
        buffer.map_async(wgpu::MapMode::Read, 0..bytes, move |result| {
            seen.store(if result.is_ok() { READY } else { BROKEN }, Ordering::Release);
        });
        Ticket { buffer, bytes, half: false, len: bytes as usize / 4, state }
    }

    /// Whether a readback has finished. Does not wait.
    pub fn arrived(&self, ticket: &Ticket) -> bool {
        let _ = self.device().poll(wgpu::PollType::Poll);
        ticket.state.load(Ordering::Acquire) != PENDING
    }

    /// Waits for a readback and returns its elements as f32, converted if they are f16.
    ///
    /// # Errors
    /// If the device fails.
    pub fn collect_reals(&mut self, ticket: Ticket) -> Result<Vec<f32>> {
        if !ticket.half {
            return self.collect(ticket);
        }
        let len = ticket.len;
        let mut halves: Vec<f16> = self.collect(ticket)?;
        halves.truncate(len);
        Ok(halves.into_iter().map(f32::from).collect())
    }

    /// Waits for a readback and returns its bytes as elements of type `E`.
    ///
    /// # Errors
    /// If the device fails.
    pub fn collect<E: bytemuck::Pod>(&mut self, ticket: Ticket) -> Result<Vec<E>> {
        while ticket.state.load(Ordering::Acquire) == PENDING {
            self.wait()?;
        }
        if ticket.state.load(Ordering::Acquire) == BROKEN {
            self.check()?;
            return Err(self.adapter().fault("a result could not be read back"));
        }
        let range = ticket.buffer.get_mapped_range(0..ticket.bytes).map_err(|error| {
            self.adapter().fault(&format!("a result could not be read back ({error})"))
        })?;
        let data = bytemuck::pod_collect_to_vec(&range[..]);
        drop(range);
        ticket.buffer.unmap();
        self.return_staging(ticket.buffer);
        Ok(data)
    }
}
