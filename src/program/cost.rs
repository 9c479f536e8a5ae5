//! What an operation costs at least: the floor that its time is held against.
//!
//! Bytes: what is read is read once, what is written is written once, what is updated in place
//! both; scratch memory and what stays in caches or registers cost nothing. Floating-point
//! operations: an addition, a multiplication, a comparison, a square root, an exponential count 1
//! each; a product of matrices or a convolution 2·N·P·Q·K·R·S·C/groups, taps that fall on padding
//! included, its bias and activation not. Integer work (indices, random bits, ranks) counts
//! nothing, so that moving and drawing cost bytes alone.

use crate::ops::{Activation, LossKind};
use crate::profile::{Cost, Operation};
use crate::program::Call;
use crate::shape::{Conv2d, Dims, Pool2d};
use crate::view::{Access, View};

impl Call {
    /// The operation's name, sizes and cost, as profiles report it.
    pub fn operation(&self) -> Operation {
        Operation { label: self.label(), sizes: self.sizes(), cost: self.cost() }
    }

    /// The least work of the operation.
    pub fn cost(&self) -> Cost {
        Cost { flops: self.flops(), bytes: self.bytes() }
    }

    fn bytes(&self) -> f64 {
        let bytes = match self {
            // A part of a view: the chosen channels, the chosen images at a byte a value.
            Self::CopyChannels(op) => 2 * (op.rows * op.count) as u64 * op.x.element(),
            Self::GatherBatch(op) => {
                op.x.len as u64 * op.x.element() + 4 * (op.x.len.div_ceil(4) + 4 * op.n) as u64
            }
            _ => {
                let weigh = |access| match access {
                    Access::Read | Access::Write => 1,
                    Access::Update => 2,
                    Access::Scratch => 0,
                };
                self.views()
                    .into_iter()
                    .map(|(view, access)| weigh(access) * view.len as u64 * view.element())
                    .sum()
            }
        };
        bytes as f64
    }

