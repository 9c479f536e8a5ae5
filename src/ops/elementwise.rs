//! Sums, copies and accumulation.

mod cpu;

use super::alone::{Alone, MAPS};
use super::{Work, each, operation, shaders};
use crate::gpu::{Kernel, Recorder, params};

shaders! {
    Combine "combine",
    AddAssign "add_assign",
    CopyChannels "copy_channels",
}

operation! {
    /// y = α·a + β·b, element by element; y = α·a if `b` is absent.
    Combine { alpha: f64, beta: f64 } reads { a } maybe { b } writes { y }
}

impl Work for Combine {
    fn flops(&self) -> f64 {
        each(self.y.len, if self.b.is_some() { 3 } else { 1 })
    }

    fn sizes(&self) -> String {
        self.y.len.to_string()
    }

    fn alone(n: usize) -> Vec<Alone<Self>> {
        let one = Alone::new(|m| {
            let ([a, b], y) = (m.two(n * MAPS.len()), m.real(n * MAPS.len()));
            Self { alpha: 1.0, beta: 1.0, a, b: Some(b), y }
        });
        vec![one]
    }
}

operation! {
    /// y += x, element by element. It adds the second and later contributions to a gradient.
    AddAssign {} reads { x } updates { y }
}

impl Work for AddAssign {
    fn flops(&self) -> f64 {
        each(self.y.len, 1)
    }

    fn sizes(&self) -> String {
        self.y.len.to_string()
    }

    fn alone(n: usize) -> Vec<Alone<Self>> {
        let one = Alone::new(|m| {
            let [x, y] = m.two(n * MAPS.len());
            Self { x, y }
        });
        vec![one]
    }
}

operation! {
    /// y[row, to + j] = x[row, from + j] for j < count: copies a range of channels, for
    /// concatenation and its gradient. Other channels of y keep their values.
    CopyChannels {
        /// Rows: N·H·W.
        rows: usize,
        /// Channels of x.
        x_channels: usize,
        /// First channel read.
        from: usize,
        /// Channels of y.
        y_channels: usize,
        /// First channel written.
        to: usize,
        /// Number of channels copied.
        count: usize,
    }
    reads { x } updates { y }
}

impl Work for CopyChannels {
    fn flops(&self) -> f64 {
        0.0
    }

    /// Counts only the copied channels, read and written.
    fn bytes(&self) -> f64 {
        (2 * (self.rows * self.count) as u64 * self.x.element()) as f64
    }

    fn sizes(&self) -> String {
        format!("{} of {}-{} rows{}", self.count, self.x_channels, self.y_channels, self.rows)
    }

    fn alone(n: usize) -> Vec<Alone<Self>> {
        let one = Alone::new(|m| {
            let (rows, count) = (n * MAPS.area(), MAPS.c);
            let (x, y) = (m.real(rows * count), m.real(2 * rows * count));
            Self { rows, x_channels: count, from: 0, y_channels: 2 * count, to: count, count, x, y }
        });
        vec![one]
    }
}

params! {
    struct CombineParams { vectors: u32, has_b: u32, alpha: f32, beta: f32 }
}

params! {
    struct AddAssignParams { vectors: u32 }
}

params! {
    struct CopyChannelsParams {
        invocations: u32, per_row: u32, x_channels: u32, x_first: u32, y_channels: u32,
        y_first: u32,
    }
}

impl Combine {
    pub(crate) fn record(&self, r: &mut Recorder) {
        let vectors = self.y.len.div_ceil(4);
        let params = CombineParams {
            vectors: vectors as u32,
            has_b: u32::from(self.b.is_some()),
            alpha: self.alpha as f32,
            beta: self.beta as f32,
        };
        r.kernel(Kernel::Combine, &params)
            .bind("a", self.a)
            .bind("b", self.b.unwrap_or(self.a))
            .bind("y", self.y)
            .threads(vectors);
    }
}

impl AddAssign {
    pub(crate) fn record(&self, r: &mut Recorder) {
        let vectors = self.y.len.div_ceil(4);
        r.kernel(Kernel::AddAssign, &AddAssignParams { vectors: vectors as u32 })
            .bind("x", self.x)
            .bind("y", self.y)
            .threads(vectors);
    }
}

impl CopyChannels {
    pub(crate) fn record(&self, r: &mut Recorder) {
        let lanes = if self.count.is_multiple_of(4) { 4 } else { 1 };
        let per_row = self.count / lanes;
        let params = CopyChannelsParams {
            invocations: (self.rows * per_row) as u32,
            per_row: per_row as u32,
            x_channels: self.x_channels as u32,
            x_first: self.from as u32,
            y_channels: self.y_channels as u32,
            y_first: self.to as u32,
        };
        r.kernel(Kernel::CopyChannels, &params)
            .constant("LANES", lanes as u32)
            .bind("x", self.x)
            .bind("y", self.y)
            .threads(self.rows * per_row);
    }
}
