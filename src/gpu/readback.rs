//! Reading results without stalling: a copy into a mappable buffer is queued, and looked at later.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use super::device::Gpu;
use crate::error::Result;
use crate::ops::View;

const PENDING: u8 = 0;
const READY: u8 = 1;
const BROKEN: u8 = 2;

/// A result on its way.
#[derive(Debug)]
pub struct Ticket {
    buffer: wgpu::Buffer,
    bytes: u64,
    state: Arc<AtomicU8>,
}

impl Gpu {
    /// Queues a copy of a view to the host.
    pub fn fetch(&mut self, view: View) -> Ticket {
        let bytes = (view.len as u64 * 4).next_multiple_of(4);
        let buffer = self.staging(bytes);
        let mut encoder = self.device().create_command_encoder(&wgpu::CommandEncoderDescriptor { label: Some("readback") });
        encoder.copy_buffer_to_buffer(self.buffer(view.buffer), view.start as u64 * 4, &buffer, 0, bytes);
        self.submit(encoder);
        let state = Arc::new(AtomicU8::new(PENDING));
        let seen = Arc::clone(&state);
        buffer.map_async(wgpu::MapMode::Read, 0..bytes, move |result| {
            seen.store(if result.is_ok() { READY } else { BROKEN }, Ordering::Release);
        });
        Ticket { buffer, bytes, state }
    }

    /// Whether a result has arrived; does not wait.
    pub fn arrived(&self, ticket: &Ticket) -> bool {
        let _ = self.device().poll(wgpu::PollType::Poll);
        ticket.state.load(Ordering::Acquire) != PENDING
    }

    /// Waits for a result and takes its bytes as 4-byte elements.
    pub fn collect<E: bytemuck::Pod>(&mut self, ticket: Ticket) -> Result<Vec<E>> {
        while ticket.state.load(Ordering::Acquire) == PENDING {
            self.wait()?;
        }
        if ticket.state.load(Ordering::Acquire) == BROKEN {
            self.check()?;
            return Err(self.adapter().fault("a result could not be read back"));
        }
        let range = ticket
            .buffer
            .get_mapped_range(0..ticket.bytes)
            .map_err(|error| self.adapter().fault(&format!("a result could not be read back ({error})")))?;
        let data = bytemuck::pod_collect_to_vec(&range[..]);
        drop(range);
        ticket.buffer.unmap();
        self.return_staging(ticket.buffer);
        Ok(data)
    }
}
