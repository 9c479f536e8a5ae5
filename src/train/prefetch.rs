//! Streaming of images from files: while the device trains, threads read and decode upcoming groups
//! of the epoch's order.

use std::collections::BTreeMap;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use super::order::{ORDERS, Order, Samples};
use crate::data::{Catalogue, Handles};
use crate::error::{Error, ErrorKind as Kind, Result};
use crate::ops::Augment;
use crate::shape::{Dims, Size};

/// Everything that samples are made from.
#[derive(Debug)]
pub struct Source {
    /// The images.
    pub catalogue: Arc<Catalogue>,
    /// The samples of an epoch.
    pub samples: Arc<Samples>,
    /// Number of samples of a batch.
    pub batch: usize,
    /// The samples of a batch that this process needs. The others are not read and stay 0.
    pub own: Range<usize>,
    /// Seed of order, crops and flips.
    pub seed: u64,
    /// Dimensions of a sample.
    pub dims: Dims,
    /// Random crops and flips.
    pub augment: Augment,
}

impl Source {
    /// Number of steps per epoch.
    fn steps(&self) -> u64 {
        (self.samples.len() / self.batch) as u64
    }

    /// Reads the stored samples of a group (N,H,W,C). They equal those that
    /// [`crate::ops::GatherBatch`] gathers from images in memory.
    fn read(
        &self,
        order: &Order,
        epoch: u64,
        group: usize,
        handles: &mut Handles,
    ) -> Result<Vec<u8>> {
        let Dims { c, h, w } = self.dims;
        // Bytes of a pixel.
        let c = self.catalogue.encoding.pixel(c);
        let len = self.dims.area() * c;
        let entries = order.groups[group]..order.groups[group + 1];
        let start = entries.start;
        let mut by_image: Vec<usize> =
            entries.clone().filter(|entry| self.own.contains(&(entry % self.batch))).collect();
        by_image.sort_by_key(|entry| order.images[*entry]);
        let images: Vec<usize> =
            by_image.iter().map(|entry| order.images[*entry] as usize).collect();
        let mut out = vec![0; entries.len() * len];
        self.catalogue.for_each(&images, handles, |at, pixels| {
            let (entry, image) = (by_image[at], images[at]);
            let Size { h: height, w: width } = self.catalogue.size(image);
            let step = epoch * self.steps() + (entry / self.batch) as u64;
            let draw =
                self.augment.draw(entry as u32, step as u32, self.seed, height - h, width - w);
            let sample = &mut out[(entry - start) * len..][..len];
            if draw.turn {
                for (at, to) in sample.chunks_exact_mut(c).enumerate() {
                    let [y, x] = draw.from([at / w, at % w], self.dims.size());
                    to.copy_from_slice(
                        &pixels[((draw.top + y) * width + draw.left + x) * c..][..c],
                    );
                }
                return;
            }
            for (y, to) in sample.chunks_exact_mut(w * c).enumerate() {
                let row = draw.top + if draw.flip_y { h - 1 - y } else { y };
                let row = &pixels[(row * width + draw.left) * c..][..w * c];
                if draw.flip_x {
                    to.chunks_exact_mut(c)
                        .zip(row.chunks_exact(c).rev())
                        .for_each(|(to, from)| to.copy_from_slice(from));
                } else {
                    to.copy_from_slice(row);
                }
            }
        })?;
        Ok(out)
    }
}

/// How far ahead images are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ahead {
    /// Number of reading threads.
    pub threads: usize,
    /// Maximum number of groups that are finished or being read.
    pub groups: usize,
}

impl Ahead {
    /// The minimum: one thread reads the next group while batches use the current one.
    pub const MIN: Self = Self { threads: 1, groups: 1 };

    /// Keeps `threads` threads busy: each reads a group, and one group is finished.
    pub const fn for_threads(threads: usize) -> Self {
        Self { threads, groups: threads + 1 }
    }

    /// Returns the largest setting that takes at most `room` bytes, but not less than the minimum.
    pub fn within(
        room: u64,
        threads: usize,
        samples: &Samples,
        catalogue: &Catalogue,
        dims: Dims,
    ) -> Self {
        let memory = ReadingMemory::of(samples, catalogue, dims);
        let all =
            (1..=threads + 1).rev().map(|groups| Self { threads: threads.min(groups), groups });
        all.into_iter().find(|ahead| memory.bytes(*ahead) <= room).unwrap_or(Self::MIN)
    }

    /// Bytes that reading takes: finished groups, groups being read, the group in use, and decoding
    /// buffers.
    pub fn bytes(self, samples: &Samples, catalogue: &Catalogue, dims: Dims) -> u64 {
        ReadingMemory::of(samples, catalogue, dims).bytes(self)
    }
}

