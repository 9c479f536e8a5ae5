//! Values that a configuration can write in more than one way.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Value, json};

use crate::ops::Activation;

/// [height, width]. In TOML one number stands for both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair(pub [usize; 2]);

impl Pair {
    /// The same height and width.
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
        // Far above any useful kernel; a bound keeps products of sizes from overflowing.
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
            D::Error::custom(format!(
                "{value} is not a size: write a whole number up to 65536, or [height, width]"
            ))
        })
    }
}

/// Padding: a size, [height, width], or `"same"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pad {
    /// Rows and columns of zeros on each side.
    Fixed(Pair),
    /// dilation·(kernel − 1)/2 on each side: with an odd kernel and stride 1 the output has the
    /// size of the input.
    Same,
}

impl Pad {
    /// The padding [height, width] for a kernel.
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

/// Number of output channels: a number, or `"input"` for the channels of the model's input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FilterCount {
    /// A number.
    Count(usize),
    /// The number of channels of the model's input.
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
            // Far above any useful width; a bound keeps products of sizes from overflowing.
            Some(count) if (1..=1 << 20).contains(&count) => Ok(Self::Count(count as usize)),
            None if value == "input" => Ok(Self::Input),
            _ => Err(D::Error::custom(format!(
                "{value} is not a number of filters: write 1 to 1048576, or \"input\""
            ))),
        }
    }
}

/// Initialisation of weights. Biases start at 0, except with `torch`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Init {
    /// `he` if the layer's activation is a rectifier, else `xavier`.
    #[default]
    Auto,
    /// Normal with variance 2/fan-in (He et al. 2015).
    He,
    /// Normal with variance 2/(fan-in + fan-out) (Glorot & Bengio 2010).
    Xavier,
    /// Normal with variance stride²/(1.6·filters·taps), and the same values in every layer of the
    /// model with this initialisation and shape. Analysis followed by synthesis then roughly keeps
    /// the norm of an image.
    Dictionary,
    /// All 0: a residual branch starts as no change.
    Zero,
    /// PyTorch's default: uniform within ±1/√fan-in, for biases too.
    Torch,
}

impl Serialize for Activation {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let name = self.function();
        match self {
            Self::LeakyRelu { slope } => {
                json!({"kind": name, "slope": slope}).serialize(serializer)
            }
            Self::Elu { alpha } => json!({"kind": name, "alpha": alpha}).serialize(serializer),
            Self::Identity
            | Self::Relu
            | Self::Softplus
            | Self::Sigmoid
            | Self::Tanh
            | Self::Gelu
            | Self::Silu => name.serialize(serializer),
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
                "activation: unknown key {key:?}; use kind, slope or alpha"
            )));
        }
        let kind = value.as_str().or_else(|| value["kind"].as_str());
        let kind = kind.ok_or_else(|| {
            D::Error::custom(format!("activation {value}: write a name, or {{ kind = … }}"))
        })?;
        let number = |key: &str, default: f64| value[key].as_f64().unwrap_or(default);
        Activation::named(kind, number("slope", 0.01), number("alpha", 1.0))
            .map_err(D::Error::custom)
    }
}
