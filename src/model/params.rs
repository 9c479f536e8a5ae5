//! Parameters: their natural shape (PyTorch's, at every interface) and how they lie in memory.

use rayon::prelude::*;

use crate::rng::Stream;
use crate::shape::Dims;
use crate::spec::Init;

/// Values that one task draws.
const BLOCK: usize = 16_384;

/// Elements of a cache line.
const LINE: usize = 16;

/// How a parameter's natural order maps to memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    /// As it is.
    Flat,
    /// [K, C/groups, R, S] → (R, S, C/groups, K); a transposed convolution's [in, out/groups, R, S]
    /// is the same with K = in.
    Conv,
    /// [out, in] → (in, out), both with channels innermost where they are maps.
    Linear {
        /// The layer's input.
        input: Dims,
        /// The layer's output.
        output: Dims,
    },
    /// One value an element of maps (a fully connected layer's bias): C·H·W → H·W·C.
    Maps(Dims),
}

/// How a parameter begins.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum InitialValues {
    /// One value.
    Constant(f64),
    /// Normal with this standard deviation.
    Normal(f64),
    /// Normal with this standard deviation, the same in all parameters of the model that begin so
    /// and have one shape.
    Dictionary(f64),
    /// Uniform within ± this bound.
    Uniform(f64),
}

impl InitialValues {
    /// A weight's start from its fans; `rectified` tells whether a rectifier follows.
    pub fn weight(init: Init, rectified: bool, fan_in: f64, fan_out: f64) -> Self {
        match init {
            Init::Torch => Self::Uniform((1.0 / fan_in).sqrt()),
            Init::He => Self::Normal((2.0 / fan_in).sqrt()),
            Init::Zero => Self::Constant(0.0),
            Init::Dictionary => unreachable!("a dictionary's start depends on its filters"),
            Init::Auto if rectified => Self::Normal((2.0 / fan_in).sqrt()),
            Init::Auto | Init::Xavier => Self::Normal((2.0 / (fan_in + fan_out)).sqrt()),
        }
    }

    /// The start of a dictionary of K filters (K, C, R, S) at a stride: white noise has a flat
    /// spectrum, whose highest point is about 1.6 times its mean.
    pub fn dictionary(shape: [usize; 4], stride: [usize; 2]) -> Self {
        let [k, _, r, s] = shape;
        Self::Dictionary(((stride[0] * stride[1]) as f64 / (1.6 * (k * r * s) as f64)).sqrt())
    }

    /// A bias's start.
    pub fn bias(init: Init, fan_in: f64) -> Self {
        if init == Init::Torch { Self::Uniform((1.0 / fan_in).sqrt()) } else { Self::Constant(0.0) }
    }
}

/// Who sets a parameter's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParamRole {
    /// Training does.
    Learned,
    /// They stay as they are drawn or lent.
    Frozen,
    /// They are computed from the images before training.
    Fixed,
}

/// A named tensor of a model: a parameter that is learned, or a state that training keeps (a
/// running threshold).
#[derive(Clone, Debug, PartialEq)]
pub struct Param {
    /// `{layer}.weight` and the like.
    pub name: String,
    /// Natural shape.
    pub shape: Vec<usize>,
    /// Order in memory.
    pub packing: Packing,
    /// First values.
    pub start: InitialValues,
    /// Who sets its values.
    pub role: ParamRole,
}

impl Param {
    /// Elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether it has no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// First values in natural order: the same for the same seed and name, whatever else the model
    /// holds.
    pub fn initial(&self, seed: u64) -> Vec<f32> {
        let mut values = vec![0.0; self.len()];
        // the stream counts, so that blocks can be drawn side by side
        values.par_chunks_mut(BLOCK).enumerate().for_each(|(i, values)| {
            let name = if matches!(self.start, InitialValues::Dictionary(_)) {
                "dictionary"
            } else {
                &self.name
            };
            let stream = |words: usize| Stream::new(seed, name).skip((i * BLOCK * words) as u64);
            match self.start {
                InitialValues::Constant(value) => values.fill(value as f32),
                InitialValues::Normal(deviation) | InitialValues::Dictionary(deviation) => {
                    let mut stream = stream(2);
                    values.fill_with(|| (f64::from(stream.normal()) * deviation) as f32);
                }
                InitialValues::Uniform(bound) => {
                    let mut stream = stream(1);
                    values.fill_with(|| ((f64::from(stream.uniform()) * 2.0 - 1.0) * bound) as f32);
                }
            }
        });
        values
    }

