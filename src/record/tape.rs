//! The tape: a list of calls on virtual buffers, which it then maps to as few real ones as their
//! lifetimes allow.

use std::collections::HashMap;

use crate::device::{Allocation, Device};
use crate::error::Result;
use crate::program::Call;
use crate::view::{Access, Buffer, View};

/// Element type of a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Real numbers; f32 on a GPU.
    Real,
    /// Real numbers in half precision.
    Half,
    /// Unsigned integers (u32).
    Words,
}

#[derive(Clone, Debug)]
struct Virtual {
    label: String,
    kind: Kind,
    len: usize,
    /// Whether it is written before the program runs or read after it, so that it shares memory
    /// with no other buffer.
    kept: bool,
}

impl Virtual {
    const fn bytes(&self) -> u64 {
        self.len as u64 * if matches!(self.kind, Kind::Half) { 2 } else { 4 }
    }
}

/// A tape being recorded.
#[derive(Debug, Default)]
pub struct Tape {
    /// The calls so far.
    pub calls: Vec<Call>,
    /// Whether maps are stored in half precision.
    pub half: bool,
    /// Whether small buffers are not used again by the call after their last use. It takes more
    /// memory, and lets more dispatches of a training step run at the same time.
    pub rests: bool,
    buffers: Vec<Virtual>,
    /// The buffer that all partial sums share, and the end of the part that was given out last.
    workspace: Option<(usize, usize)>,
}

/// Elements of the workspace: 64 MiB. Its parts keep their contents until it is given out again
/// from the start. So the second stages of many sums can run together at the end of a step, while
/// its memory has a limit.
const WORKSPACE: usize = 1 << 24;

/// Maximum bytes of a buffer that [`Tape::rests`] keeps from the next call: 4 MiB. If that call
/// wrote it, it could not run at the same time as the last one that reads it. That pays for small
/// maps, whose dispatches do not fill a large GPU.
const RESTS: u64 = 4 << 20;

/// A program's own buffers, and their sizes.
#[derive(Debug, Default)]
pub struct Memory {
    /// Real buffers.
    pub buffers: Vec<Allocation>,
    /// Their total size in bytes.
    pub bytes: u64,
    /// Total size in bytes if no buffer were reused.
    pub unshared_bytes: u64,
    /// Size in bytes and label of the largest buffer.
    pub largest: (u64, String),
}

impl Tape {
    fn buffer(&mut self, label: String, kind: Kind, len: usize) -> View {
        let buffer = Buffer::on_tape(self.buffers.len() as u32);
        self.buffers.push(Virtual { label, kind, len, kept: false });
        View { half: kind == Kind::Half, ..View::whole(buffer, len) }
    }

    /// A virtual buffer for a map: a layer's output, its gradient or a mask. It has the precision
    /// of the tape's maps.
    pub fn map(&mut self, label: impl Into<String>, len: usize) -> View {
        self.buffer(label.into(), if self.half { Kind::Half } else { Kind::Real }, len)
    }

    /// A virtual buffer of real numbers in full precision.
    pub fn real(&mut self, label: impl Into<String>, len: usize) -> View {
        self.buffer(label.into(), Kind::Real, len)
    }

    /// A virtual buffer of unsigned integers.
    pub fn words(&mut self, label: impl Into<String>, len: usize) -> View {
        self.buffer(label.into(), Kind::Words, len)
    }

    /// Memory for `len` partial sums of an operation whose result is needed late.
    pub fn partials(&mut self, len: usize) -> View {
        let (buffer, end) = self.workspace.unwrap_or_else(|| {
            let view = self.real("partial sums", 0);
            (view.buffer.index as usize, 0)
        });
        // Views begin at multiples of 64 elements.
        let padded = len.next_multiple_of(64);
        let start = if end + padded > WORKSPACE { 0 } else { end };
        self.workspace = Some((buffer, start + padded));
        let whole = &mut self.buffers[buffer].len;
        *whole = (*whole).max(start + padded);
        View { start, ..View::whole(Buffer::on_tape(buffer as u32), len) }
    }

    /// Appends a call.
    pub fn push(&mut self, call: impl Into<Call>) {
        self.calls.push(call.into());
    }

