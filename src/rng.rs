//! Random numbers from counters: no state, the same bits for the same arguments on every device.
//!
//! The hash is `pcg4d` (Jarzynski & Olano, "Hash Functions for GPU Rendering", JCGT 9(3), 2020),
//! which needs only 32-bit arithmetic; `common/rng.wgsl` is its twin.

/// One 32-bit word of a counter: `[index, step, stream, seed_lo]` with the seed's high word mixed
/// into the stream.
pub fn word(index: u32, step: u32, stream: u32, seed: u64) -> u32 {
    words(index, step, stream, seed)[0]
}

/// Four words of a counter.
pub fn words(index: u32, step: u32, stream: u32, seed: u64) -> [u32; 4] {
    pcg4d([index, step, stream ^ ((seed >> 32) as u32).wrapping_mul(0x9e37_79b9), seed as u32])
}

/// One of 0…bound − 1 by the upper half of a word; bound up to 2¹⁶.
pub const fn below(word: u32, bound: u32) -> u32 {
    ((word >> 16) * bound) >> 16
}

/// The four-word hash.
pub fn pcg4d(mut v: [u32; 4]) -> [u32; 4] {
    for x in &mut v {
        *x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
    }
    for round in 0..2 {
        v[0] = v[0].wrapping_add(v[1].wrapping_mul(v[3]));
        v[1] = v[1].wrapping_add(v[2].wrapping_mul(v[0]));
        v[2] = v[2].wrapping_add(v[0].wrapping_mul(v[1]));
        v[3] = v[3].wrapping_add(v[1].wrapping_mul(v[2]));
        if round == 0 {
            for x in &mut v {
                *x ^= *x >> 16;
            }
        }
    }
    v
}

/// A stream of numbers on the host, for initial weights and orders: counter-based too, told apart
/// by name.
#[derive(Clone, Debug)]
pub struct Stream {
    seed: u64,
    stream: u32,
    counter: u64,
}

impl Stream {
    /// The stream called `name` of a seed.
    pub fn new(seed: u64, name: &str) -> Self {
        // FNV-1a
        let stream = name
            .bytes()
            .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
        Self { seed, stream, counter: 0 }
    }

    /// The stream without its next `words` words.
    #[must_use]
    pub fn skip(mut self, words: u64) -> Self {
        self.counter += words;
        self
    }

    /// The next 32 bits.
    pub fn word(&mut self) -> u32 {
        let counter = self.counter;
        self.counter += 1;
        word(counter as u32, (counter >> 32) as u32, self.stream, self.seed)
    }

    /// Uniform in [0, 1), 24 bits.
    pub fn uniform(&mut self) -> f32 {
        (self.word() >> 8) as f32 / 16_777_216.0
    }

    /// Standard normal (Box–Muller).
    pub fn normal(&mut self) -> f32 {
        let radius = (-2.0 * (f64::from(self.word()) + 1.0).log2() * std::f64::consts::LN_2
            + 2.0 * 32.0 * std::f64::consts::LN_2)
            .sqrt();
        let angle = std::f64::consts::TAU * f64::from(self.word()) / 4_294_967_296.0;
        (radius * angle.cos()) as f32
    }

    /// Uniform in 0…bound − 1 (multiply and shift; the bias is below 2⁻³² · bound).
    pub fn below(&mut self, bound: usize) -> usize {
        ((u64::from(self.word()) * bound as u64) >> 32) as usize
    }

    /// A random order of 0…n − 1 (Fisher–Yates).
    pub fn permutation(&mut self, n: usize) -> Vec<u32> {
        let mut order: Vec<u32> = (0..n as u32).collect();
        for i in (1..n).rev() {
            order.swap(i, self.below(i + 1));
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_right() {
        let mut stream = Stream::new(7, "test");
        let n = 100_000;
        let normals: Vec<f64> = (0..n).map(|_| f64::from(stream.normal())).collect();
        let mean = normals.iter().sum::<f64>() / f64::from(n);
        let variance = normals.iter().map(|x| x * x).sum::<f64>() / f64::from(n);
        assert!(mean.abs() < 0.02 && (variance - 1.0).abs() < 0.02, "{mean} {variance}");
        let uniform = (0..n).map(|_| f64::from(stream.uniform())).sum::<f64>() / f64::from(n);
        assert!((uniform - 0.5).abs() < 0.01, "{uniform}");
    }

    #[test]
    fn a_stream_may_begin_anywhere() {
        let mut stream = Stream::new(5, "a");
        let words: Vec<u32> = (0..9).map(|_| stream.word()).collect();
        assert_eq!(Stream::new(5, "a").skip(4).skip(3).word(), words[7]);
    }

    #[test]
    fn streams_and_seeds_differ() {
        let first = |seed, name| Stream::new(seed, name).word();
        assert_ne!(first(1, "a"), first(1, "b"));
        assert_ne!(first(1, "a"), first(2, "a"));
        assert_ne!(first(1, "a"), first(1 | 1 << 32, "a"));
        let mut order = Stream::new(3, "order").permutation(1000);
        assert_ne!(order[..5], [0, 1, 2, 3, 4]);
        order.sort_unstable();
        assert!(order.iter().enumerate().all(|(i, &v)| i as u32 == v));
    }
}