    fn flops(&self) -> f64 {
        let each = |elements: usize, flops: usize| elements as f64 * flops as f64;
        let window = |size: &Pool2d| size.kernel[0] * size.kernel[1];
        match self {
            Self::Conv2dFwd(op) => op.size.flops(),
            Self::Conv2dMaxPoolFwd(op) => op.size.flops() + each(op.y.len, window(&op.pool())),
            Self::Conv2dBwdInput(op) => op.size.flops(),
            Self::Conv2dBwdWeight(op) => op.size.flops(),
            Self::ActivationFwd(op) => each(op.y.len, of_activation(op.activation)),
            Self::ActivationBwd(op) => each(op.dx.len, 1 + of_activation(op.activation)),
            Self::ActivationBwdOutput(op) => each(op.dx.len, 2),
            Self::MaxPool2dFwd(op) => each(op.y.len, window(&op.size)),
            Self::MaxPool2dBwd(op) => each(op.dy.len, 1 + of_slope(op.activation)),
            Self::AvgPool2dFwd(op) => each(op.y.len, window(&op.size)),
            Self::AvgPool2dBwd(op) => each(op.dy.len, window(&op.size)),
            Self::L2Pool2dFwd(op) => each(op.y.len, 2 * window(&op.size)),
            Self::L2Pool2dBwd(op) => each(op.dy.len, 3 * window(&op.size)),
            Self::UpsampleNearest2dBwd(op) => each(op.dy.len, 1),
            Self::Combine(op) => each(op.y.len, if op.b.is_some() { 3 } else { 1 }),
            Self::AddAssign(op) => each(op.y.len, 1),
            Self::DropoutMask(_)
            | Self::MaxUnpool2dFwd(_)
            | Self::MaxUnpool2dBwd(_)
            | Self::UpsampleNearest2dFwd(_)
            | Self::CopyChannels(_) => 0.0,
            // One comparison a value at least, however the chosen are found.
            Self::TopKMask(op) => each(op.x.len, 1),
            Self::BatchTopKMask(op) => each(op.x.len, 1),
            Self::ThresholdMask(op) => each(op.x.len, 1),
            Self::SpatialWtaMask(op) => each(op.x.len, 1),
            Self::LifetimeWtaMask(op) => each(op.x.len, 1),
            Self::MaskApply(op) => each(op.y.len, 2),
            Self::SoftThresholdFwd(op) => each(op.y.len, 3),
            Self::SoftThresholdBwd(op) => each(op.dx.len, 3),
            Self::Loss(op) => each(op.y.len, of_loss(op.kind) + of_slope(op.activation)),
            Self::CrossEntropy(op) => each(op.y.len, 5),
            Self::PixelCrossEntropy(op) => each(op.y.len, 5),
            Self::Dice(op) => each(op.q.len, 8),
            Self::GridDetection(op) => each(op.y.len, 5),
            Self::L1Penalty(op) => {
                each(op.z.len, 3 + of_slope(op.activation) + if op.idle.is_some() { 1 } else { 0 })
            }
            Self::KlPenalty(op) => each(op.z.len, 2) + each(op.units, 8),
            Self::ChannelSum(op) => each(op.x.len, 1),
            Self::CountNonzero(op) => each(op.x.len, 2),
            Self::SumSquares(op) => each(op.x.len, 2),
            Self::FiringUpdate(op) => each(op.z.len, 1),
            Self::IdleUpdate(op) => each(op.idle.len, 2),
            Self::Revive(op) => each(op.dx.len, 2),
            Self::ClipGrads(op) => each(op.grads.len, 1),
            Self::Sgd(op) => {
                let momentum = if op.momentum > 0.0 { 2 } else { 0 };
                let nesterov = if op.nesterov { 2 } else { 0 };
                each(
                    op.weights.len,
                    2 + momentum + nesterov + if op.weight_decay > 0.0 { 2 } else { 0 },
                )
            }
            Self::Adam(op) => each(op.weights.len, 13 + if op.weight_decay > 0.0 { 2 } else { 0 }),
            Self::MaxNorm(op) => each(op.w.len, 3),
            Self::ProjectGrad(op) => each(op.w.len, 6),
            Self::IdleOnly(_) => 0.0,
            Self::GatherBatch(op) => each(op.x.len, 2),
            Self::GaussianNoise(op) => each(op.y.len, 25),
            Self::MissingPixels(op) => each(op.known.len, 1),
            Self::FillMissing(op) => each(op.y.len, 3),
            Self::LocalContrast(op) => each(op.x.len, 3 * op.window + 2),
            Self::BicubicDownUp(op) => {
                each(op.y.len, 8 * (4 * op.scales.iter().max().unwrap_or(&1) + 1))
            }
        }
    }

    /// The operation's name as its files are called: `conv2d_fwd`, `top_k_mask`.
    pub fn label(&self) -> String {
        snake(self.name())
    }

