//! Images that stay in their files: threads read and decode those to come, a group of the epoch's order at a time, while the device works on those
//! before.

use std::collections::{BTreeMap, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use super::order::{self, Order, Samples};
use crate::data::{Catalogue, Handles};
use crate::error::{Error, Result};
use crate::ops::Augment;
use crate::shape::Dims;

/// What samples are made of.
#[derive(Debug)]
pub struct Source {
    /// The images.
    pub catalogue: Arc<Catalogue>,
    /// The samples of an epoch.
    pub samples: Samples,
    /// Samples of a batch.
    pub batch: usize,
    /// Seed of order, crops and flips.
    pub seed: u64,
    /// One sample.
    pub dims: Dims,
    /// What is drawn for each.
    pub augment: Augment,
}

impl Source {
    /// Steps of an epoch.
    fn steps(&self) -> u64 {
        (self.samples.len() / self.batch) as u64
    }

    /// Samples (N,H,W,C bytes) of a group of an epoch: what [`crate::ops::GatherBatch`] takes from images in memory.
    fn read(&self, order: &Order, epoch: u64, group: usize, handles: &mut Handles) -> Result<Vec<u8>> {
        let Dims { c, h, w } = self.dims;
        let entries = order.groups[group]..order.groups[group + 1];
        let start = entries.start;
        let mut by_image: Vec<usize> = entries.clone().collect();
        by_image.sort_by_key(|entry| order.images[*entry]);
        let images: Vec<usize> = by_image.iter().map(|entry| order.images[*entry] as usize).collect();
        let mut out = vec![0; entries.len() * self.dims.len()];
        self.catalogue.each(&images, handles, |at, pixels| {
            let (entry, image) = (by_image[at], images[at]);
            let (height, width) = self.catalogue.items[image].result();
            let step = epoch * self.steps() + (entry / self.batch) as u64;
            let draw = self.augment.draw(entry as u32, step as u32, self.seed, height - h, width - w);
            let sample = &mut out[(entry - start) * self.dims.len()..][..self.dims.len()];
            for (y, to) in sample.chunks_exact_mut(w * c).enumerate() {
                let row = draw.top + if draw.flip_y { h - 1 - y } else { y };
                let row = &pixels[(row * width + draw.left) * c..][..w * c];
                if draw.flip_x {
                    to.chunks_exact_mut(c).zip(row.chunks_exact(c).rev()).for_each(|(to, from)| to.copy_from_slice(from));
                } else {
                    to.copy_from_slice(row);
                }
            }
        })?;
        Ok(out)
    }
}

/// What threads and their reader share. Groups are numbered through all epochs.
#[derive(Debug, Default)]
struct State {
    /// The next group to begin.
    next: u64,
    /// The group that is waited for; no thread goes further ahead of it than it may.
    wanted: u64,
    /// Goes up when the reader jumps, which makes what is under way worthless.
    jumps: u64,
    ready: BTreeMap<u64, Result<Vec<u8>>>,
    stop: bool,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    orders: Mutex<HashMap<u64, Arc<Order>>>,
    source: Source,
    ahead: u64,
}

/// Threads that make the coming groups ready.
#[derive(Debug)]
pub struct Prefetch {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    /// Groups of which samples are still to come.
    held: BTreeMap<u64, Vec<u8>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Prefetch {
    /// Starts `threads` threads, which stay at most one group more than their number ahead.
    pub fn new(source: Source, threads: usize) -> Self {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            changed: Condvar::new(),
            orders: Mutex::default(),
            source,
            ahead: 1 + threads as u64,
        });
        let start = |_| {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || shared.work())
        };
        let threads = (0..threads).map(start).collect();
        Self { shared, threads, held: BTreeMap::new() }
    }

    /// Bytes that samples of the size `dims` may take at once: those that are ready and under way, and those being taken.
    pub fn most_bytes(dims: Dims, threads: usize) -> u64 {
        ((threads + 2) * order::most_samples(dims) * dims.len()) as u64
    }

    /// The batch of a step, N,H,W,C. Steps that follow one another are ready soonest; any other may be asked for.
    ///
    /// # Errors
    /// When an image cannot be read any more; the line names its file.
    pub fn take(&mut self, step: u64) -> Result<Vec<u8>> {
        let source = &self.shared.source;
        let (epoch, len) = (step / source.steps(), source.dims.len());
        let start = (step % source.steps()) as usize * source.batch;
        let order = self.shared.order_of(epoch);
        let mut group = order.groups.partition_point(|begin| *begin <= start) - 1;
        let first = epoch * source.samples.groups();
        self.held.retain(|number, _| *number >= first + group as u64);
        let mut batch = Vec::with_capacity(source.batch * len);
        let mut at = start;
        while at < start + source.batch {
            let (begin, end) = (order.groups[group], order.groups[group + 1].min(start + source.batch));
            let number = first + group as u64;
            if !self.held.contains_key(&number) {
                let read = self.shared.wait_for(number)?;
                self.held.insert(number, read);
            }
            batch.extend_from_slice(&self.held[&number][(at - begin) * len..(end - begin) * len]);
            (at, group) = (end, group + 1);
        }
        Ok(batch)
    }
}

impl Drop for Prefetch {
    fn drop(&mut self) {
        lock(&self.shared.state).stop = true;
        self.shared.changed.notify_all();
        for thread in self.threads.drain(..) {
            // a thread catches its own panics
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn order_of(&self, epoch: u64) -> Arc<Order> {
        let mut orders = lock(&self.orders);
        // Threads work at the end of one epoch and the start of the next.
        orders.retain(|other, _| other.abs_diff(epoch) <= 1);
        Arc::clone(orders.entry(epoch).or_insert_with(|| Arc::new(self.source.samples.order(self.source.seed, epoch))))
    }

    fn wait_for(&self, group: u64) -> Result<Vec<u8>> {
        let mut state = lock(&self.state);
        if group < state.wanted || group >= state.next {
            *state = State { next: group, jumps: state.jumps + 1, ..State::default() };
        }
        // What an epoch leaves over is not waited for.
        state.ready.retain(|number, _| *number >= group);
        state.wanted = group;
        self.changed.notify_all();
        loop {
            if let Some(read) = state.ready.remove(&group) {
                state.wanted = group + 1;
                self.changed.notify_all();
                return read;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn work(&self) {
        let mut handles = Handles::default();
        let mut state = lock(&self.state);
        while !state.stop {
            if state.next >= state.wanted + self.ahead {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let (number, jumps) = (state.next, state.jumps);
            state.next += 1;
            drop(state);
            let made = catch_unwind(AssertUnwindSafe(|| {
                let (epoch, group) = (number / self.source.samples.groups(), number % self.source.samples.groups());
                self.source.read(&self.order_of(epoch), epoch, group as usize, &mut handles)
            }));
            let read = made.unwrap_or_else(|_| Err(Error::failed("a thread that reads images panicked".to_owned())));
            state = lock(&self.state);
            if state.jumps == jumps && number >= state.wanted {
                state.ready.insert(number, read);
                self.changed.notify_all();
            }
        }
    }
}
