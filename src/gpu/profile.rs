//! Measures the time of each dispatch of a plan, by GPU timestamps if the adapter has them.

use std::time::Instant;

use super::device::Gpu;
use super::plan::Plan;
use super::readback::Ticket;
use crate::error::Result;
use crate::profile::{Clock, Profile, Timed, monotonic};
use crate::view::{StepParams, View};

impl Gpu {
    /// The most precise clock that the adapter supports.
    pub fn clock(&self) -> Clock {
        let features = self.device().features();
        if self.queue().get_timestamp_period() <= 0.0
            || !features.contains(wgpu::Features::TIMESTAMP_QUERY)
        {
            Clock::Submissions
        } else if features.contains(wgpu::Features::TIMESTAMP_QUERY_INSIDE_PASSES) {
            Clock::Inside
        } else {
            Clock::Passes
        }
    }

    /// Runs a plan once, waits for it, and returns when each dispatch ran.
    ///
    /// # Errors
    /// If the device fails.
    pub fn profile(&mut self, plan: &Plan, step: &StepParams) -> Result<Profile> {
        self.profile_by(plan, step, self.clock())
    }

    /// As [`Gpu::profile`], with a given clock, which the adapter must support.
    ///
    /// # Errors
    /// If the device fails.
    pub fn profile_by(&mut self, plan: &Plan, step: &StepParams, clock: Clock) -> Result<Profile> {
        // Work submitted earlier must not count.
        self.wait()?;
        let readings = match clock {
            Clock::Inside | Clock::Passes => {
                self.by_timestamps(plan, step, clock == Clock::Inside)?
            }
            Clock::Submissions | Clock::Calls => self.by_submissions(plan, step)?,
        };
        let timed = plan.steps.iter().zip(monotonic(readings.into_iter()));
        let timed = timed.map(|(step, (start, end))| Timed {
            kernel: step.name.to_owned(),
            call: step.call,
            start,
            end,
        });
        let clock = if clock == Clock::Calls { Clock::Submissions } else { clock };
        Ok(Profile { clock, operations: plan.operations.clone(), timed: timed.collect() })
    }

    /// Seconds that the queue takes to copy one buffer to another of the same size, including the
    /// submission.
    ///
    /// # Errors
    /// If the device fails.
    ///
    /// # Panics
    /// If the views differ in length or share a buffer.
    pub fn time_copy(&mut self, from: View, to: View) -> Result<f64> {
        assert!(
            from.len == to.len && from.buffer != to.buffer,
            "time_copy needs two buffers and views of equal length"
        );
        self.wait()?;
        let began = Instant::now();
        let mut encoder = self.encoder();
        let (a, b) = (self.buffer(from.buffer), self.buffer(to.buffer));
        encoder.copy_buffer_to_buffer(
            a,
            from.start as u64 * 4,
            b,
            to.start as u64 * 4,
            from.len as u64 * 4,
        );
        self.submit(encoder);
        self.wait()?;
        Ok(began.elapsed().as_secs_f64())
    }

    /// Times each dispatch as a submission of its own, by the host's clock. The readings include
    /// the overhead of a submission.
    fn by_submissions(&mut self, plan: &Plan, params: &StepParams) -> Result<Vec<(f64, f64)>> {
        self.wait()?;
        let began = Instant::now();
        let now = || began.elapsed().as_secs_f64() * 1e9;
        let mut readings = Vec::new();
        for step in &plan.steps {
            let start = now();
            let mut encoder = self.encoder();
            let descriptor = wgpu::ComputePassDescriptor::default();
            step.dispatch(&mut encoder.begin_compute_pass(&descriptor), params);
            self.submit(encoder);
            self.wait()?;
            readings.push((start, now()));
        }
        Ok(readings)
    }

    /// Times dispatches by GPU timestamps, `inside` one pass or with a pass for each dispatch.
    /// Inside a pass a timestamp is written when everything before it has ended, so it marks both
    /// the end of a dispatch and the start of the next. Of two dispatches that run at the same
    /// time, the second has the time that it takes longer than the first.
    fn by_timestamps(
        &mut self,
        plan: &Plan,
        params: &StepParams,
        inside: bool,
    ) -> Result<Vec<(f64, f64)>> {
        const MAX_QUERIES: usize = wgpu::QUERY_SET_MAX_QUERIES as usize;
        let mut encoder = self.encoder();
        let mut resolved = Vec::new();
        for steps in plan.steps.chunks(if inside { MAX_QUERIES - 1 } else { MAX_QUERIES / 2 }) {
            let count = if inside { steps.len() + 1 } else { 2 * steps.len() } as u32;
            let descriptor = wgpu::QuerySetDescriptor {
                label: Some("profile"),
                ty: wgpu::QueryType::Timestamp,
                count,
            };
            let queries = self.device().create_query_set(&descriptor);
            if inside {
                let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
                pass.write_timestamp(&queries, 0);
                for (i, step) in (1..).zip(steps) {
                    step.dispatch(&mut pass, params);
                    pass.write_timestamp(&queries, i);
                }
            } else {
                for (i, step) in (0..).step_by(2).zip(steps) {
                    let writes = wgpu::ComputePassTimestampWrites {
                        query_set: &queries,
                        beginning_of_pass_write_index: Some(i),
                        end_of_pass_write_index: Some(i + 1),
                    };
                    let descriptor = wgpu::ComputePassDescriptor {
                        label: Some(step.name),
                        timestamp_writes: Some(writes),
                    };
                    step.dispatch(&mut encoder.begin_compute_pass(&descriptor), params);
                }
            }
            let size = u64::from(count * wgpu::QUERY_SIZE);
            let buffer = self.device().create_buffer(&wgpu::BufferDescriptor {
                label: Some("timestamps"),
                size,
                usage: wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC,
                mapped_at_creation: false,
            });
            encoder.resolve_query_set(&queries, 0..count, &buffer, 0);
            resolved.push((buffer, size));
        }
        self.submit(encoder);
        let tickets: Vec<Ticket> =
            resolved.iter().map(|(buffer, size)| self.fetch_bytes(buffer, 0, *size)).collect();
        let period = f64::from(self.queue().get_timestamp_period());
        let mut first = None;
        let mut readings = Vec::new();
        for ticket in tickets {
            let ticks: Vec<u64> = self.collect(ticket)?;
            let zero = *first.get_or_insert(ticks[0]);
            // A clock may step back by a tick. The difference is signed, so that it does not become
            // a jump of 2⁶⁴.
            let times: Vec<f64> =
                ticks.iter().map(|tick| tick.wrapping_sub(zero) as i64 as f64 * period).collect();
            let pairs = times.windows(2).step_by(if inside { 1 } else { 2 });
            readings.extend(pairs.map(|pair| (pair[0], pair[1])));
        }
        Ok(readings)
    }

    fn encoder(&self) -> wgpu::CommandEncoder {
        self.device()
            .create_command_encoder(&wgpu::CommandEncoderDescriptor { label: Some("profile") })
    }
}
