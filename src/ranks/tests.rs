//! Tests of a group, with ranks that are threads.

use std::sync::{Arc, Barrier, Mutex};

use super::*;

/// Exchanges bytes between threads.
#[derive(Debug)]
struct Threads {
    rank: usize,
    sent: Arc<Mutex<Vec<Vec<u8>>>>,
    barrier: Arc<Barrier>,
}

impl Threads {
    fn of(size: usize) -> Vec<Self> {
        let sent = Arc::new(Mutex::new(vec![Vec::new(); size]));
        let barrier = Arc::new(Barrier::new(size));
        (0..size)
            .map(|rank| Self { rank, sent: Arc::clone(&sent), barrier: Arc::clone(&barrier) })
            .collect()
    }

    fn exchange(&self, send: &[u8], receive: impl FnOnce(&[Vec<u8>])) -> Result<()> {
        self.sent.lock().unwrap()[self.rank] = send.to_vec();
        self.barrier.wait();
        receive(&self.sent.lock().unwrap());
        self.barrier.wait();
        Ok(())
    }
}

impl Transport for Threads {
    fn all_to_all(&self, send: &[u8], receive: &mut [u8]) -> Result<()> {
        self.exchange(send, |all| {
            let each = receive.len() / all.len();
            for (to, from) in receive.chunks_exact_mut(each.max(1)).zip(all) {
                to.copy_from_slice(&from[self.rank * each..][..each]);
            }
        })
    }

    fn all_gather(&self, send: &[u8], receive: &mut [u8]) -> Result<()> {
        self.exchange(send, |all| receive.copy_from_slice(&all.concat()))
    }

    fn broadcast(&self, bytes: &mut [u8]) -> Result<()> {
        let own = bytes.to_vec();
        self.exchange(&own, |all| bytes.copy_from_slice(&all[0]))
    }

    fn name(&self) -> String {
        "threads".to_owned()
    }
}

/// What `work` returns on each of `size` ranks.
fn on_each<R: Send>(size: usize, work: impl Fn(Group) -> R + Sync) -> Vec<R> {
    std::thread::scope(|scope| {
        let ranks: Vec<_> = Threads::of(size)
            .into_iter()
            .enumerate()
            .map(|(rank, threads)| {
                let work = &work;
                scope.spawn(move || {
                    let host = format!("host-{}", rank / 2);
                    let place = (host, vec![b'0' + (rank % 2) as u8]);
                    work(Group::meet(rank, size, Box::new(threads), place, || 0).unwrap())
                })
            })
            .collect();
        ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
    })
}

/// Values whose sum depends on the order.
fn part(number: usize, len: usize) -> Vec<f32> {
    let mut random = crate::rng::Stream::new(number as u64, "part");
    (0..len).map(|_| random.normal() * 10_f32.powi((number % 5) as i32)).collect()
}

fn in_order(parts: impl Iterator<Item = Vec<f32>>) -> Vec<f32> {
    parts
        .reduce(|mut sum, part| {
            sum.iter_mut().zip(part).for_each(|(sum, value)| *sum += value);
            sum
        })
        .unwrap()
}

#[test]
fn the_sum_is_that_of_one_process_to_the_last_bit() {
    for (size, each, len) in [(2, 1, 1000), (3, 2, 1001), (4, 3, 7), (5, 1, 3), (3, 1, 1)] {
        let parts = |rank: usize| (0..each).map(move |at| part(rank * each + at, len));
        let sums = on_each(size, |group| {
            group.sum_in_order(&parts(group.rank).collect::<Vec<_>>()).unwrap()
        });
        let expected = in_order((0..size).flat_map(parts));
        assert!(sums.iter().all(|sum| *sum == expected), "{size} ranks, {each} parts, {len}");
    }
}

#[test]
fn sums_of_other_lengths_do_not_disturb_each_other() {
    let lengths = [1000, 7, 0, 333, 1000];
    let parts = |rank: usize, len: usize| vec![part(rank, len), part(rank + 9, len)];
    let sums =
        on_each(3, |group| lengths.map(|len| group.sum_in_order(&parts(group.rank, len)).unwrap()));
    let expected = lengths.map(|len| in_order((0..3).flat_map(|rank| parts(rank, len))));
    assert!(sums.iter().all(|own| *own == expected));
}

#[test]
fn another_order_gives_another_sum() {
    let forward = in_order((0..4).map(|number| part(number, 1000)));
    let backward = in_order((0..4).rev().map(|number| part(number, 1000)));
    assert_ne!(forward, backward);
}

#[test]
fn bytes_of_different_lengths_reach_every_rank() {
    let text = |rank: usize| "x".repeat(rank).into_bytes();
    for all in on_each(4, |group| group.gather(&text(group.rank)).unwrap()) {
        assert_eq!(all, (0..4).map(text).collect::<Vec<_>>());
    }
    for got in on_each(3, |group| group.broadcast(vec![group.rank as u8 + 7; 5]).unwrap()) {
        assert_eq!(got, [7; 5]);
    }
}

#[test]
fn ranks_know_their_neighbours() {
    let found = on_each(5, |group| (group.local_rank(), group.sharing_cores(), group.name_of(3)));
    let local: Vec<usize> = found.iter().map(|(local, ..)| *local).collect();
    assert_eq!(local, [0, 1, 0, 1, 0]);
    // Each has cores of its own.
    assert!(found.iter().all(|(_, sharing, name)| *sharing == 1 && name == "rank 3 of 5 (host-1)"));
}

/// What each rank gets to know if the second says something else than the others.
fn agreed(other: &Ready) -> Vec<std::result::Result<bool, String>> {
    let usual = Ready::of(&[("version", "1".to_owned()), ("set of training data", "a".to_owned())]);
    on_each(3, |group| {
        let own = if group.rank == 1 { other } else { &usual };
        group.agree(own).map_err(|error| error.to_string())
    })
}

#[test]
fn ranks_agree_on_what_they_train() {
    let fact = |version: &str, data: &str| {
        Ready::of(&[("version", version.to_owned()), ("set of training data", data.to_owned())])
    };
    assert!(agreed(&fact("1", "a")).iter().all(|result| *result == Ok(true)));
    let cases = [
        (fact("2", "a"), "rank 1 of 3 (host-0) has another version than rank 0"),
        (fact("1", "b"), "rank 1 of 3 (host-0) has another set of training data"),
        (Ready::Failed("no such file".to_owned()), "rank 1 of 3 (host-0): no such file"),
        (Ready::Done, "has another task"),
    ];
    for (other, words) in cases {
        for result in agreed(&other) {
            let error = result.unwrap_err();
            assert!(error.contains(words), "{error}");
        }
    }
}

#[test]
fn ranks_that_fail_alike_say_it_once() {
    let same = Ready::Failed("no such file".to_owned());
    for result in on_each(2, |group| group.agree(&same).map_err(|error| error.to_string())) {
        assert_eq!(result, Err("no such file".to_owned()));
    }
    // A finished run: rank 0 has nothing to do, and the others wait for it.
    let yes = Ready::of(&[]);
    let done = on_each(3, |group| group.agree(if group.leads() { &Ready::Done } else { &yes }));
    assert!(done.into_iter().all(|result| result.is_ok_and(|others| others)));
    let done = on_each(3, |group| group.agree(&Ready::Done));
    assert!(done.into_iter().all(|result| result.is_ok_and(|others| !others)));
}
