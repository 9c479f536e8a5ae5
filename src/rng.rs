//! Counter-based random numbers: a pure function of its arguments, with the same bits on every
//! device.
//!
//! The generator is the hash `pcg4d` (Jarzynski & Olano, "Hash Functions for GPU Rendering", JCGT
//! 9(3), 2020), which needs only 32-bit arithmetic. `shaders/common/rng.wgsl` computes the same.

/// Returns 32 random bits. `index` counts elements, `step` counts training steps, `stream`
/// identifies the use, `seed` is the seed of the run.
pub fn word(index: u32, step: u32, stream: u32, seed: u64) -> u32 {
    words(index, step, stream, seed)[0]
}

/// Returns 4 × 32 random bits; see [`word`]. The first word is that of [`word`].
pub fn words(index: u32, step: u32, stream: u32, seed: u64) -> [u32; 4] {
    // The hash takes four words, but there are five: the seed's high word joins the stream.
    // 0x9e3779b9 is 2³²/φ, which spreads small seeds over all bits.
    pcg4d([index, step, stream ^ ((seed >> 32) as u32).wrapping_mul(0x9e37_79b9), seed as u32])
}

/// Maps a random word to 0…bound − 1 by its upper 16 bits. `bound` must be at most 2¹⁶.
pub const fn below(word: u32, bound: u32) -> u32 {
    ((word >> 16) * bound) >> 16
}

/// The hash `pcg4d`: four words in, four words out.
pub fn pcg4d(mut v: [u32; 4]) -> [u32; 4] {
    for x in &mut v {
        // The linear congruential generator of "Numerical Recipes", as in the paper.
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

/// A sequence of random numbers on the host, for initial weights and orders. It is counter-based
/// too: the seed and the name of the stream determine every number.
#[derive(Clone, Debug)]
pub struct Stream {
    seed: u64,
    stream: u32,
    counter: u64,
}

impl Stream {
    /// The stream `name` of `seed`, from its start.
    pub fn new(seed: u64, name: &str) -> Self {
        // 32-bit FNV-1a of the name.
        let stream = name
            .bytes()
            .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
        Self { seed, stream, counter: 0 }
    }

    /// Skips the next `words` words of [`Stream::word`].
    #[must_use]
    pub fn skip(mut self, words: u64) -> Self {
        self.counter += words;
        self
    }

    /// The next 32 random bits.
    pub fn word(&mut self) -> u32 {
        let counter = self.counter;
        self.counter += 1;
        word(counter as u32, (counter >> 32) as u32, self.stream, self.seed)
    }

    /// Uniform in [0, 1): one of 2²⁴ equidistant values, the precision of f32.
    pub fn uniform(&mut self) -> f32 {
        (self.word() >> 8) as f32 / 16_777_216.0
    }

    /// Standard normal (Box–Muller transform). Takes two words.
    pub fn normal(&mut self) -> f32 {
        // −2·ln((word + 1)/2³²): the argument is never 0.
        let radius = (-2.0 * (f64::from(self.word()) + 1.0).log2() * std::f64::consts::LN_2
            + 2.0 * 32.0 * std::f64::consts::LN_2)
            .sqrt();
        let angle = std::f64::consts::TAU * f64::from(self.word()) / 4_294_967_296.0;
        (radius * angle.cos()) as f32
    }

    /// Uniform in 0…bound − 1, by multiplication and shift; the bias is below bound/2³².
    pub fn below(&mut self, bound: usize) -> usize {
        ((u64::from(self.word()) * bound as u64) >> 32) as usize
    }

    /// A random permutation of 0…n − 1 (Fisher–Yates shuffle).
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
    fn normals_have_mean_0_and_variance_1() {
        let mut stream = Stream::new(7, "test");
        let n = 100_000;
        let normals: Vec<f64> = (0..n).map(|_| f64::from(stream.normal())).collect();
        let mean = normals.iter().sum::<f64>() / f64::from(n);
        let variance = normals.iter().map(|x| x * x).sum::<f64>() / f64::from(n);
        assert!(mean.abs() < 0.02 && (variance - 1.0).abs() < 0.02, "{mean} {variance}");
    }

    #[test]
    fn uniform_numbers_have_mean_one_half() {
        let mut stream = Stream::new(7, "test");
        let n = 100_000;
        let mean = (0..n).map(|_| f64::from(stream.uniform())).sum::<f64>() / f64::from(n);
        assert!((mean - 0.5).abs() < 0.01, "{mean}");
    }

    #[test]
    fn skip_moves_ahead_in_the_stream() {
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
    }

    #[test]
    fn a_permutation_has_every_index_once() {
        let mut order = Stream::new(3, "order").permutation(1000);
        assert_ne!(order[..5], [0, 1, 2, 3, 4]);
        order.sort_unstable();
        assert!(order.iter().enumerate().all(|(i, &v)| i as u32 == v));
    }
}
