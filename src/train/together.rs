//! A training that several processes (ranks) share. Each computes the gradients of its parts of a
//! batch. All of them sum the gradients of all parts in the order of the parts, and make the same
//! update. So the result equals that of one process that computes the parts one after another, to
//! the last byte.
//!
//! Rank 0 leads: it validates, writes all files and decides what comes next. The others follow its
//! requests.

use std::ops::Range;
use std::sync::{Arc, mpsc};

use super::parts::Shares;
use super::step::WIDTH;
use super::trainer::Trainer;
use crate::device::Device;
use crate::error::{Error, ErrorKind as Kind, Result};
use crate::hash::Hash;
use crate::model::Store;
use crate::ranks::{Group, Ready};
use crate::spec::TrainSpec;
use crate::view::{StepParams, View};

/// What rank 0 asks of the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Request {
    /// Take part in the next step.
    Step,
    /// Take the state of rank 0, after `done` steps.
    State { done: u64, retried: u32 },
    /// Compare the parameters with those of rank 0.
    Compare,
    /// End with this exit status.
    End { status: u8 },
}

impl Request {
    fn send(self, group: &Group) -> Result<()> {
        let words = match self {
            Self::Step => [0, 0, 0],
            Self::State { done, retried } => [1, done, u64::from(retried)],
            Self::Compare => [2, 0, 0],
            Self::End { status } => [3, u64::from(status), 0],
        };
        group.broadcast(bytemuck::cast_slice(&words).to_vec()).map(drop)
    }

    fn receive(group: &Group) -> Result<Self> {
        let bytes = group.broadcast(vec![0; 24])?;
        let words: [u64; 3] = bytemuck::pod_read_unaligned(&bytes);
        Ok(match words[0] {
            0 => Self::Step,
            1 => Self::State { done: words[1], retried: words[2] as u32 },
            2 => Self::Compare,
            _ => Self::End { status: words[1] as u8 },
        })
    }
}

/// Asks the other ranks to end with this exit status.
///
/// # Errors
/// If one of them has ended.
pub fn end(group: &Group, status: u8) -> Result<()> {
    Request::End { status }.send(group)
}

/// The parts of a batch that this process computes: all, or an equal share.
///
/// # Errors
/// If the parts do not split over the ranks.
pub fn own_parts(train: &TrainSpec, group: Option<&Group>) -> Result<Range<usize>> {
    let parts = train.accumulate;
    let Some(group) = group else { return Ok(0..parts) };
    let size = group.size;
    if !parts.is_multiple_of(size) {
        return Err(Error::usage(format!(
            "train.accumulate = {parts}: the parts of a batch must split over {size} processes; \
             set it to a multiple of {size}, or start {} processes",
            (1..size).rev().find(|fewer| parts.is_multiple_of(*fewer)).unwrap_or(1)
        )));
    }
    let own = parts / size;
    Ok(group.rank * own..(group.rank + 1) * own)
}

/// What a rank reports when its part of a step is computed.
struct Report {
    failed: bool,
    /// Number of the signal that asked this rank to end, or 0.
    signal: u8,
    /// The scalars of its parts.
    scalars: Vec<f32>,
}

impl Report {
    fn bytes(&self) -> Vec<u8> {
        let head = [u32::from(self.failed), u32::from(self.signal)];
        [bytemuck::cast_slice(&head), bytemuck::cast_slice(&self.scalars)].concat()
    }

    fn of(bytes: &[u8]) -> Self {
        let words: Vec<u32> = bytemuck::pod_collect_to_vec(bytes);
        let scalars = words[2..].iter().map(|word| f32::from_bits(*word)).collect();
        Self { failed: words[0] != 0, signal: words[1] as u8, scalars }
    }
}