    /// The operation's sizes in a few words, such as `3x32x32-32x32x32 k3x3 n128`: what goes in,
    /// what comes out, kernel, batch.
    pub fn sizes(&self) -> String {
        let pooled = |size: &Pool2d| {
            format!("{}-{} k{}x{} n{}", size.x, size.y, size.kernel[0], size.kernel[1], size.n)
        };
        let unpooled = |size: &Pool2d| {
            format!("{}-{} k{}x{} n{}", size.y, size.x, size.kernel[0], size.kernel[1], size.n)
        };
        let maps = |n: usize, dims: Dims| format!("{dims} n{n}");
        match self {
            Self::Conv2dFwd(op) => {
                convolution(&op.size, op.size.x, op.size.y) + &gated(op.activation, op.gate)
            }
            Self::Conv2dMaxPoolFwd(op) => {
                convolution(&op.size, op.size.x, op.size.y) + &epilogue(op.activation)
            }
            Self::Conv2dBwdInput(op) => {
                convolution(&op.size, op.size.y, op.size.x) + &gated(op.activation, op.gate)
            }
            Self::Conv2dBwdWeight(op) => convolution(&op.size, op.size.x, op.size.y),
            Self::ActivationFwd(op) => format!("{}{}", op.y.len, epilogue(op.activation)),
            Self::ActivationBwd(op) => format!("{}{}", op.dx.len, epilogue(op.activation)),
            Self::ActivationBwdOutput(op) => format!("{}{}", op.dx.len, epilogue(op.activation)),
            Self::MaxPool2dFwd(op) => pooled(&op.size),
            Self::MaxPool2dBwd(op) => unpooled(&op.size) + &gated(op.activation, op.gate),
            Self::AvgPool2dFwd(op) => pooled(&op.size),
            Self::AvgPool2dBwd(op) => unpooled(&op.size),
            Self::L2Pool2dFwd(op) => pooled(&op.size),
            Self::L2Pool2dBwd(op) => unpooled(&op.size),
            Self::MaxUnpool2dFwd(op) => unpooled(&op.size),
            Self::MaxUnpool2dBwd(op) => pooled(&op.size),
            Self::UpsampleNearest2dFwd(op) => {
                format!("{} x{}x{} n{}", op.x_dims, op.scale[0], op.scale[1], op.n)
            }
            Self::UpsampleNearest2dBwd(op) => {
                format!("{} x{}x{} n{}", op.x_dims, op.scale[0], op.scale[1], op.n)
            }
            Self::Combine(op) => op.y.len.to_string(),
            Self::AddAssign(op) => op.y.len.to_string(),
            Self::CopyChannels(op) => {
                format!("{} of {}-{} rows{}", op.count, op.x_channels, op.y_channels, op.rows)
            }
            Self::DropoutMask(op) => maps(op.n, op.dims),
            Self::TopKMask(op) => format!("{} top{} n{}", op.dims, op.k, op.n),
            Self::BatchTopKMask(op) => format!("{} top{} n{}", op.dims, op.k, op.n),
            Self::ThresholdMask(op) => op.x.len.to_string(),
            Self::SpatialWtaMask(op) => maps(op.n, op.dims),
            Self::LifetimeWtaMask(op) => format!("{} win{} n{}", op.dims, op.winners, op.n),
            Self::MaskApply(op) => op.y.len.to_string(),
            Self::SoftThresholdFwd(op) => maps(op.n, op.dims),
            Self::SoftThresholdBwd(op) => maps(op.n, op.dims),
            Self::Loss(op) => {
                format!("{} n{}{}", op.y.len / op.n, op.n, gated(op.activation, Some(op.y)))
            }
            Self::CrossEntropy(op) => format!("{} n{}", op.classes, op.n),
            Self::PixelCrossEntropy(op) => format!("{} pixels{}", op.classes, op.pixels),
            Self::Dice(op) => format!("{} pixels{}", op.classes, op.pixels),
            Self::GridDetection(op) => format!("{} cells{}", op.classes, op.cells),
            Self::L1Penalty(op) => {
                format!("{} n{}{}", op.z.len / op.n, op.n, gated(op.activation, Some(op.z)))
            }
            Self::KlPenalty(op) => format!("{} n{}", op.units, op.n),
            Self::ChannelSum(op) => format!("{} rows{}", op.channels, op.rows),
            Self::CountNonzero(op) => op.x.len.to_string(),
            Self::SumSquares(op) => op.x.len.to_string(),
            Self::FiringUpdate(op) => maps(op.n, op.dims),
            Self::IdleUpdate(op) => op.idle.len.to_string(),
            Self::Revive(op) => maps(op.n, op.dims),
            Self::ClipGrads(op) => op.grads.len.to_string(),
            Self::Sgd(op) => op.weights.len.to_string(),
            Self::Adam(op) => op.weights.len.to_string(),
            Self::MaxNorm(op) => format!("{}x{}x{}", op.outer, op.atoms, op.inner),
            Self::ProjectGrad(op) => format!("{}x{}x{}", op.outer, op.atoms, op.inner),
            Self::IdleOnly(op) => maps(op.n, op.dims),
            Self::GatherBatch(op) => maps(op.n, op.dims),
            Self::GaussianNoise(op) => maps(op.n, op.dims),
            Self::MissingPixels(op) => maps(op.n, op.dims),
            Self::FillMissing(op) => maps(op.n, op.dims),
            Self::BicubicDownUp(op) => maps(op.n, op.dims),
            Self::LocalContrast(op) => format!("{} w{}", maps(op.n, op.dims), op.window),
        }
    }
}