    /// Reserves a buffer of its own for a view: the caller writes it before a run or reads it
    /// after one.
    pub fn keep(&mut self, view: View) {
        if let Some(id) = view.buffer.tape_index() {
            self.buffers[id as usize].kept = true;
        }
    }

    /// Allocates real buffers and replaces the virtual ones by them. A virtual buffer occupies a
    /// real one from its first use to its last; kept buffers have one of their own, even without
    /// any use.
    ///
    /// Translates the views in `wanted`. Returns the calls on real buffers and the memory, which
    /// must live until the calls are compiled.
    ///
    /// # Errors
    /// When the device has no memory for a buffer. Those allocated before are returned.
    pub fn allocate(
        mut self,
        device: &mut Device,
        wanted: &mut [&mut View],
    ) -> Result<(Vec<Call>, Memory)> {
        let slots = self.assign();
        let mut memory = Memory::default();
        for slot in &slots.sizes {
            let buffer = match slot.kind {
                Kind::Real => device.alloc_real(&slot.label, slot.len)?,
                Kind::Half => device.alloc_half(&slot.label, slot.len)?,
                Kind::Words => device.alloc_words(&slot.label, slot.len)?,
            };
            memory.buffers.push(buffer);
            memory.bytes += slot.bytes();
            if slot.bytes() > memory.largest.0 {
                memory.largest = (slot.bytes(), slot.label.clone());
            }
        }
        memory.unshared_bytes = self.buffers.iter().map(Virtual::bytes).sum();
        let translate = |view: &mut View| {
            if let Some(id) = view.buffer.tape_index() {
                view.buffer = memory.buffers[slots.of[&id]].buffer;
            }
        };
        for call in &mut self.calls {
            call.visit(&mut |view, _| translate(view));
        }
        for view in wanted {
            translate(view);
        }
        Ok((self.calls, memory))
    }

    /// The calls as [`Tape::allocate`] returns them, on virtual buffers: those that would share a
    /// real buffer share a virtual one.
    pub fn planned_calls(mut self) -> Vec<Call> {
        let slots = self.assign();
        for call in &mut self.calls {
            call.visit(&mut |view, _| {
                if let Some(id) = view.buffer.tape_index() {
                    view.buffer = Buffer::on_tape(slots.of[&id] as u32);
                }
            });
        }
        self.calls
    }

    /// Total size in bytes of the buffers that [`Tape::allocate`] would allocate.
    pub fn planned_bytes(&mut self) -> u64 {
        self.assign().sizes.iter().map(Virtual::bytes).sum()
    }

    /// Size in bytes and label of the largest virtual buffer.
    pub fn largest(&self) -> (u64, &str) {
        self.buffers
            .iter()
            .map(|buffer| (buffer.bytes(), buffer.label.as_str()))
            .max()
            .unwrap_or((0, ""))
    }

    /// Assigns each virtual buffer to a slot, a real buffer to be allocated, by its first and last
    /// use.
    fn assign(&mut self) -> Slots {
        let mut first: HashMap<u32, usize> = HashMap::new();
        let mut last: HashMap<u32, usize> = HashMap::new();
        for (i, call) in self.calls.iter_mut().enumerate() {
            call.visit(&mut |view, access| {
                if let Some(id) = view.buffer.tape_index() {
                    debug_assert!(
                        access != Access::Read
                            || first.contains_key(&id)
                            || self.buffers[id as usize].kept
                    );
                    first.entry(id).or_insert(i);
                    last.insert(id, i);
                }
            });
        }
        let mut slots = Slots::default();
        let mut free: Vec<usize> = Vec::new();
        // Kept buffers are written or read outside the program: their slots are not shared.
        for (id, buffer) in self.buffers.iter().enumerate() {
            if buffer.kept {
                slots.make(id as u32, buffer);
            }
        }
        let mut starts: Vec<(usize, u32)> = first.iter().map(|(id, i)| (*i, *id)).collect();
        starts.sort_unstable();
        let small = |id: &u32| self.buffers[*id as usize].bytes() <= RESTS;
        let rest = |id: &u32| usize::from(self.rests && small(id));
        let mut ends: Vec<(usize, u32)> = last.iter().map(|(id, i)| (*i + rest(id), *id)).collect();
        ends.sort_unstable();
        let (mut start, mut end) = (starts.into_iter().peekable(), ends.into_iter().peekable());
        for i in 0..self.calls.len() {
            while let Some((_, id)) = end.next_if(|(at, _)| *at < i) {
                if !self.buffers[id as usize].kept {
                    free.push(slots.of[&id]);
                }
            }
            while let Some((_, id)) = start.next_if(|(at, _)| *at == i) {
                let buffer = &self.buffers[id as usize];
                if !buffer.kept {
                    slots.place(id, buffer, &mut free);
                }
            }
        }
        slots
    }
}

