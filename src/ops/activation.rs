//! Activation functions y = f(x). As the epilogue of a convolution they are differentiated from
//! their output, so that the input need not be stored. GELU and SiLU do not allow this: their
//! slopes do not follow from the output alone.

pub(super) mod cpu;

use super::alone::{Alone, MAPS};
use super::{Work, each, operation, shaders};
use crate::error::{Error, Result, did_you_mean};
use crate::gpu::{Kernel, Recorder, params};
use crate::names::names;
use crate::view::View;

shaders! {
    ActivationFwd "activation_fwd",
    ActivationBwd "activation_bwd",
    ActivationBwdOutput "activation_bwd_output",
}

names! {
    /// An activation function, without its constant.
    pub enum ActivationName {
        /// x
        Identity = "identity",
        /// max(x, 0)
        Relu = "relu",
        /// x if x > 0, else slope·x
        LeakyRelu = "leaky_relu",
        /// x if x > 0, else α(eˣ − 1)
        Elu = "elu",
        /// ln(1 + eˣ)
        Softplus = "softplus",
        /// 1 / (1 + e⁻ˣ)
        Sigmoid = "sigmoid",
        /// tanh x
        Tanh = "tanh",
        /// x·Φ(x)
        Gelu = "gelu",
        /// x·sigmoid(x)
        Silu = "silu",
    }
}

/// An activation function.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Activation {
    /// x
    #[default]
    Identity,
    /// max(x, 0); derivative 0 at 0
    Relu,
    /// x if x > 0, else slope·x
    LeakyRelu {
        /// Slope for x ≤ 0, at least 0.
        slope: f64,
    },
    /// x if x > 0, else α(eˣ − 1)
    Elu {
        /// The limit for x → −∞ is −α; above 0.
        alpha: f64,
    },
    /// ln(1 + eˣ)
    Softplus,
    /// 1 / (1 + e⁻ˣ)
    Sigmoid,
    /// tanh x
    Tanh,
    /// x·Φ(x), the exact form with erf
    Gelu,
    /// x·sigmoid(x)
    Silu,
}

impl Activation {
    /// The function without its constant.
    pub const fn function(self) -> ActivationName {
        match self {
            Self::Identity => ActivationName::Identity,
            Self::Relu => ActivationName::Relu,
            Self::LeakyRelu { .. } => ActivationName::LeakyRelu,
            Self::Elu { .. } => ActivationName::Elu,
            Self::Softplus => ActivationName::Softplus,
            Self::Sigmoid => ActivationName::Sigmoid,
            Self::Tanh => ActivationName::Tanh,
            Self::Gelu => ActivationName::Gelu,
            Self::Silu => ActivationName::Silu,
        }
    }

    /// The activation of a name, with its constant if it has one.
    ///
    /// # Errors
    /// If no activation has the name, or its constant is out of range.
    pub fn named(name: &str, slope: f64, alpha: f64) -> Result<Self> {
        // Other programs call the identity `linear`.
        let function = if name == "linear" { "identity" } else { name };
        let Some(function) = ActivationName::named(function) else {
            let known: Vec<&str> = ActivationName::names().collect();
            let hint = did_you_mean(name, ActivationName::names());
            return Err(Error::usage(format!(
                "activation {name:?} is unknown: there are {}{hint}",
                known.join(", ")
            )));
        };
        Ok(match function {
            ActivationName::Identity => Self::Identity,
            ActivationName::Relu => Self::Relu,
            ActivationName::LeakyRelu if slope >= 0.0 => Self::LeakyRelu { slope },
            ActivationName::LeakyRelu => {
                return Err(Error::usage(format!("leaky_relu: slope {slope} must be at least 0")));
            }
            ActivationName::Elu if alpha > 0.0 => Self::Elu { alpha },
            ActivationName::Elu => {
                return Err(Error::usage(format!("elu: alpha {alpha} must be above 0")));
            }
            ActivationName::Softplus => Self::Softplus,
            ActivationName::Sigmoid => Self::Sigmoid,
            ActivationName::Tanh => Self::Tanh,
            ActivationName::Gelu => Self::Gelu,
            ActivationName::Silu => Self::Silu,
        })
    }

    /// Code of the function in `common/activation.wgsl`.
    pub const fn code(self) -> u32 {
        match self {
            Self::Identity => 0,
            Self::Relu => 1,
            Self::LeakyRelu { .. } => 2,
            Self::Elu { .. } => 3,
            Self::Softplus => 4,
            Self::Sigmoid => 5,
            Self::Tanh => 6,
            Self::Gelu => 7,
            Self::Silu => 8,
        }
    }

    /// The function's constant (slope or α), 0 if it has none.
    pub const fn parameter(self) -> f64 {
        match self {
            Self::LeakyRelu { slope } => slope,
            Self::Elu { alpha } => alpha,
            Self::Identity
            | Self::Relu
            | Self::Softplus
            | Self::Sigmoid
            | Self::Tanh
            | Self::Gelu
            | Self::Silu => 0.0,
        }
    }