/// `Conv2dFwd` → `conv2d_fwd`: the name of an operation's files.
pub fn snake(name: &str) -> String {
    let mut label = String::new();
    for (i, letter) in name.char_indices() {
        if letter.is_ascii_uppercase() && i > 0 {
            label.push('_');
        }
        label.push(letter.to_ascii_lowercase());
    }
    label
}

fn convolution(size: &Conv2d, from: Dims, to: Dims) -> String {
    let [r, s] = size.taps.kernel;
    let mut text = format!("{from}-{to}");
    // A fully connected layer has one pixel and one tap.
    if r * s * size.x.area() > 1 {
        text += &format!(" k{r}x{s}");
    }
    if size.taps.stride != [1, 1] {
        text += &format!(" s{}", size.taps.stride.map(|step| step.to_string()).join("x"));
    }
    if size.groups > 1 {
        text += &format!(" g{}", size.groups);
    }
    text + &format!(" n{}", size.n)
}

fn epilogue(activation: Activation) -> String {
    match activation {
        Activation::Identity => String::new(),
        Activation::LeakyRelu { .. } => " leaky_relu".to_owned(),
        Activation::Elu { .. } => " elu".to_owned(),
        other => format!(" {other:?}").to_lowercase(),
    }
}

/// An epilogue; where it is a gate, so the function's slope, with a stroke behind.
fn gated(activation: Activation, gate: Option<View>) -> String {
    match epilogue(activation) {
        name if gate.is_some() && !name.is_empty() => name + "'",
        name => name,
    }
}

/// By the output: no exponential is left, a comparison or two and the product.
const fn of_slope(activation: Activation) -> usize {
    if matches!(activation, Activation::Identity) { 0 } else { 2 }
}

const fn of_activation(activation: Activation) -> usize {
    match activation {
        Activation::Identity => 0,
        Activation::Relu => 1,
        Activation::LeakyRelu { .. } => 2,
        Activation::Elu { .. } | Activation::Softplus | Activation::Sigmoid => 4,
        Activation::Tanh | Activation::Silu => 5,
        Activation::Gelu => 12,
    }
}

