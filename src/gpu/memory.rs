//! The memory of a device: buffers, their guards, and what is written to and read from them.

use half::f16;

use super::device::Gpu;
use crate::advice::Advice;
use crate::error::{Error, Result};
use crate::view::{Buffer, View};

/// Maximum number of elements (64 MiB) written before a submission, which frees wgpu's staging
/// memory.
const WRITE: usize = 16 << 20;
/// Words in the guard behind a buffer (256 bytes).
const GUARD: usize = 64;
/// Value of each guard word: as f32 a NaN with a payload that no kernel computes.
const GUARD_WORD: u32 = 0xfff5_a5a5;

/// A buffer of `len` elements, with a guard behind them if `guarded`.
#[derive(Clone, Debug)]
pub(super) struct Allocated {
    buffer: Buffer,
    handle: wgpu::Buffer,
    len: usize,
    guarded: bool,
}

/// Bytes of a buffer of `len` elements without its guard, rounded up to whole vec4s.
fn content(len: usize, element: u64) -> u64 {
    (len.max(1) as u64 * element).next_multiple_of(16)
}

impl Gpu {
    /// The buffer to bind to a variable that a dispatch does not use.
    pub(super) fn unused_buffer(&self, writable: bool) -> &wgpu::Buffer {
        &self.unused[usize::from(writable)]
    }

    pub(super) fn count_bind_group(&mut self) {
        self.counters.bind_groups += 1;
    }

    pub(super) fn buffer(&self, buffer: Buffer) -> &wgpu::Buffer {
        &self.allocated_at(buffer).handle
    }

    fn allocated_at(&self, buffer: Buffer) -> &Allocated {
        let made = self.buffers[buffer.index as usize].as_ref();
        made.filter(|made| made.buffer == buffer).expect("the buffer is allocated on this device")
    }

    /// Bytes of the binding of a view: whole vec4s, and the guard if the view ends at one.
    pub(super) fn bound_size(&self, view: View) -> u64 {
        let Allocated { handle, len, guarded, .. } = self.allocated_at(view.buffer);
        let last = view.start + view.len == *len;
        if *guarded && last {
            handle.size() - view.start as u64 * view.element()
        } else {
            content(view.len, view.element())
        }
    }