    /// Whether the slope can be computed from the output alone.
    pub const fn from_output(self) -> bool {
        match self {
            Self::Identity
            | Self::Relu
            | Self::LeakyRelu { .. }
            | Self::Elu { .. }
            | Self::Softplus
            | Self::Sigmoid
            | Self::Tanh => true,
            Self::Gelu | Self::Silu => false,
        }
    }

    /// Floating-point operations for one value.
    const fn flops(self) -> usize {
        match self {
            Self::Identity => 0,
            Self::Relu => 1,
            Self::LeakyRelu { .. } => 2,
            Self::Elu { .. } | Self::Softplus | Self::Sigmoid => 4,
            Self::Tanh | Self::Silu => 5,
            Self::Gelu => 12,
        }
    }

    /// Floating-point operations for multiplying by the slope computed from the output: a
    /// comparison or two and the product, but no exponential.
    pub(super) const fn slope_flops(self) -> usize {
        if matches!(self, Self::Identity) { 0 } else { 2 }
    }
}

/// The name of an epilogue in an operation's sizes, after a space. Empty for the identity.
pub(super) fn epilogue(activation: Activation) -> String {
    match activation {
        Activation::Identity => String::new(),
        _ => format!(" {}", activation.function()),
    }
}

operation! {
    /// y = f(x), element by element. `x` and `y` have the same length.
    ActivationFwd { activation: Activation } reads { x } writes { y }
}

impl Work for ActivationFwd {
    fn flops(&self) -> f64 {
        each(self.y.len, self.activation.flops())
    }

    fn sizes(&self) -> String {
        format!("{}{}", self.y.len, epilogue(self.activation))
    }

    fn alone(n: usize) -> Vec<Alone<Self>> {
        let one = Alone::new(|m| {
            let [x, y] = m.two(n * MAPS.len());
            Self { activation: Activation::Gelu, x, y }
        });
        vec![one]
    }
}

operation! {
    /// dx = dy·f′(x).
    ActivationBwd { activation: Activation } reads { x, dy } writes { dx }
}

impl Work for ActivationBwd {
    fn flops(&self) -> f64 {
        each(self.dx.len, 1 + self.activation.flops())
    }

    fn sizes(&self) -> String {
        format!("{}{}", self.dx.len, epilogue(self.activation))
    }

    fn alone(n: usize) -> Vec<Alone<Self>> {
        let one = Alone::new(|m| {
            let ([x, dy], dx) = (m.two(n * MAPS.len()), m.real(n * MAPS.len()));
            Self { activation: Activation::Gelu, x, dy, dx }
        });
        vec![one]
    }
}

operation! {
    /// dx = dy·f′(x), with the slope computed from y = f(x). Only for activations with
    /// [`Activation::from_output`].
    ActivationBwdOutput { activation: Activation } reads { y, dy } writes { dx }
}

impl Work for ActivationBwdOutput {
    fn flops(&self) -> f64 {
        each(self.dx.len, 2)
    }

    fn sizes(&self) -> String {
        format!("{}{}", self.dx.len, epilogue(self.activation))
    }

    fn alone(n: usize) -> Vec<Alone<Self>> {
        let one = Alone::new(|m| {
            let ([y, dy], dx) = (m.two(n * MAPS.len()), m.real(n * MAPS.len()));
            Self { activation: Activation::Relu, y, dy, dx }
        });
        vec![one]
    }
}

params! {
    struct ActivationParams { vectors: u32, parameter: f32 }
}

/// Records one of the three kernels, with one vec4 for each invocation. The function is an override
/// constant, so that the shader's switch folds away.
fn dispatch(
    r: &mut Recorder,
    kernel: Kernel,
    activation: Activation,
    len: usize,
    views: &[(&'static str, View)],
) {
    let vectors = len.div_ceil(4);
    let params =
        ActivationParams { vectors: vectors as u32, parameter: activation.parameter() as f32 };
    let mut building = r.kernel(kernel, &params).constant("ACTIVATION", activation.code());
    for &(name, view) in views {
        building = building.bind(name, view);
    }
    building.threads(vectors);
}

impl ActivationFwd {
    pub(crate) fn record(&self, r: &mut Recorder) {
        dispatch(
            r,
            Kernel::ActivationFwd,
            self.activation,
            self.y.len,
            &[("x", self.x), ("y", self.y)],
        );
    }
}

impl ActivationBwd {
    pub(crate) fn record(&self, r: &mut Recorder) {
        let views = [("x", self.x), ("dy", self.dy), ("dx", self.dx)];
        dispatch(r, Kernel::ActivationBwd, self.activation, self.dx.len, &views);
    }
}

impl ActivationBwdOutput {
    pub(crate) fn record(&self, r: &mut Recorder) {
        assert!(
            self.activation.from_output(),
            "{:?} has no derivative by its output",
            self.activation
        );
        let views = [("y", self.y), ("dy", self.dy), ("dx", self.dx)];
        dispatch(r, Kernel::ActivationBwdOutput, self.activation, self.dx.len, &views);
    }
}
