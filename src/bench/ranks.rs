//! Training steps on several processes: the time of the exchange of gradients, measured, and
//! predictions for networks and numbers of processes that are not at hand.

use std::time::Instant;

use serde::Serialize;

use super::{StepResult, spread};
use crate::error::Result;
use crate::ranks::{Group, Transport};

/// Rates of networks in Gbit/s.
pub const NETWORKS: [f64; 4] = [1.0, 10.0, 25.0, 100.0];

/// Numbers of processes.
pub const COUNTS: [usize; 10] = [2, 4, 8, 16, 32, 64, 128, 256, 512, 1024];

/// Microseconds from the start of a small message to its arrival: TCP over Ethernet.
pub const LATENCY: f64 = 30.0;

/// The share of a step that is not communication, in a good training.
const GOOD: f64 = 0.8;

/// The time of an exchange between processes.
#[derive(Clone, Debug, Serialize)]
pub struct ExchangeResult {
    /// `exchange`
    pub kind: &'static str,
    /// The model.
    pub workload: String,
    /// Number of processes.
    pub processes: usize,
    /// What carries the bytes.
    pub transport: String,
    /// Bytes of the gradients.
    pub bytes: u64,
    /// Median milliseconds of an exchange.
    pub ms: f64,
    /// Milliseconds of the fastest exchange.
    pub min: f64,
    /// Milliseconds of the slowest exchange.
    pub max: f64,
    /// Milliseconds of a step of one process, without the exchange.
    pub step_ms: f64,
    /// Share of a step that is not the exchange.
    pub efficiency: f64,
}

/// A prediction.
#[derive(Clone, Debug, Serialize)]
pub struct ScalingRow {
    /// `scaling`
    pub kind: &'static str,
    /// The model.
    pub workload: String,
    /// Rate of the network in Gbit/s.
    pub network: f64,
    /// Number of processes, each on a machine of its own.
    pub processes: usize,
    /// Milliseconds of the exchange.
    pub exchange_ms: f64,
    /// Share of a step that is not the exchange, if each process computes the measured batch.
    pub efficiency: f64,
    /// Samples of the whole batch from which on that share is at least 80 %.
    pub batch: u64,
}

/// Times the exchange of a model's gradients. All processes must call it.
///
/// # Errors
/// If a process has ended.
pub fn exchange(group: &Group, step: &StepResult, windows: usize) -> Result<ExchangeResult> {
    let gradients = vec![vec![1.0_f32; step.params]];
    let mut times = Vec::new();
    for window in 0..=windows {
        // All start at the same time.
        group.gather_equal(vec![0])?;
        let start = Instant::now();
        let count = if window == 0 { 1 } else { 5 };
        for _ in 0..count {
            let sum = group.sum_in_order(&gradients)?;
            debug_assert!(sum.iter().all(|value| *value == group.size as f32));
        }
        // The first exchange also opens connections.
        if window > 0 {
            times.push(start.elapsed().as_secs_f64() * 1e3 / f64::from(count));
        }
    }
    let (ms, min, max) = spread(times);
    Ok(ExchangeResult {
        kind: "exchange",
        workload: step.workload.clone(),
        processes: group.size,
        transport: group.transport(),
        bytes: 4 * step.params as u64,
        ms,
        min,
        max,
        step_ms: step.ms,
        efficiency: step.ms / (step.ms + ms),
    })
}

/// Seconds that a network of `rate` Gbit/s needs for an exchange of `bytes` of gradients.
///
/// Every process sends each other one its slice, and then its sum of a slice to all. Libraries do
/// each of both either in n − 1 rounds with a slice each, or in log₂ n rounds with half of all
/// bytes each (Bruck et al. 1997; for the second, slices double from round to round). The faster
/// one counts.
///
/// `latency` is in microseconds.
pub fn exchange_seconds(bytes: f64, processes: usize, rate: f64, latency: f64) -> f64 {
    let (n, rate, latency) = (processes as f64, rate * 1e9 / 8.0, latency / 1e6);
    let rounds = n.log2().ceil();
    let in_rings = 2.0 * (n - 1.0) * (latency + bytes / n / rate);
    let slices = rounds * (latency + bytes / 2.0 / rate);
    let sums = rounds * latency + bytes * (n - 1.0) / n / rate;
    in_rings.min(slices + sums)
}

