//! Values that may be written in more than one way.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use crate::ops::Activation;

/// One number for both directions, or [height, width].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair(pub [usize; 2]);

impl Pair {
    /// The same in both directions.
    pub const fn both(size: usize) -> Self {
        Self([size, size])
    }
}

impl Serialize for Pair {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0[0] == self.0[1] {
            self.0[0].serialize(serializer)
        } else {
            self.0.serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for Pair {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let size = |value: &Value| {
            value
                .as_u64()
                .and_then(|size| usize::try_from(size).ok())
                .filter(|size| *size <= 1 << 16)
        };
        let pair = match &value {
            Value::Array(sides) if sides.len() == 2 => {
                size(&sides[0]).zip(size(&sides[1])).map(|(h, w)| [h, w])
            }
            other => size(other).map(|size| [size, size]),
        };
        pair.map(Self).ok_or_else(|| {
            D::Error::custom(format!("{value} is neither a size nor [height, width]"))
        })
    }
}

/// Padding: a size, [height, width], or `"same"` (half of the kernel's span: the output is as large
/// as the input at stride 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pad {
    /// Zeros on each side.
    Fixed(Pair),
    /// dilation·(kernel − 1)/2
    Same,
}

impl Pad {
    /// The padding for a kernel.
    pub fn resolve(self, kernel: [usize; 2], dilation: [usize; 2]) -> [usize; 2] {
        match self {
            Self::Fixed(pair) => pair.0,
            Self::Same => {
                [dilation[0] * (kernel[0].max(1) - 1) / 2, dilation[1] * (kernel[1].max(1) - 1) / 2]
            }
        }
    }
}

impl Serialize for Pad {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Fixed(pair) => pair.serialize(serializer),
            Self::Same => "same".serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Pad {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        if value == "same" {
            Ok(Self::Same)
        } else {
            Pair::deserialize(value).map(Self::Fixed).map_err(D::Error::custom)
        }
    }
}

/// Number of output channels: a number, or `"input"` for as many as the model's input has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FilterCount {
    /// A number.
    Count(usize),
    /// The model's input channels.
    Input,
}

impl Serialize for FilterCount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Count(count) => count.serialize(serializer),
            Self::Input => "input".serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for FilterCount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        match value.as_u64() {
            Some(count) if (1..=1 << 20).contains(&count) => Ok(Self::Count(count as usize)),
            None if value == "input" => Ok(Self::Input),
            _ => Err(D::Error::custom(format!(
                "{value} is neither a number of filters nor \"input\""
            ))),
        }
    }
}

/// How weights begin. Biases begin at 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Init {
    /// `he` before rectifiers, `xavier` elsewhere.
    #[default]
    Auto,
    /// Normal, variance 2/fan-in (He et al. 2015).
    He,
    /// Normal, variance 2/(fan-in + fan-out) (Glorot & Bengio 2010).
    Xavier,
    /// A dictionary of filters, the same in every layer that begins with it: normal, such that
    /// analysing an image and synthesising it again keeps its norm about,
    /// stride²/(1.6·filters·taps).
    Dictionary,
    /// All 0: a layer whose output is added to something begins by changing nothing.
    Zero,
    /// PyTorch's default: uniform within ±1/√fan-in, biases too.
    Torch,
}

impl Serialize for Activation {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let table =
            |kind: &str, key: &str, value: f64| serde_json::json!({"kind": kind, key: value});
        match self {
            Self::Identity => "identity".serialize(serializer),
            Self::Relu => "relu".serialize(serializer),
            Self::LeakyRelu { slope } => table("leaky_relu", "slope", *slope).serialize(serializer),
            Self::Elu { alpha } => table("elu", "alpha", *alpha).serialize(serializer),
            Self::Softplus => "softplus".serialize(serializer),
            Self::Sigmoid => "sigmoid".serialize(serializer),
            Self::Tanh => "tanh".serialize(serializer),
            Self::Gelu => "gelu".serialize(serializer),
            Self::Silu => "silu".serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Activation {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        if let Some(table) = value.as_object()
            && let Some(key) =
                table.keys().find(|key| !["kind", "slope", "alpha"].contains(&key.as_str()))
        {
            return Err(D::Error::custom(format!(
                "activation: unknown key {key:?}; there are kind, slope, alpha"
            )));
        }
        let kind = value.as_str().or_else(|| value["kind"].as_str());
        let kind = kind.ok_or_else(|| {
            D::Error::custom(format!("activation {value}: write a name, or {{ kind = … }}"))
        })?;
        let number = |key: &str, default: f64| value[key].as_f64().unwrap_or(default);
        super::activation_named(kind, number("slope", 0.01), number("alpha", 1.0))
            .map_err(D::Error::custom)
    }
}
