//! Batches of images that stay in their files: threads read and decode those to come while the device works on the one before.

use std::collections::{BTreeMap, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use crate::data::{Catalogue, Handles};
use crate::error::{Error, Result};
use crate::ops::Augment;
use crate::rng::Stream;
use crate::shape::Dims;

/// The order of an epoch's samples; each is the index of an image.
pub fn order(samples: &[u32], seed: u64, epoch: u64) -> Vec<u32> {
    let shuffled = Stream::new(seed, &format!("order of epoch {epoch}")).permutation(samples.len());
    shuffled.into_iter().map(|i| samples[i as usize]).collect()
}

/// What batches are made of.
#[derive(Debug)]
pub struct Source {
    /// The images.
    pub catalogue: Arc<Catalogue>,
    /// The samples of an epoch, before they are shuffled.
    pub samples: Vec<u32>,
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
    /// The batch of a step (N,H,W,C bytes): what [`crate::ops::GatherBatch`] takes from images in memory.
    fn batch(&self, step: u64, order: &[u32], handles: &mut Handles) -> Result<Vec<u8>> {
        let Dims { c, h, w } = self.dims;
        let steps = (self.samples.len() / self.batch) as u64;
        let cursor = (step % steps) as usize * self.batch;
        let mut out = Vec::with_capacity(self.batch * self.dims.len());
        for (entry, &image) in order.iter().enumerate().skip(cursor).take(self.batch) {
            let image = image as usize;
            let (height, width) = self.catalogue.items[image].result();
            let pixels = self.catalogue.read(image, handles)?;
            let draw = self.augment.draw(entry as u32, step as u32, self.seed, height - h, width - w);
            for y in 0..h {
                let row = draw.top + if draw.flip_y { h - 1 - y } else { y };
                let row = &pixels[(row * width + draw.left) * c..][..w * c];
                if draw.flip_x {
                    out.extend(row.chunks_exact(c).rev().flatten());
                } else {
                    out.extend(row);
                }
            }
        }
        Ok(out)
    }

    fn order_of(&self, step: u64, orders: &Mutex<HashMap<u64, Arc<Vec<u32>>>>) -> Arc<Vec<u32>> {
        let epoch = step / (self.samples.len() / self.batch) as u64;
        let mut orders = lock(orders);
        // threads work at the end of one epoch and the start of the next
        orders.retain(|other, _| other.abs_diff(epoch) <= 1);
        Arc::clone(orders.entry(epoch).or_insert_with(|| Arc::new(order(&self.samples, self.seed, epoch))))
    }
}

/// What threads and their reader share.
#[derive(Debug, Default)]
struct State {
    /// The next step to begin.
    next: u64,
    /// The step that is waited for; no thread goes further ahead of it than it may.
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
    orders: Mutex<HashMap<u64, Arc<Vec<u32>>>>,
    source: Source,
    ahead: u64,
}

/// Threads that make the coming batches ready.
#[derive(Debug)]
pub struct Prefetch {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Prefetch {
    /// Starts `threads` threads, which stay at most two batches each ahead.
    pub fn new(source: Source, threads: usize) -> Self {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            changed: Condvar::new(),
            orders: Mutex::default(),
            source,
            ahead: 2 * threads as u64,
        });
        let start = |_| {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || shared.work())
        };
        let threads = (0..threads).map(start).collect();
        Self { shared, threads }
    }

    /// The batch of a step, N,H,W,C. Steps that follow one another are ready soonest; any other may be asked for.
    ///
    /// # Errors
    /// When an image cannot be read any more; the line names its file.
    pub fn take(&self, step: u64) -> Result<Vec<u8>> {
        let mut state = lock(&self.shared.state);
        if state.wanted != step {
            *state = State { next: step, wanted: step, jumps: state.jumps + 1, ..State::default() };
        }
        self.shared.changed.notify_all();
        loop {
            if let Some(batch) = state.ready.remove(&step) {
                state.wanted = step + 1;
                self.shared.changed.notify_all();
                return batch;
            }
            state = self.shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
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
    fn work(&self) {
        let mut handles = Handles::default();
        let mut state = lock(&self.state);
        while !state.stop {
            if state.next >= state.wanted + self.ahead {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let (step, jumps) = (state.next, state.jumps);
            state.next += 1;
            drop(state);
            let made = catch_unwind(AssertUnwindSafe(|| {
                let order = self.source.order_of(step, &self.orders);
                self.source.batch(step, &order, &mut handles)
            }));
            let batch = made.unwrap_or_else(|_| Err(Error::failed(format!("step {step}: a thread that reads images panicked"))));
            state = lock(&self.state);
            if state.jumps == jumps {
                state.ready.insert(step, batch);
                self.changed.notify_all();
            }
        }
    }
}