/// Passes on to itself what a single process sends.
#[derive(Debug)]
struct Alone;

impl Transport for Alone {
    fn all_to_all(&self, send: &[u8], receive: &mut [u8]) -> Result<()> {
        receive.copy_from_slice(send);
        Ok(())
    }

    fn all_gather(&self, send: &[u8], receive: &mut [u8]) -> Result<()> {
        receive.copy_from_slice(send);
        Ok(())
    }

    fn broadcast(&self, _: &mut [u8]) -> Result<()> {
        Ok(())
    }

    fn name(&self) -> String {
        "nothing".to_owned()
    }
}

/// Seconds that a process needs in an exchange of this model's gradients to order and to sum them:
/// all that is not the network's. It does not depend on the number of processes, because each one
/// sums a share of all gradients.
///
/// # Errors
/// Never: nothing is sent.
pub fn own_seconds(step: &StepResult) -> Result<f64> {
    let group = Group::meet(0, 1, Box::new(Alone), (String::new(), Vec::new()), || 0)?;
    let gradients = vec![vec![1.0_f32; step.params]];
    let once = || -> Result<f64> {
        let start = Instant::now();
        group.sum_in_order(&gradients)?;
        Ok(start.elapsed().as_secs_f64())
    };
    once()?;
    let times = (0..5).map(|_| once()).collect::<Result<Vec<_>>>()?;
    Ok(spread(times).0)
}

/// Predictions from a measured step. `own` is the time of [`own_seconds`].
pub fn scaling(step: &StepResult, latency: f64, own: f64) -> Vec<ScalingRow> {
    let each = 1.0 / step.images_per_s;
    let row = |network: f64, processes: usize| {
        let bytes = 4.0 * step.params as f64;
        let exchange = own + exchange_seconds(bytes, processes, network, latency);
        let compute = each * step.batch as f64;
        let batch = processes as f64 * exchange * GOOD / (1.0 - GOOD) / each;
        ScalingRow {
            kind: "scaling",
            workload: step.workload.clone(),
            network,
            processes,
            exchange_ms: exchange * 1e3,
            efficiency: compute / (compute + exchange),
            batch: batch.ceil() as u64,
        }
    };
    let of_network = |network: &f64| COUNTS.map(|processes| row(*network, processes));
    NETWORKS.iter().flat_map(of_network).collect()
}

/// The predictions as a table: a line for each number of processes, and for each network the share
/// and the batch.
pub fn table(rows: &[ScalingRow]) -> Vec<String> {
    let of = |network: f64, processes: usize| {
        rows.iter().find(|row| row.network == network && row.processes == processes)
    };
    let heading = NETWORKS.iter().fold("processes".to_owned(), |line, network| {
        line + &format!("  {:>20}", format!("{network} Gbit/s"))
    });
    let lines = COUNTS.iter().map(|processes| {
        NETWORKS.iter().fold(format!("{processes:>9}"), |line, network| {
            let cell = of(*network, *processes).map_or(String::new(), |row| {
                format!("{:>5.1} %, {:>9}", 100.0 * row.efficiency, row.batch)
            });
            line + &format!("  {cell:>20}")
        })
    });
    std::iter::once(heading).chain(lines).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exchange_moves_the_gradients_twice() {
        // A gigabit network carries 125 MB/s. 2·(n − 1)/n of 68 MB, and latency.
        for (processes, share) in [(2, 1.0), (4, 1.5)] {
            let seconds = exchange_seconds(68e6, processes, 1.0, LATENCY);
            let expected = share * 68e6 / 125e6;
            assert!((seconds / expected - 1.0).abs() < 0.01, "{processes}: {seconds}");
        }
        // Many small slices take rounds, not bytes.
        let many = exchange_seconds(1e3, 1024, 100.0, LATENCY);
        assert!((many / (20.0 * LATENCY / 1e6) - 1.0).abs() < 0.01, "{many}");
    }
}