/// Upper bounds on the memory of reading.
struct ReadingMemory {
    /// Bytes per group.
    group: u64,
    /// Bytes per thread.
    thread: u64,
}

impl ReadingMemory {
    fn of(samples: &Samples, catalogue: &Catalogue, dims: Dims) -> Self {
        let group_len = samples.max_group_len();
        // Each thread sorts the samples of a group by image.
        let sorting = group_len * (2 * size_of::<usize>());
        Self {
            group: (group_len * dims.area() * catalogue.encoding.pixel(dims.c)) as u64,
            thread: catalogue.reading_bytes() + sorting as u64,
        }
    }

    const fn bytes(&self, ahead: Ahead) -> u64 {
        (ahead.groups as u64 + 1) * self.group + ahead.threads as u64 * self.thread
    }
}

/// State shared between the threads and their reader. Group numbers continue across epochs.
#[derive(Debug, Default)]
struct State {
    /// The next group to read.
    next: u64,
    /// The group that the reader waits for. Threads read at most [`Ahead::groups`] groups from here
    /// on.
    wanted: u64,
    /// Number of jumps of the reader. Results that were started before a jump are discarded.
    jumps: u64,
    ready: BTreeMap<u64, Result<Vec<u8>>>,
    stop: bool,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    orders: Mutex<BTreeMap<u64, Arc<Order>>>,
    source: Source,
    ahead: Ahead,
}

/// Threads that read the upcoming groups.
#[derive(Debug)]
pub struct Prefetch {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    /// Number and samples of the group that the last batch ended in.
    held: Option<(u64, Vec<u8>)>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Prefetch {
    /// Starts the threads.
    ///
    /// # Errors
    /// If the system allows none.
    pub fn new(source: Source, ahead: Ahead) -> Result<Self> {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            changed: Condvar::new(),
            orders: Mutex::default(),
            source,
            ahead,
        });
        let start = |_| {
            let shared = Arc::clone(&shared);
            std::thread::Builder::new().spawn(move || shared.work())
        };
        // If the system allows fewer threads, fewer read. At least one must.
        let threads: Vec<_> = (0..ahead.threads).map(start).map_while(|made| made.ok()).collect();
        if threads.is_empty() {
            return Err(Error::failed("the system allows no thread to read images ahead"));
        }
        Ok(Self { shared, threads, held: None })
    }

    /// Appends the batch of a step to `batch`, as N,H,W,C bytes. Consecutive steps are fastest; any
    /// other step is allowed.
    ///
    /// # Errors
    /// If an image can no longer be read; the message names its file.
    pub fn take(&mut self, step: u64, batch: &mut Vec<u8>) -> Result<()> {
        let source = &self.shared.source;
        let epoch = step / source.steps();
        let len = source.dims.area() * source.catalogue.encoding.pixel(source.dims.c);
        let start = (step % source.steps()) as usize * source.batch;
        let order = self.shared.order_of(epoch);
        let mut group = order.groups.partition_point(|begin| *begin <= start) - 1;
        let first = epoch * source.samples.groups();
        batch.reserve_exact(source.batch * len);
        let mut at = start;
        while at < start + source.batch {
            let (begin, end) =
                (order.groups[group], order.groups[group + 1].min(start + source.batch));
            let number = first + group as u64;
            // Drop the old group before the next arrives, so that only one is in memory.
            if self.held.as_ref().is_none_or(|(held, _)| *held != number) {
                self.held = None;
                self.held = Some((number, self.shared.wait_for(number)?));
            }
            let (_, read) = self.held.as_ref().expect("the group was just read");
            batch.extend_from_slice(&read[(at - begin) * len..(end - begin) * len]);
            (at, group) = (end, group + 1);
        }
        Ok(())
    }
}