    /// Allocates the buffer of `view`, which must cover it completely, filled with zeros. Its size
    /// is rounded up to 16 bytes. Returns its size in bytes.
    ///
    /// # Errors
    /// If the buffer exceeds the adapter's limit, or the device is out of memory.
    pub(crate) fn alloc(&mut self, view: View, label: &str) -> Result<u64> {
        let View { buffer, len, .. } = view;
        let content = content(len, view.element());
        let size = if self.guarded { content + GUARD as u64 * 4 } else { content };
        if size > self.limits.max_buffer_size {
            let (need, limit) = (size >> 20, self.limits.max_buffer_size >> 20);
            return Err(Error::usage(format!(
                "{label} needs {need} MiB in one buffer, the adapter allows {limit} MiB: {}",
                Advice::SmallerBatch
            )));
        }
        let made = self.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some(label),
            size,
            usage: wgpu::BufferUsages::STORAGE
                | wgpu::BufferUsages::COPY_DST
                | wgpu::BufferUsages::COPY_SRC,
            mapped_at_creation: false,
        });
        // Out of memory wgpu returns an invalid buffer, which must not be kept.
        self.check()?;
        let index = buffer.index as usize;
        if self.buffers.len() <= index {
            self.buffers.resize(index + 1, None);
        }
        if self.guarded {
            self.queue.write_buffer(&made, content, bytemuck::cast_slice(&[GUARD_WORD; GUARD]));
        }
        self.buffers[index] = Some(Allocated { buffer, handle: made, len, guarded: self.guarded });
        self.counters.buffers += 1;
        self.allocated += size;
        Ok(size)
    }

    /// Checks the guards of all buffers that have one.
    ///
    /// # Errors
    /// If a kernel has written past the end of a buffer.
    pub fn check_guards(&mut self) -> Result<()> {
        for index in 0..self.buffers.len() {
            let Some(Allocated { buffer, handle, len, guarded: true }) =
                self.buffers[index].clone()
            else {
                continue;
            };
            let start = (handle.size() / 4) as usize - GUARD;
            let guard: Vec<u32> =
                self.read(View { start, len: GUARD, ..View::whole(buffer, 0) })?;
            if let Some(at) = guard.iter().position(|word| *word != GUARD_WORD) {
                let bad = f32::from_bits(guard[at]);
                return Err(Error::failed(format!(
                    "a kernel wrote {bad} past the end of a buffer of {len}, at element {}; check \
                     its bounds and the sizes of its bindings",
                    start + at
                )));
            }
        }
        Ok(())
    }

    /// Frees a buffer.
    pub(crate) fn free(&mut self, buffer: Buffer) {
        if let Some(old) = self.buffers.get_mut(buffer.index as usize).and_then(Option::take) {
            self.allocated -= old.handle.size();
        }
    }

    pub(super) fn uniform_buffer(&mut self, label: &str, bytes: &[u8]) -> wgpu::Buffer {
        let size = (bytes.len() as u64).max(256);
        let usage = wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST;
        let buffer = self.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some(label),
            size,
            usage,
            mapped_at_creation: false,
        });
        self.queue.write_buffer(&buffer, 0, bytes);
        self.counters.buffers += 1;
        buffer
    }

    pub(super) fn staging(&mut self, size: u64) -> wgpu::Buffer {
        let fitting = self
            .staging
            .iter()
            .position(|buffer| buffer.size() >= size && buffer.size() <= 2 * size.max(4096));
        if let Some(index) = fitting {
            return self.staging.swap_remove(index);
        }
        self.counters.buffers += 1;
        let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
        self.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("staging"),
            size,
            usage,
            mapped_at_creation: false,
        })
    }

    pub(super) fn return_staging(&mut self, buffer: wgpu::Buffer) {
        if self.staging.len() < 8 {
            self.staging.push(buffer);
        }
    }

    /// Writes f32 values into a view, rounded to f16 if it is in half precision.
    pub fn write_reals(&mut self, view: View, data: &[f32]) {
        if !view.half {
            return self.write(view, data);
        }
        assert!(data.len() <= view.len, "{} elements into a view of {}", data.len(), view.len);
        let halves = |pair: &[f32]| {
            u32::from(f16::from_f32(pair[0]).to_bits())
                | pair.get(1).map_or(0, |x| u32::from(f16::from_f32(*x).to_bits()) << 16)
        };
        let words: Vec<u32> = data.chunks(2).map(halves).collect();
        self.write(
            View { buffer: view.buffer, start: view.start / 2, len: words.len(), half: false },
            &words,
        );
    }

    /// Writes elements of 4 bytes into a view.
    ///
    /// # Panics
    /// If `data` is longer than the view.
    pub fn write<E: bytemuck::Pod>(&mut self, view: View, data: &[E]) {
        assert!(
            size_of::<E>() == 4 && data.len() <= view.len,
            "{} elements into a view of {}",
            data.len(),
            view.len
        );
        // Write in pieces, with a submission after each: wgpu keeps a staging copy of everything
        // written between two submissions.
        for (i, piece) in data.chunks(WRITE).enumerate() {
            let buffer = self.buffer(view.buffer);
            self.queue.write_buffer(
                buffer,
                (view.start + i * WRITE) as u64 * 4,
                bytemuck::cast_slice(piece),
            );
            self.staged += piece.len();
            if self.staged >= WRITE {
                let index = self.queue.submit([]);
                self.in_flight.push_back(index);
                self.staged = 0;
                // The next call that returns a result reports the error.
                let _ = self.keep_up();
            }
        }
    }

    /// Reads a view after all work submitted so far.
    ///
    /// # Errors
    /// If the device fails.
    pub fn read<E: bytemuck::Pod>(&mut self, view: View) -> Result<Vec<E>> {
        let ticket = self.fetch(view);
        self.collect(ticket)
    }
}