    /// From natural order to memory order.
    pub fn pack<T: Copy + Default>(&self, natural: &[T]) -> Vec<T> {
        let mut packed = vec![T::default(); natural.len()];
        self.each(|from, to| packed[to] = natural[from]);
        packed
    }

    /// From memory order to natural order.
    pub fn unpack<T: Copy + Default>(&self, packed: &[T]) -> Vec<T> {
        let mut natural = vec![T::default(); packed.len()];
        self.each(|from, to| natural[from] = packed[to]);
        natural
    }

    /// Calls `f(natural index, memory index)` for every element.
    fn each(&self, mut f: impl FnMut(usize, usize)) {
        match self.packing {
            Packing::Flat => (0..self.len()).for_each(|i| f(i, i)),
            Packing::Maps(dims) => {
                chw(dims).enumerate().for_each(|(natural, memory)| f(natural, memory))
            }
            Packing::Linear { input, output } => {
                // A cache line of memory at a time: a large matrix is transposed here.
                let natural = |memory: usize| memory % output.c * output.area() + memory / output.c;
                for start in (0..output.len()).step_by(LINE) {
                    for (i, i_memory) in chw(input).enumerate() {
                        for o_memory in start..output.len().min(start + LINE) {
                            f(
                                natural(o_memory) * input.len() + i,
                                i_memory * output.len() + o_memory,
                            );
                        }
                    }
                }
            }
            Packing::Conv => {
                let [k, c, r, s] = self.shape[..] else {
                    unreachable!("a convolution's weight has four axes")
                };
                for k_ in 0..k {
                    for c_ in 0..c {
                        for tap in 0..r * s {
                            f((k_ * c + c_) * r * s + tap, (tap * c + c_) * k + k_);
                        }
                    }
                }
            }
        }
    }
}

/// Memory offsets of a sample's elements in natural (C, H, W) order.
fn chw(dims: Dims) -> impl Iterator<Item = usize> {
    (0..dims.c).flat_map(move |c| (0..dims.area()).map(move |p| p * dims.c + c))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn param(shape: &[usize], packing: Packing) -> Param {
        Param {
            name: "p".to_owned(),
            shape: shape.to_vec(),
            packing,
            start: InitialValues::Normal(1.0),
            role: ParamRole::Learned,
        }
    }

    #[test]
    fn packings_are_permutations_and_invert() {
        let (input, output) = (Dims::new(3, 2, 2), Dims::new(2, 1, 3));
        for p in [
            param(&[7], Packing::Flat),
            param(&[4, 3, 2, 5], Packing::Conv),
            param(&[output.len(), input.len()], Packing::Linear { input, output }),
            param(&[output.len()], Packing::Maps(output)),
        ] {
            let natural: Vec<u32> = (0..p.len() as u32).collect();
            let packed = p.pack(&natural);
            assert_eq!(p.unpack(&packed), natural, "{:?}", p.packing);
            let mut sorted = packed.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, natural);
        }
        // [k=1, c=2, r=0, s=1] of [4, 3, 2, 2]
        let p = param(&[4, 3, 2, 2], Packing::Conv);
        let packed = p.pack(&(0..48).collect::<Vec<u32>>());
        assert_eq!(packed[(3 + 2) * 4 + 1], (3 + 2) * 4 + 1);
        assert_eq!(packed[4 + 3], 3 * 12 + 4);
    }

    #[test]
    fn starts_depend_on_name_and_seed_alone() {
        let p = param(&[100], Packing::Flat);
        assert_eq!(p.initial(3), p.initial(3));
        assert_ne!(p.initial(3), p.initial(4));
        // blocks are drawn as one stream would
        let long = param(&[2 * BLOCK + 3], Packing::Flat);
        let mut stream = Stream::new(3, "p");
        assert!(long.initial(3).iter().all(|&value| value == stream.normal()));
        assert_ne!(p.initial(3), Param { name: "q".to_owned(), ..p.clone() }.initial(3));
    }
}
