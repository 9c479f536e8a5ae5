//! A training that several processes (ranks) share. Each computes the gradients of its parts of a
//! batch. All of them sum the gradients of all parts in the order of the parts, and make the same
//! update. So the result equals that of one process that computes the parts one after another, to
//! the last byte.
//!
//! Rank 0 leads: it validates, writes all files and decides what comes next. The others follow its
//! requests.

use std::ops::Range;
use std::sync::Arc;

use super::parts::Shares;
use super::step::WIDTH;
use super::trainer::Trainer;
use crate::device::Device;
use crate::error::{Error, ErrorKind as Kind, Result};
use crate::hash::Hash;
use crate::model::Store;
use crate::ranks::{Group, Ready};
use crate::spec::TrainSpec;
use crate::view::View;

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

/// What a rank says of its part of a step before the gradients are summed.
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
        let own = self.own_parts.clone();
        let shares = self.shares(device, Some(group));
        let computed = match &shares {
            Ok(Some(shares)) => {
                own.clone().map(|part| self.gradients_of(device, part, shares)).collect()
            }
            // Another rank failed; it says so next.
            Ok(None) => Ok(Vec::new()),
            Err(error) => Err(error.clone()),
        };
        let computed: Result<Vec<Computed>> = computed;
        let mut scalars: Vec<f32> = match &computed {
            Ok(parts) => parts.iter().flat_map(|part| part.scalars).collect(),
            Err(_) => Vec::new(),
        };
        scalars.resize(WIDTH * own.len(), 0.0);
        let report = Report { failed: computed.is_err(), signal: group.own_signal(), scalars };
        let length = report.bytes().len();
        let all = group.gather_equal(report.bytes())?;
        let reports: Vec<Report> = all.chunks_exact(length).map(Report::of).collect();
        if reports.iter().any(|report| report.failed) {
            return Err(first_failure(group, &reports, computed.err()));
        }
        group.note_signal(reports.iter().map(|report| report.signal).max().unwrap_or(0));
        // Counters of units that have not fired add up, too: only a unit that fired in no part
        // counts as idle.
        let mut gradients: Vec<Vec<f32>> =
            computed?.into_iter().map(|part| part.gradients).collect();
        let counted = device.read(self.store.unseen)?;
        let last = gradients.len() - 1;
        for (at, part) in gradients.iter_mut().enumerate() {
            part.extend(counted.iter().map(|count| if at == last { *count } else { 0.0 }));
        }
        let sum = group.sum_in_order(&gradients)?;
        let (of_gradients, of_unseen) = sum.split_at(self.store.sum.len);
        device.write(self.store.sum, of_gradients);
        device.write(self.store.unseen, of_unseen);
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

    /// Computes the gradients and the scalars of a part.
    fn gradients_of(
        &mut self,
        device: &mut Device,
        part: usize,
        shares: &Shares,
    ) -> Result<Computed> {
        let params = self.run_part(device, part, shares)?;
        let gradients = device.fetch(self.store.grads)?;
        let row = device.fetch(self.scalars.part(params.slot as usize * WIDTH, WIDTH))?;
        let gradients = device.collect(gradients)?;
        let row = device.collect(row)?;
        let scalars = row.try_into().expect("a row has this width");
        Ok(Computed { gradients, scalars })
    }
}

/// The gradients of a part of a batch.
struct Computed {
    gradients: Vec<f32>,
    scalars: [f32; WIDTH],
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