impl Trainer<'_> {
    /// Meets the other ranks before the first step. All must agree on `facts`: names and values.
    /// Then all take the state of rank 0.
    ///
    /// # Errors
    /// If a rank has failed, or has other facts.
    pub fn join(&mut self, device: &mut Device, facts: &[(&str, String)]) -> Result<()> {
        let Some(group) = self.ranks.clone() else { return Ok(()) };
        group.agree(&Ready::of(facts))?;
        if group.leads() { self.send_state(device) } else { Ok(()) }
    }

    /// Follows the requests of rank 0 until it asks to end. Returns the exit status that it asks
    /// for.
    ///
    /// # Errors
    /// If this rank or another one fails.
    pub fn follow(&mut self, device: &mut Device) -> Result<u8> {
        let Some(group) = self.ranks.clone() else { return Ok(0) };
        loop {
            match Request::receive(&group)? {
                Request::Step => {
                    self.step_together(device, &group)?;
                    self.done += 1;
                }
                Request::State { done, retried } => {
                    for view in self.state_views() {
                        let bytes = group.broadcast(vec![0; 4 * view.len])?;
                        device.write(view, &bytemuck::pod_collect_to_vec::<u8, f32>(&bytes));
                    }
                    (self.done, self.schedule.retried) = (done, retried);
                }
                Request::Compare => drop(self.hashes(device, &group)?),
                Request::End { status } => return Ok(status),
            }
        }
    }

    /// Whether this process and another one train, and this one leads.
    pub(super) fn leads_others(&self) -> bool {
        self.ranks.as_ref().is_some_and(|group| group.leads() && group.has_agreed())
    }

    /// Whether another process was asked to end.
    #[cfg(feature = "cli")]
    pub(super) fn another_stops(&self) -> bool {
        self.ranks.as_ref().is_some_and(|group| group.signal() > 0)
    }

    fn state_views(&self) -> [View; 5] {
        let Store { weights, m, v, state, idle, .. } = self.store;
        [weights, m, v, state, idle]
    }

    /// Sends the state of rank 0 to the others.
    ///
    /// # Errors
    /// If a rank has ended, or the device fails.
    pub(super) fn send_state(&mut self, device: &mut Device) -> Result<()> {
        let Some(group) = self.ranks.clone() else { return Ok(()) };
        Request::State { done: self.done, retried: self.schedule.retried }.send(&group)?;
        for view in self.state_views() {
            let values = device.read(view)?;
            group.broadcast(bytemuck::cast_slice(&values).to_vec())?;
        }
        Ok(())
    }

    /// Checks that all ranks have the same parameters as rank 0. If not, because they compute on
    /// devices that round differently, the others take those of rank 0. Returns the name of a rank
    /// that differed.
    ///
    /// # Errors
    /// If a rank has ended, or the device fails.
    pub fn align(&mut self, device: &mut Device) -> Result<Option<String>> {
        let Some(group) = self.ranks.clone().filter(|_| self.leads_others()) else {
            return Ok(None);
        };
        Request::Compare.send(&group)?;
        let hashes = self.hashes(device, &group)?;
        let Some(other) = hashes.iter().position(|hash| *hash != hashes[0]) else {
            return Ok(None);
        };
        self.send_state(device)?;
        Ok(Some(group.name_of(other)))
    }

    /// The hash of the parameters of each rank.
    fn hashes(&self, device: &mut Device, group: &Group) -> Result<Vec<u64>> {
        let values = device.read(self.store.weights)?;
        let own = Hash::default().with(bytemuck::cast_slice(&values)).value();
        let all = group.gather_equal(own.to_le_bytes().to_vec())?;
        Ok(bytemuck::pod_collect_to_vec(&all))
    }

    /// Runs a step with the other ranks.
    pub(super) fn step_together(&mut self, device: &mut Device, group: &Group) -> Result<()> {
        if group.leads() {
            Request::Step.send(group)?;
        }
        let shares = self.shares(device, Some(group));
        // Gradients that are ready are summed while the others are computed.
        let (sums, computed) = std::thread::scope(|scope| {
            let (send, ready) = mpsc::channel::<Vec<Vec<f32>>>();
            let sums = scope.spawn(move || {
                ready.iter().map(|parts| group.sum_in_order(&parts)).collect::<Result<Vec<_>>>()
            });
            let computed = self.send_gradients(device, shares, &send);
            drop(send);
            (sums.join().expect("sums do not panic"), computed)
        });
        let sums = sums?;
        let mut scalars = computed.as_ref().cloned().unwrap_or_default();
        scalars.resize(WIDTH * self.own_parts.len(), 0.0);
        let report = Report { failed: computed.is_err(), signal: group.own_signal(), scalars };
        let length = report.bytes().len();
        let all = group.gather_equal(report.bytes())?;
        let reports: Vec<Report> = all.chunks_exact(length).map(Report::of).collect();
        if reports.iter().any(|report| report.failed) {
            return Err(first_failure(group, &reports, computed.err()));
        }
        group.note_signal(reports.iter().map(|report| report.signal).max().unwrap_or(0));
        let sum = self.store.sum;
        for (values, range) in sums.iter().zip(self.program.ready.clone()) {
            let (of_gradients, of_unseen) = values.split_at(range.len());
            device.write(sum.part(range.start, range.len()), of_gradients);
            if !of_unseen.is_empty() {
                device.write(self.store.unseen, of_unseen);
            }
        }
        let rows: Vec<f32> = reports.iter().flat_map(|report| &report.scalars).copied().collect();
        let mut params = self.schedule.params(self.done);
        params.slot = self.slot(0);
        let first = params.slot as usize * WIDTH;
        device.write(self.scalars.part(first, rows.len()), &rows);
        params.slot = self.slot(self.parts - 1);
        self.program.run_update(device, &params)?;
        params.lr = (self.schedule.lr(self.done) * self.encoder_lr) as f32;
        self.program.update_encoder(device, &params)
    }

    /// Computes the gradients of the own parts, and sends pieces of them as they become ready: for
    /// each piece the values of all own parts. Returns the scalars of the parts. If this process or
    /// another one fails, the rest is 0, because all ranks must send the same number of pieces.
    fn send_gradients(
        &mut self,
        device: &mut Device,
        shares: Result<Option<Shares>>,
        send: &mpsc::Sender<Vec<Vec<f32>>>,
    ) -> Result<Vec<f32>> {
        let ready = self.program.ready.clone();
        let mut sent = 0;
        let scalars = match shares {
            Ok(Some(shares)) => self.compute_gradients(device, &shares, &mut |parts| {
                sent += 1;
                // The receiver lives as long as the sender, unless an exchange failed.
                let _ = send.send(parts);
            }),
            // Another rank failed; it says so next.
            Ok(None) => Ok(Vec::new()),
            Err(error) => Err(error),
        };
        for (at, range) in ready.iter().enumerate().skip(sent) {
            let counts = if at + 1 == ready.len() { self.store.unseen.len } else { 0 };
            let _ = send.send(vec![vec![0.0; range.len() + counts]; self.own_parts.len()]);
        }
        scalars
    }

    fn compute_gradients(
        &mut self,
        device: &mut Device,
        shares: &Shares,
        send: &mut dyn FnMut(Vec<Vec<f32>>),
    ) -> Result<Vec<f32>> {
        let (own, grads, ready) =
            (self.own_parts.clone(), self.store.grads, self.program.ready.clone());
        let (mut scalars, mut earlier) = (Vec::new(), Vec::new());
        for part in own.start..own.end - 1 {
            let params = self.run_part(device, part, shares)?;
            earlier.push(device.read(grads)?);
            scalars.extend(self.row(device, &params)?);
        }
        let params = self.begin_part(device, own.end - 1, shares)?;
        for (at, range) in ready.iter().enumerate() {
            if let Some(program) = at.checked_sub(1).map(|before| &self.program.tail[before]) {
                device.run(program, &params)?;
            }
            let mut parts: Vec<Vec<f32>> =
                earlier.iter().map(|values: &Vec<f32>| values[range.clone()].to_vec()).collect();
            parts.push(device.read(grads.part(range.start, range.len()))?);
            if at + 1 == ready.len() {
                // Counters of units that have not fired add up, too: only a unit that fired in no
                // part counts as idle.
                let counts = device.read(self.store.unseen)?;
                let last = parts.len() - 1;
                for (at, part) in parts.iter_mut().enumerate() {
                    part.extend(counts.iter().map(|count| if at == last { *count } else { 0.0 }));
                }
            }
            send(parts);
        }
        scalars.extend(self.row(device, &params)?);
        Ok(scalars)
    }

    /// The scalars of a part that was computed.
    fn row(&self, device: &mut Device, params: &StepParams) -> Result<Vec<f32>> {
        device.read(self.scalars.part(params.slot as usize * WIDTH, WIDTH))
    }
}

/// The error of the first rank that failed. Every rank gets to know it.
fn first_failure(group: &Group, reports: &[Report], own: Option<Error>) -> Error {
    let text = own.as_ref().map_or(String::new(), ToString::to_string);
    let texts = match group.gather(text.as_bytes()) {
        Ok(texts) => texts,
        Err(error) => return own.unwrap_or(error),
    };
    let failed = reports.iter().position(|report| report.failed).unwrap_or(0);
    if let Some(own) = own.filter(|_| failed == group.rank) {
        return own;
    }
    let text = String::from_utf8_lossy(&texts[failed]);
    Error::failed(format!("{}: {text}", group.name_of(failed))).of(Kind::Rank)
}

/// The group of ranks that a device works for, with the parts of a batch of this one.
pub(super) fn share(
    device: &Device,
    train: &TrainSpec,
) -> Result<(Option<Arc<Group>>, Range<usize>)> {
    let group = device.ranks();
    let own = own_parts(train, group.as_deref())?;
    Ok((group, own))
}
