//! The description of an operation in profiles: its name, its sizes and its minimum work, from
//! which its roofline efficiency follows. Each operation states them itself ([`crate::ops::Work`]).

use crate::profile::{Cost, Operation};
use crate::program::Call;

impl Call {
    /// The operation's name, sizes and cost, as profiles report it.
    pub fn operation(&self) -> Operation {
        Operation { label: self.label(), sizes: self.sizes(), cost: self.cost() }
    }

    /// The minimum work of the operation.
    pub fn cost(&self) -> Cost {
        Cost { flops: self.flops(), bytes: self.bytes() }
    }

    /// The operation's name in the form of file names, such as `conv2d_fwd` or `top_k_mask`.
    pub fn label(&self) -> String {
        snake(self.name())
    }
}

/// Converts the name of an operation to that of its files: `Conv2dFwd` to `conv2d_fwd`.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::{Activation, AddAssign, Augment, CopyChannels, GatherBatch, Sgd};
    use crate::ops::{Conv2dBwdInput, Conv2dBwdWeight, Conv2dFwd};
    use crate::sample_type::SampleType;
    use crate::shape::{Conv2d, Dims, Taps};
    use crate::view::{Buffer, View};

    fn view(buffer: u32, len: usize) -> View {
        View::whole(Buffer::planned(buffer), len)
    }

    #[test]
    fn the_cost_of_a_convolution_matches_a_count_by_hand() {
        let taps = Taps { kernel: [3, 5], stride: [2, 1], padding: [1, 2], dilation: [1, 1] };
        let size = Conv2d::forward(7, Dims::new(6, 9, 11), 4, taps, 2).unwrap();
        assert_eq!((size.y.h, size.y.w), (5, 11));
        let (mut flops, mut weights) = (0_usize, 0);
        for _ in 0..7 * 5 * 11 {
            flops += 4 * 3 * 5 * 3 * 2;
        }
        weights += 4 * 3 * 5 * 3;
        let (x, y, w, b) = (view(0, 7 * 6 * 99), view(1, 7 * 4 * 55), view(2, weights), view(3, 4));
        let (activation, partials) = (Activation::Relu, view(6, 1 << 20));
        let forward: Call =
            Conv2dFwd { size, activation, penalty: 0.0, x, w, b: Some(b), gate: None, y, partials }
                .into();
        let elements = x.len + y.len + weights + 4;
        assert_eq!(forward.cost(), Cost { flops: flops as f64, bytes: 4.0 * elements as f64 });
        assert_eq!(forward.sizes(), "6x9x11-4x5x11 k3x5 s2x1 g2 n7 relu");
        let input: Call = Conv2dBwdInput {
            size,
            activation: Activation::Identity,
            penalty: 0.0,
            y,
            w,
            b: None,
            gate: None,
            x,
            partials,
        }
        .into();
        assert_eq!(input.cost(), Cost { flops: flops as f64, bytes: 4.0 * (elements - 4) as f64 });
        assert_eq!(input.sizes(), "4x5x11-6x9x11 k3x5 s2x1 g2 n7");
        let gated: Call = Conv2dBwdInput {
            size,
            activation,
            penalty: 0.0,
            y,
            w,
            b: None,
            gate: Some(view(5, x.len)),
            x,
            partials,
        }
        .into();
        assert_eq!(
            gated.cost(),
            Cost { flops: flops as f64, bytes: 4.0 * (elements - 4 + x.len) as f64 }
        );
        assert_eq!(gated.sizes(), "4x5x11-6x9x11 k3x5 s2x1 g2 n7 relu'");
        // Scratch memory does not count.
        let weight: Call = Conv2dBwdWeight {
            size,
            transposed: false,
            x,
            dy: y,
            dw: w,
            db: None,
            partials: view(4, 1 << 20),
        }
        .into();
        assert_eq!(weight.cost(), input.cost());
    }

    #[test]
    fn updated_views_count_twice_and_partial_accesses_in_part() {
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
            sample: SampleType::U8,
            bytes: view(0, 1 << 20),
            table: view(1, 3 << 16),
            order: view(2, 1 << 16),
            scales: view(4, 2),
            x: view(3, 32),
        };
        assert_eq!(Call::from(gather).cost().bytes, 4.0 * (32 + 8 + 8 + 2) as f64);
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