impl Drop for Prefetch {
    fn drop(&mut self) {
        lock(&self.shared.state).stop = true;
        self.shared.changed.notify_all();
        for thread in self.threads.drain(..) {
            // Threads catch their own panics, so `join` cannot fail.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn order_of(&self, epoch: u64) -> Arc<Order> {
        let mut orders = lock(&self.orders);
        if !orders.contains_key(&epoch) {
            while orders.len() >= ORDERS {
                let furthest = *orders
                    .keys()
                    .max_by_key(|other| other.abs_diff(epoch))
                    .expect("the map is not empty");
                orders.remove(&furthest);
            }
            orders.insert(epoch, Arc::new(self.source.samples.order(self.source.seed, epoch)));
        }
        Arc::clone(&orders[&epoch])
    }

    fn wait_for(&self, group: u64) -> Result<Vec<u8>> {
        let mut state = lock(&self.state);
        if group < state.wanted || group >= state.next {
            *state = State { next: group, jumps: state.jumps + 1, ..State::default() };
        }
        // Drop groups at the end of an epoch that no batch used.
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
            if state.next >= state.wanted + self.ahead.groups as u64 {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let (number, jumps) = (state.next, state.jumps);
            state.next += 1;
            drop(state);
            let made = catch_unwind(AssertUnwindSafe(|| {
                let (epoch, group) =
                    (number / self.source.samples.groups(), number % self.source.samples.groups());
                self.source
                    .read(&self.order_of(epoch), epoch, group as usize, &mut handles)
                    .map_err(|error| error.of(Kind::Data))
            }));
            let read = made.unwrap_or_else(|_| {
                Err(Error::failed("a thread that reads images panicked".to_owned()))
            });
            state = lock(&self.state);
            if state.jumps == jumps && number >= state.wanted {
                state.ready.insert(number, read);
                self.changed.notify_all();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{LoadOptions, Pixels, open};
    use crate::testing::Folder;

    /// An IDX file of 200 images of 8×8, streamed.
    fn streamed(folder: &Folder) -> Arc<Catalogue> {
        let head = [0, 0, 8, 3, 0, 0, 0, 200, 0, 0, 0, 8, 0, 0, 0, 8];
        let values = (0..200 * 64_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8);
        let file =
            folder.write("x-idx3-ubyte", &head.into_iter().chain(values).collect::<Vec<u8>>());
        let Pixels::Streamed(catalogue) =
            open(file.to_str().unwrap(), &LoadOptions::default(), 100).unwrap().pixels
        else {
            panic!("not streamed")
        };
        catalogue
    }

    #[test]
    fn batches_are_those_of_the_order_and_few_orders_are_kept() {
        let folder = Folder::new("prefetch");
        let (catalogue, dims) = (streamed(&folder), Dims::new(1, 8, 8));
        let samples = Arc::new(Samples::new((0..200).map(|_| (1, false)), dims, 150).unwrap());
        let augment = Augment { crop: false, flip_x: false, flip_y: false, turn: false };
        let source = Source {
            catalogue: Arc::clone(&catalogue),
            samples: Arc::clone(&samples),
            batch: 150,
            own: 0..150,
            seed: 3,
            dims,
            augment,
        };
        let mut handles = Handles::default();
        let mut ahead = |ahead: Ahead| {
            let source = Source {
                catalogue: Arc::clone(&source.catalogue),
                samples: Arc::clone(&samples),
                own: source.own.clone(),
                ..source
            };
            let mut prefetch = Prefetch::new(source, ahead).unwrap();
            // A batch spans three groups, and an epoch has one step. The steps also jump back and
            // far ahead.
            for step in [0, 1, 2, 3, 4, 1, 90, 91] {
                let mut batch = Vec::new();
                prefetch.take(step, &mut batch).unwrap();
                let order = samples.order(3, step);
                let expected = order.images[..150]
                    .iter()
                    .flat_map(|image| catalogue.read(*image as usize, &mut handles).unwrap());
                assert!(batch == expected.collect::<Vec<u8>>(), "step {step} with {ahead:?}");
                assert!(lock(&prefetch.shared.orders).len() <= ORDERS);
                assert!(lock(&prefetch.shared.state).ready.len() <= ahead.groups);
            }
        };
        ahead(Ahead::MIN);
        ahead(Ahead::for_threads(3));
    }

    #[test]
    fn reading_goes_as_far_ahead_as_there_is_room() {
        let folder = Folder::new("ahead");
        let (catalogue, dims) = (streamed(&folder), Dims::new(1, 8, 8));
        let samples = Samples::new((0..200).map(|_| (1, false)), dims, 1).unwrap();
        let within = |room| Ahead::within(room, 16, &samples, &catalogue, dims);
        assert_eq!((within(u64::MAX), within(0)), (Ahead::for_threads(16), Ahead::MIN));
        let bytes = |ahead: Ahead| ahead.bytes(&samples, &catalogue, dims);
        // Groups of single samples are smaller than groups of crops.
        assert!(
            bytes(Ahead::for_threads(16)) < (16 + 2) * 64 * 64 + 16 * 2048,
            "{}",
            bytes(Ahead::for_threads(16))
        );
        for room in (bytes(Ahead::MIN)..bytes(Ahead::for_threads(16))).step_by(500) {
            let found = within(room);
            let more = Ahead { threads: 16.min(found.groups + 1), groups: found.groups + 1 };
            assert!(bytes(found) <= room && bytes(more) > room, "{room}: {found:?}");
            assert!((1..=found.groups).contains(&found.threads), "{found:?}");
        }
    }
}
