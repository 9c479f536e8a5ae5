//! Soft thresholding with a learned threshold for each channel: y = sign(x)·max(|x| − τ, 0). With a
//! noise level σ_n for each sample the threshold is τ_nc = τ_c + slope_c·σ_n, so that one model
//! handles a range of levels (Janjušević, Khalilian-Gourtani & Wang, "CDLNet", 2022).

mod cpu;

use super::alone::{Alone, MAPS};
use super::{Work, each, maps_of, operation, shaders};
use crate::gpu::{Kernel, Recorder, params};
use crate::shape::Dims;

shaders! {
    SoftThresholdFwd "soft_threshold_fwd",
    SoftThresholdBwd "soft_threshold_bwd",
}

operation! {
    /// y = sign(x)·max(|x| − τ_nc, 0). `slope` and `level` (σ_n) must both be given or both absent.
    SoftThresholdFwd { n: usize, dims: Dims }
    reads { x, threshold } maybe { slope, level } writes { y }
}

impl Work for SoftThresholdFwd {
    fn flops(&self) -> f64 {
        each(self.y.len, 3)
    }

    fn sizes(&self) -> String {
        maps_of(self.n, self.dims)
    }

    fn alone(n: usize) -> Vec<Alone<Self>> {
        let one = Alone::new(|m| {
            let dims = MAPS;
            let ([x, y], threshold) = (m.two(n * dims.len()), m.real(dims.c));
            Self { n, dims, x, threshold, slope: None, level: None, y }
        });
        vec![one]
    }
}

operation! {
    /// dx = dy and dt = −sign(x)·dy where |x| > τ_nc, else 0. The channel sums of dt
    /// ([`super::ChannelSum`]) are the gradient of the thresholds; weighted by σ_n they are the
    /// gradient of `slope`.
    SoftThresholdBwd { n: usize, dims: Dims }
    reads { x, threshold, dy } maybe { slope, level } writes { dx, dt }
}

impl Work for SoftThresholdBwd {
    fn flops(&self) -> f64 {
        each(self.dx.len, 3)
    }

    fn sizes(&self) -> String {
        maps_of(self.n, self.dims)
    }

    fn alone(n: usize) -> Vec<Alone<Self>> {
        let one = Alone::new(|m| {
            let dims = MAPS;
            let ([x, dy], threshold) = (m.two(n * dims.len()), m.real(dims.c));
            let [dx, dt] = m.two(n * dims.len());
            Self { n, dims, x, threshold, slope: None, level: None, dy, dx, dt }
        });
        vec![one]
    }
}

params! {
    struct SoftThresholdParams { vectors: u32, channels: u32, sample: u32 }
}

fn params(dims: Dims, len: usize) -> SoftThresholdParams {
    SoftThresholdParams {
        vectors: len.div_ceil(4) as u32,
        channels: dims.c as u32,
        sample: dims.len() as u32,
    }
}

impl SoftThresholdFwd {
    pub(crate) fn record(&self, r: &mut Recorder) {
        let params = params(self.dims, self.y.len);
        r.kernel(Kernel::SoftThresholdFwd, &params)
            .constant("LEVELS", self.level.is_some())
            .bind("x", self.x)
            .bind("threshold", self.threshold)
            .bind("slope", self.slope.unwrap_or(self.threshold))
            .bind("level", self.level.unwrap_or(self.threshold))
            .bind("y", self.y)
            .threads(params.vectors as usize);
    }
}

impl SoftThresholdBwd {
    pub(crate) fn record(&self, r: &mut Recorder) {
        let params = params(self.dims, self.dx.len);
        r.kernel(Kernel::SoftThresholdBwd, &params)
            .constant("LEVELS", self.level.is_some())
            .bind("x", self.x)
            .bind("threshold", self.threshold)
            .bind("slope", self.slope.unwrap_or(self.threshold))
            .bind("level", self.level.unwrap_or(self.threshold))
            .bind("dy", self.dy)
            .bind("dx", self.dx)
            .bind("dt", self.dt)
            .threads(params.vectors as usize);
    }
}