#[derive(Debug, Default)]
struct Slots {
    sizes: Vec<Virtual>,
    of: HashMap<u32, usize>,
}

impl Slots {
    fn make(&mut self, id: u32, buffer: &Virtual) {
        self.of.insert(id, self.sizes.len());
        self.sizes.push(buffer.clone());
    }

    /// Chooses a slot: the smallest free one that is large enough, else the largest free one, which
    /// is enlarged, else a new one.
    fn place(&mut self, id: u32, buffer: &Virtual, free: &mut Vec<usize>) {
        let fitting = |slot: &&usize| self.sizes[**slot].kind == buffer.kind;
        let enough = free
            .iter()
            .filter(fitting)
            .filter(|slot| self.sizes[**slot].len >= buffer.len)
            .min_by_key(|slot| self.sizes[**slot].len);
        let chosen = enough
            .or_else(|| free.iter().filter(fitting).max_by_key(|slot| self.sizes[**slot].len))
            .copied();
        match chosen {
            None => self.make(id, buffer),
            Some(slot) => {
                free.retain(|other| *other != slot);
                if buffer.len > self.sizes[slot].len {
                    self.sizes[slot] = buffer.clone();
                }
                self.of.insert(id, slot);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::AddAssign;

    #[test]
    fn partial_sums_share_a_buffer_and_overlap_only_when_it_is_full() {
        let mut tape = Tape::default();
        let [a, b] = [tape.partials(100), tape.partials(7)];
        assert_eq!((a.start, b.start, b.len), (0, 128, 7));
        assert!(a.buffer == b.buffer && !a.overlaps(b));
        let c = tape.partials(WORKSPACE);
        assert!(c.start == 0 && c.overlaps(a) && c.overlaps(b));
        assert_eq!(tape.largest().0, 4 * WORKSPACE as u64);
    }

    /// The number of real buffers of a chain of ten calls on `len` elements, whose result is
    /// checked.
    fn buffers_of_a_chain(len: usize, rests: bool) -> usize {
        let mut device = Device::cpu();
        let mut tape = Tape { rests, ..Tape::default() };
        let mut x = tape.real("x", len);
        tape.keep(x);
        let mut before = x;
        for i in 0..10 {
            let y = tape.real(format!("y{i}"), len);
            tape.push(crate::ops::Combine { alpha: 2.0, beta: 0.0, a: before, b: None, y });
            before = y;
        }
        let mut end = tape.real("end", len);
        tape.keep(end);
        tape.push(crate::ops::Combine { alpha: 1.0, beta: 0.0, a: before, b: None, y: end });
        tape.push(AddAssign { x, y: end });
        let (calls, memory) = tape.allocate(&mut device, &mut [&mut x, &mut end]).unwrap();
        assert_eq!(memory.unshared_bytes, 12 * 4 * len as u64);
        device.write(x, &vec![1.0; len]);
        let program = device.compile(calls).unwrap();
        device.run(&program, &crate::view::StepParams::default()).unwrap();
        assert_eq!(device.read(end).unwrap(), vec![1025.0; len]);
        memory.buffers.len()
    }

    #[test]
    fn buffers_with_disjoint_lifetimes_share_memory() {
        // x, end, and two that alternate.
        let large = RESTS as usize / 4 + 1;
        assert_eq!((buffers_of_a_chain(large - 1, false), buffers_of_a_chain(large, true)), (4, 4));
        // A small one is not written by the call after the last that reads it.
        assert_eq!(buffers_of_a_chain(large - 1, true), 5);
    }
}
