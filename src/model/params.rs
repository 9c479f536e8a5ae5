//! Parameters: their natural shape (PyTorch's, used at every interface), their order in memory and
//! their initial values.

use rayon::prelude::*;

use crate::model::Init;
use crate::rng::Stream;
use crate::shape::Dims;

/// Values that one rayon task generates: large against the cost of a task, small enough to spread
/// a layer over all cores.
const BLOCK: usize = 16_384;

/// f32 elements of a 64-byte cache line.
const CACHE_LINE: usize = 16;

/// How the natural order of a parameter maps to its order in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    /// The same order.
    Flat,
    /// [K, C/groups, R, S] → (R, S, C/groups, K). A transposed convolution's [in, out/groups, R, S]
    /// is the same with K = in.
    Conv,
    /// [out, in] → (in, out), each with channels innermost if it is maps.
    Linear {
        /// Input size of the layer.
        input: Dims,
        /// Output size of the layer.
        output: Dims,
    },
    /// One value for each element of maps (the bias of a fully connected layer): C·H·W → H·W·C.
    Maps(Dims),
}

/// Distribution of a parameter's initial values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum InitialValues {
    /// One constant.
    Constant(f64),
    /// Normal with this standard deviation.
    Normal(f64),
    /// Normal with this standard deviation, from a random stream that all dictionaries of the
    /// model share: dictionaries of one shape start equal.
    Dictionary(f64),
    /// Uniform between −bound and bound.
    Uniform(f64),
}

impl InitialValues {
    /// Initial values of a weight. `rectified` says whether a rectifier follows.
    pub fn weight(init: Init, rectified: bool, fan_in: f64, fan_out: f64) -> Self {
        match init {
            Init::Torch => Self::Uniform((1.0 / fan_in).sqrt()),
            Init::He => Self::Normal((2.0 / fan_in).sqrt()),
            Init::Zero => Self::Constant(0.0),
            Init::Dictionary => unreachable!("dictionaries use InitialValues::dictionary"),
            Init::Auto if rectified => Self::Normal((2.0 / fan_in).sqrt()),
            Init::Auto | Init::Xavier => Self::Normal((2.0 / (fan_in + fan_out)).sqrt()),
        }
    }

    /// Initial values of a dictionary of K filters (K, C, R, S) at a stride: normal with variance
    /// stride²/(1.6·K·R·S). The spectrum of random filters is flat on average; its maximum, which
    /// bounds the gain of analysis and synthesis, is about 1.6 times the mean.
    pub fn dictionary(shape: [usize; 4], stride: [usize; 2]) -> Self {
        let [k, _, r, s] = shape;
        Self::Dictionary(((stride[0] * stride[1]) as f64 / (1.6 * (k * r * s) as f64)).sqrt())
    }

    /// Initial values of a bias.
    pub fn bias(init: Init, fan_in: f64) -> Self {
        if init == Init::Torch { Self::Uniform((1.0 / fan_in).sqrt()) } else { Self::Constant(0.0) }
    }
}

/// What sets a parameter's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParamRole {
    /// The optimiser updates them.
    Learned,
    /// They keep their initial or pretrained values.
    Frozen,
    /// They are computed from the images before training.
    Fixed,
}

/// A named tensor of a model: a parameter, or a state that training updates without gradients (a
/// running threshold).
#[derive(Clone, Debug, PartialEq)]
pub struct Param {
    /// `{layer}.weight` and the like.
    pub name: String,
    /// Natural shape.
    pub shape: Vec<usize>,
    /// Order in memory.
    pub packing: Packing,
    /// Initial values.
    pub initial: InitialValues,
    /// What sets its values.
    pub role: ParamRole,
}

impl Param {
    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether it has no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Initial values in natural order. They depend only on the seed, the name and the
    /// distribution, not on the other parameters of the model.
    pub fn initial(&self, seed: u64) -> Vec<f32> {
        let mut values = vec![0.0; self.len()];
        // The generator counts, so that blocks can be generated in parallel.
        values.par_chunks_mut(BLOCK).enumerate().for_each(|(i, values)| {
            let name = if matches!(self.initial, InitialValues::Dictionary(_)) {
                "dictionary"
            } else {
                &self.name
            };
            let stream = |words: usize| Stream::new(seed, name).skip((i * BLOCK * words) as u64);
            match self.initial {
                InitialValues::Constant(value) => values.fill(value as f32),
                InitialValues::Normal(std) | InitialValues::Dictionary(std) => {
                    let mut stream = stream(2);
                    values.fill_with(|| (f64::from(stream.normal()) * std) as f32);
                }
                InitialValues::Uniform(bound) => {
                    let mut stream = stream(1);
                    values.fill_with(|| ((f64::from(stream.uniform()) * 2.0 - 1.0) * bound) as f32);
                }
            }
        });
        values
    }

    /// Copies values from natural order to memory order.
    pub fn pack<T: Copy + Default>(&self, natural: &[T]) -> Vec<T> {
        let mut packed = vec![T::default(); natural.len()];
        self.for_each_index(|from, to| packed[to] = natural[from]);
        packed
    }

    /// Copies values from memory order to natural order.
    pub fn unpack<T: Copy + Default>(&self, packed: &[T]) -> Vec<T> {
        let mut natural = vec![T::default(); packed.len()];
        self.for_each_index(|from, to| natural[from] = packed[to]);
        natural
    }

    /// Calls `f(natural index, memory index)` for every element.
    fn for_each_index(&self, mut f: impl FnMut(usize, usize)) {
        match self.packing {
            Packing::Flat => (0..self.len()).for_each(|i| f(i, i)),
            Packing::Maps(dims) => {
                chw(dims).enumerate().for_each(|(natural, memory)| f(natural, memory))
            }
            Packing::Linear { input, output } => {
                // This transposes a matrix that can be large: one cache line at a time.
                let natural = |memory: usize| memory % output.c * output.area() + memory / output.c;
                for start in (0..output.len()).step_by(CACHE_LINE) {
                    for (i, i_memory) in chw(input).enumerate() {
                        for o_memory in start..output.len().min(start + CACHE_LINE) {
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

/// Memory offsets of the elements of a sample, in natural (C, H, W) order.
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
            initial: InitialValues::Normal(1.0),
            role: ParamRole::Learned,
        }
    }

    #[test]
    fn packing_is_a_permutation_and_unpacking_inverts_it() {
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
    fn initial_values_depend_only_on_name_and_seed() {
        let p = param(&[100], Packing::Flat);
        assert_eq!(p.initial(3), p.initial(3));
        assert_ne!(p.initial(3), p.initial(4));
        // Parallel blocks give the values of one sequential stream.
        let long = param(&[2 * BLOCK + 3], Packing::Flat);
        let mut stream = Stream::new(3, "p");
        assert!(long.initial(3).iter().all(|&value| value == stream.normal()));
        assert_ne!(p.initial(3), Param { name: "q".to_owned(), ..p.clone() }.initial(3));
    }
}
