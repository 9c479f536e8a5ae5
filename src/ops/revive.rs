//! Resurrecting dead units, on the device and without randomness. A constant gradient on the
//! pre-activation pushes a unit up that has not fired for `patience` steps, until it fires. This is
//! the pre-activation loss of Conerly et al. 2025, restricted to dead units.

pub(super) mod cpu;

use super::alone::{Alone, CODE, MAPS};
use super::reduce::{Split, WORKGROUP};
use super::{Work, each, maps_of, operation, shaders};
use crate::gpu::{Kernel, Recorder, params};
use crate::shape::Dims;

shaders! {
    FiringUpdate "firing_update",
    IdleUpdate "idle_update",
    Revive "revive",
    IdleOnly "idle_only",
}

operation! {
    /// idle[c] = 0 if any z[·,c] ≠ 0 in this batch, else idle[c] + 1: the number of steps since the
    /// unit last fired, stored as a real.
    FiringUpdate { n: usize, dims: Dims } reads { z } updates { idle }
}

impl Work for FiringUpdate {
    fn flops(&self) -> f64 {
        each(self.z.len, 1)
    }

    fn sizes(&self) -> String {
        maps_of(self.n, self.dims)
    }

    fn alone(n: usize) -> Vec<Alone<Self>> {
        let one = Alone::new(|m| {
            let (z, idle) = (m.real(n * MAPS.len()), m.real(MAPS.c));
            Self { n, dims: MAPS, z, idle }
        });
        vec![one]
    }
}

operation! {
    /// Updates the idle counters after a batch that was processed in `parts`: idle[c] = idle[c] + 1
    /// if unseen[c] = parts, else 0; then unseen = 0. [`FiringUpdate`] has updated `unseen`,
    /// starting from 0, for each part, so it equals `parts` only if the unit fired in none.
    IdleUpdate { parts: usize } updates { unseen, idle }
}

impl Work for IdleUpdate {
    fn flops(&self) -> f64 {
        each(self.idle.len, 2)
    }

    fn sizes(&self) -> String {
        self.idle.len.to_string()
    }

    fn alone(n: usize) -> Vec<Alone<Self>> {
        let one = Alone::new(|m| {
            // The number of units grows with the batch; at a batch of 32 it is that of the code.
            let [unseen, idle] = m.two(CODE.c * n / 32);
            Self { parts: 2, unseen, idle }
        });
        vec![one]
    }
}

operation! {
    /// dx[n,·,c] −= strength/(n·H·W) where idle[c] ≥ patience. Gradient descent then raises x.
    Revive { n: usize, dims: Dims, patience: usize, strength: f64 } reads { idle } updates { dx }
}

impl Work for Revive {
    fn flops(&self) -> f64 {
        each(self.dx.len, 2)
    }

    fn sizes(&self) -> String {
        maps_of(self.n, self.dims)
    }

    fn alone(n: usize) -> Vec<Alone<Self>> {
        let one = Alone::new(|m| {
            let (dx, idle) = (m.real(n * MAPS.len()), m.real(MAPS.c));
            Self { n, dims: MAPS, patience: 0, strength: 1e-3, idle, dx }
        });
        vec![one]
    }
}

operation! {
    /// y[n,·,c] = x[n,·,c] where idle[c] ≥ patience, else `fill`.
    IdleOnly { n: usize, dims: Dims, patience: usize, fill: f64 } reads { x, idle } writes { y }
}

impl Work for IdleOnly {
    fn flops(&self) -> f64 {
        0.0
    }

    fn sizes(&self) -> String {
        maps_of(self.n, self.dims)
    }

    fn alone(n: usize) -> Vec<Alone<Self>> {
        let one = Alone::new(|m| {
            let ([x, y], idle) = (m.two(n * MAPS.len()), m.real(MAPS.c));
            Self { n, dims: MAPS, patience: 1, fill: 0.0, x, idle, y }
        });
        vec![one]
    }
}

params! {
    struct IdleOnlyParams { vectors: u32, channels: u32, patience: f32, fill: f32 }
}

impl IdleOnly {
    pub(crate) fn record(&self, r: &mut Recorder) {
        let vectors = self.y.len.div_ceil(4);
        let params = IdleOnlyParams {
            vectors: vectors as u32,
            channels: self.dims.c as u32,
            patience: self.patience as f32,
            fill: self.fill as f32,
        };
        r.kernel(Kernel::IdleOnly, &params)
            .bind("x", self.x)
            .bind("idle", self.idle)
            .bind("y", self.y)
            .threads(vectors);
    }
}

params! {
    struct FiringUpdateParams {
        rows: u32, channels: u32, lanes: u32, blocks: u32, rows_per_slice: u32, slices: u32,
        increment: u32,
    }
}

params! {
    struct IdleUpdateParams { vectors: u32, parts: f32 }
}

params! {
    struct ReviveParams { vectors: u32, channels: u32, patience: f32, push: f32 }
}

impl FiringUpdate {
    pub(crate) fn record(&self, r: &mut Recorder) {
        let rows = self.n * self.dims.area();
        let Split { lanes, blocks, rows_per_slice, slices } = Split::new(rows, self.dims.c);
        let mut dispatch = |rows: usize, slices: usize, increment: bool| {
            let params = FiringUpdateParams {
                rows: rows as u32,
                channels: self.dims.c as u32,
                lanes: lanes as u32,
                blocks: blocks as u32,
                rows_per_slice: rows_per_slice as u32,
                slices: slices as u32,
                increment: increment.into(),
            };
            r.kernel(Kernel::FiringUpdate, &params)
                .bind("z", self.z)
                .bind("idle", self.idle)
                .groups((blocks * slices) as u64, WORKGROUP);
        };
        if slices == 1 {
            dispatch(rows, 1, true);
        } else {
            // No workgroup sees all rows. So a first dispatch increments all counters, and in a
            // second each workgroup clears those of the units that fired in its rows.
            dispatch(0, 1, true);
            dispatch(rows, slices, false);
        }
    }
}

impl IdleUpdate {
    pub(crate) fn record(&self, r: &mut Recorder) {
        let vectors = self.idle.len.div_ceil(4);
        r.kernel(
            Kernel::IdleUpdate,
            &IdleUpdateParams { vectors: vectors as u32, parts: self.parts as f32 },
        )
        .bind("unseen", self.unseen)
        .bind("idle", self.idle)
        .threads(vectors);
    }
}

impl Revive {
    pub(crate) fn record(&self, r: &mut Recorder) {
        let vectors = self.dx.len.div_ceil(4);
        let params = ReviveParams {
            vectors: vectors as u32,
            channels: self.dims.c as u32,
            patience: self.patience as f32,
            push: (self.strength / (self.n * self.dims.area()) as f64) as f32,
        };
        r.kernel(Kernel::Revive, &params)
            .bind("idle", self.idle)
            .bind("dx", self.dx)
            .threads(vectors);
    }
}