/// Value and gradient of one element.
const fn of_loss(kind: LossKind) -> usize {
    match kind {
        LossKind::SumSquares | LossKind::Mse | LossKind::L1 => 4,
        LossKind::Bce => 10,
        LossKind::Charbonnier { .. } => 7,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::AddAssign;
    use crate::ops::{Augment, CopyChannels, GatherBatch, Sgd};
    use crate::ops::{Conv2dBwdInput, Conv2dBwdWeight, Conv2dFwd};
    use crate::shape::Taps;
    use crate::view::{Buffer, View};

    fn view(buffer: u32, len: usize) -> View {
        View::whole(Buffer::planned(buffer), len)
    }

    #[test]
    fn a_convolution_costs_what_a_hand_counts() {
        let taps = Taps { kernel: [3, 5], stride: [2, 1], padding: [1, 2], dilation: [1, 1] };
        let size = Conv2d::forward(7, Dims::new(6, 9, 11), 4, taps, 2).unwrap();
        assert_eq!((size.y.h, size.y.w), (5, 11));
        let (mut flops, mut weights) = (0_usize, 0);
        for _ in 0..7 * 5 * 11 {
            flops += 4 * 3 * 5 * 3 * 2;
        }
        weights += 4 * 3 * 5 * 3;
        let (x, y, w, b) = (view(0, 7 * 6 * 99), view(1, 7 * 4 * 55), view(2, weights), view(3, 4));
        let activation = Activation::Relu;
        let forward: Call = Conv2dFwd { size, activation, x, w, b: Some(b), gate: None, y }.into();
        let elements = x.len + y.len + weights + 4;
        assert_eq!(forward.cost(), Cost { flops: flops as f64, bytes: 4.0 * elements as f64 });
        assert_eq!(forward.sizes(), "6x9x11-4x5x11 k3x5 s2x1 g2 n7 relu");
        let input: Call =
            Conv2dBwdInput { size, activation: Activation::Identity, y, w, b: None, gate: None, x }
                .into();
        assert_eq!(input.cost(), Cost { flops: flops as f64, bytes: 4.0 * (elements - 4) as f64 });
        assert_eq!(input.sizes(), "4x5x11-6x9x11 k3x5 s2x1 g2 n7");
        let gated: Call =
            Conv2dBwdInput { size, activation, y, w, b: None, gate: Some(view(5, x.len)), x }
                .into();
        assert_eq!(
            gated.cost(),
            Cost { flops: flops as f64, bytes: 4.0 * (elements - 4 + x.len) as f64 }
        );
        assert_eq!(gated.sizes(), "4x5x11-6x9x11 k3x5 s2x1 g2 n7 relu'");
        // Scratch memory is not part of the floor.
        let weight: Call =
            Conv2dBwdWeight { size, x, dy: y, dw: w, partials: view(4, 1 << 20) }.into();
        assert_eq!(weight.cost(), input.cost());
    }

    #[test]
    fn what_is_updated_counts_twice_and_a_part_counts_as_a_part() {
        let sgd = Sgd {
            grad_scale: 1.0,
            momentum: 0.9,
            nesterov: false,
            weight_decay: 0.0,
            grads: view(0, 10),
            weights: view(1, 10),
            m: view(2, 10),
        };
        assert_eq!(Call::from(sgd).cost(), Cost { flops: 40.0, bytes: 200.0 });
        let half = View { half: true, ..view(1, 10) };
        let sum: Call = AddAssign { x: half, y: View { half: true, ..view(2, 10) } }.into();
        assert_eq!(sum.cost().bytes, 2.0 * 30.0);
        let (x, y) = (view(0, 700), view(1, 900));
        let copy = CopyChannels {
            rows: 100,
            x_channels: 7,
            from: 1,
            y_channels: 9,
            to: 2,
            count: 3,
            x,
            y,
        };
        assert_eq!(Call::from(copy).cost(), Cost { flops: 0.0, bytes: 4.0 * 600.0 });
        let gather = GatherBatch {
            n: 2,
            dims: Dims::new(1, 4, 4),
            augment: Augment::default(),
            scale: 1.0,
            shift: 0.0,
            bytes: view(0, 1 << 20),
            table: view(1, 3 << 16),
            order: view(2, 1 << 16),
            x: view(3, 32),
        };
        assert_eq!(Call::from(gather).cost().bytes, 4.0 * (32 + 8 + 8) as f64);
    }

    #[test]
    fn labels_are_the_names_of_files() {
        let labels: Vec<String> = Call::NAMES.iter().map(|name| snake(name)).collect();
        for label in [
            "conv2d_fwd",
            "max_pool2d_bwd",
            "l2_pool2d_fwd",
            "batch_top_k_mask",
            "upsample_nearest2d_fwd",
            "l1_penalty",
        ] {
            assert!(labels.iter().any(|known| known == label), "{label}: {labels:?}");
        }
    }
}
