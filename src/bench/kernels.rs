//! Single operations at the shapes of W1–W3, forward and backward.

use std::time::Instant;

use serde::Serialize;

use super::spread;
use crate::device::Device;
use crate::error::Result;
use crate::ops::{
    Activation, ActivationBwdOutput, Adam, BatchTopKMask, Call, Conv2dBwdInput, Conv2dBwdWeight, Conv2dFwd, DropoutMask,
    L1Penalty, Loss, LossKind, MaxPool2dBwd, MaxPool2dFwd, SCALAR_PARTIALS, Sgd, StepParams, TopKMask, View,
};
use crate::rng::Stream;
use crate::shape::{Conv2d, Dims, Pool2d, Taps};

/// An operation to time.
#[derive(Clone, Debug)]
pub struct KernelBench {
    /// `operation/layer`.
    pub name: String,
    /// Sizes, for people.
    pub shape: String,
    what: What,
    flops: f64,
    /// Elements that must be read or written at least once.
    elements: usize,
}

#[derive(Clone, Debug)]
enum What {
    Forward(Conv2d),
    Adjoint(Conv2d),
    Weight(Conv2d),
    Pool(Pool2d, bool),
    Epilogue(usize),
    Dropout(usize, Dims),
    TopK(usize, Dims, usize),
    BatchTopK(usize, Dims, usize),
    Loss(usize, Dims),
    L1(usize, Dims),
    Sgd(usize),
    Adam(usize),
}

/// A timed operation.
#[derive(Clone, Debug, Serialize)]
pub struct KernelResult {
    /// `kernel`
    pub kind: &'static str,
    /// `operation/layer`
    pub name: String,
    /// Sizes.
    pub shape: String,
    /// Where.
    pub device: String,
    /// Milliseconds, median of the windows.
    pub ms: f64,
    /// 10⁹ floating-point operations a second.
    pub gflops: f64,
    /// 10⁹ bytes a second, each tensor counted once.
    pub gbps: f64,
}

/// Every operation that is timed.
pub fn kernels() -> Vec<KernelBench> {
    let mut all = Vec::new();
    let conv = |n, c, side, k, r: usize, stride, pad| {
        let taps = Taps { kernel: [r, r], stride: [stride, stride], padding: [pad, pad], dilation: [1, 1] };
        Conv2d::forward(n, Dims::new(c, side, side), k, taps, 1).expect("a bench's shape is sound")
    };
    let up = |n, c, side, k, r: usize, pad| {
        let taps = Taps { kernel: [r, r], stride: [2, 2], padding: [pad, pad], dilation: [1, 1] };
        Conv2d::transposed(n, Dims::new(c, side, side), k, taps, [0, 0], 1).expect("a bench's shape is sound")
    };
    let layers = [
        ("w1.conv1", "1->16 3x3 @28, n 128", conv(128, 1, 28, 16, 3, 1, 1), false),
        ("w1.conv2", "16->32 3x3 @14, n 128", conv(128, 16, 14, 32, 3, 1, 1), false),
        ("w1.code", "1568->128, n 128", Conv2d::linear(128, 1568, 128), false),
        ("w1.expand", "128->1568, n 128", Conv2d::linear(128, 128, 1568), false),
        ("w1.deconv1", "32->16 2x2/2 @7, n 128", up(128, 32, 7, 16, 2, 0), true),
        ("w1.deconv2", "16->1 2x2/2 @14, n 128", up(128, 16, 14, 1, 2, 0), true),
        ("w2.conv1", "3->32 3x3 @32, n 128", conv(128, 3, 32, 32, 3, 1, 1), false),
        ("w2.conv2", "32->64 3x3 @16, n 128", conv(128, 32, 16, 64, 3, 1, 1), false),
        ("w2.code", "4096->512, n 128", Conv2d::linear(128, 4096, 512), false),
        ("w2.expand", "512->4096, n 128", Conv2d::linear(128, 512, 4096), false),
        ("w2.deconv1", "64->32 4x4/2 @8, n 128", up(128, 64, 8, 32, 4, 1), true),
        ("w2.deconv2", "32->3 4x4/2 @16, n 128", up(128, 32, 16, 3, 4, 1), true),
        ("w3.conv3", "64->128 3x3 @16, n 32", conv(32, 64, 16, 128, 3, 1, 1), false),
        ("w3.code", "8192->1024, n 32", Conv2d::linear(32, 8192, 1024), false),
        ("w3.deconv1", "128->64 4x4/2 @8, n 32", up(32, 128, 8, 64, 4, 1), true),
    ];
    for (layer, shape, size, transposed) in layers {
        let (fwd, input) =
            if transposed { ("conv_transpose2d_fwd", "conv_transpose2d_bwd_input") } else { ("conv2d_fwd", "conv2d_bwd_input") };
        let weight = if transposed { "conv_transpose2d_bwd_weight" } else { "conv2d_bwd_weight" };
        let (there, back) =
            if transposed { (What::Adjoint(size), What::Forward(size)) } else { (What::Forward(size), What::Adjoint(size)) };
        let elements = size.n * (size.x.len() + size.y.len()) + size.weight_len();
        for (name, what) in [(fwd, there), (input, back), (weight, What::Weight(size))] {
            all.push(KernelBench {
                name: format!("{name}/{layer}"),
                shape: shape.to_owned(),
                what,
                flops: size.flops(),
                elements,
            });
        }
    }
    for (layer, n, x) in [
        ("w1.pool1", 128, Dims::new(16, 28, 28)),
        ("w2.pool1", 128, Dims::new(32, 32, 32)),
        ("w3.pool1", 32, Dims::new(32, 64, 64)),
    ] {
        let size = Pool2d::new(n, x, [2, 2], [2, 2], [0, 0]).expect("a bench's shape is sound");
        let elements = n * (x.len() + 2 * size.y.len());
        for (name, backward) in [("max_pool2d_fwd", false), ("max_pool2d_bwd", true)] {
            let shape = format!("{x} 2x2, n {n}");
            all.push(KernelBench {
                name: format!("{name}/{layer}"),
                shape,
                what: What::Pool(size, backward),
                flops: elements as f64,
                elements,
            });
        }
    }
    let code = Dims::flat(512);
    let image = Dims::new(3, 32, 32);
    let maps = 128 * 32 * 32 * 32;
    let mut push = |name: &str, shape: String, what, flops: f64, elements| {
        all.push(KernelBench { name: name.to_owned(), shape, what, flops, elements });
    };
    push("activation_bwd_output/w2.conv1", "32x32x32, n 128".to_owned(), What::Epilogue(maps), maps as f64, 3 * maps);
    push("dropout_mask/w2.code", format!("{code}, n 128"), What::Dropout(128, code), 128.0 * 512.0 * 30.0, 128 * 512);
    push("top_k_mask/w2.code", format!("{code} k 32, n 128"), What::TopK(128, code, 32), 128.0 * 512.0 * 8.0, 2 * 128 * 512);
    for (layer, n, dims, k) in [("w2.code", 128, code, 32), ("w2.conv2", 128, Dims::new(64, 16, 16), 800)] {
        let len = n * dims.len();
        let shape = format!("{dims} k {k}, n {n}");
        push(&format!("batch_top_k_mask/{layer}"), shape, What::BatchTopK(n, dims, k), len as f64 * 8.0, 2 * len);
    }
    push("loss/w2", format!("{image}, n 128"), What::Loss(128, image), 128.0 * 3072.0 * 4.0, 3 * 128 * 3072);
    push("l1_penalty/w2.code", format!("{code}, n 128"), What::L1(128, code), 128.0 * 512.0 * 3.0, 3 * 128 * 512);
    push("sgd/w2", "4252643".to_owned(), What::Sgd(4_252_643), 4.0 * 4_252_643.0, 5 * 4_252_643);
    push("adam/w2", "4252643".to_owned(), What::Adam(4_252_643), 12.0 * 4_252_643.0, 7 * 4_252_643);
    all
}

impl KernelBench {
    /// Times the operation in `windows` windows of `seconds`.
    pub fn run(&self, device: &mut Device, seconds: f64, windows: usize) -> Result<KernelResult> {
        let mut buffers = Vec::new();
        let call = self.call(device, &mut buffers)?;
        let one = device.compile(vec![call.clone()])?;
        let time = |device: &mut Device, program: &crate::device::Program, times: usize| -> Result<f64> {
            let start = Instant::now();
            for _ in 0..times {
                device.run(program, &StepParams::default())?;
            }
            device.wait()?;
            Ok(start.elapsed().as_secs_f64())
        };
        time(device, &one, 1)?;
        let estimate = time(device, &one, 1)?.min(time(device, &one, 1)?);
        // Many in one submission, so that what is timed is the kernel and not the submission.
        let each = (0.05 / estimate).clamp(1.0, 64.0) as usize;
        let many = device.compile(vec![call; each])?;
        let times = (seconds / (estimate * each as f64)).round().clamp(1.0, 1e5) as usize;
        time(device, &many, 1)?;
        let windows =
            (0..windows).map(|_| Ok(time(device, &many, times)? / (times * each) as f64)).collect::<Result<Vec<_>>>()?;
        let (median, ..) = spread(windows);
        buffers.iter().for_each(|view: &View| device.free(view.buffer));
        let round = |x: f64| (x * 1e3).round() / 1e3;
        Ok(KernelResult {
            kind: "kernel",
            name: self.name.clone(),
            shape: self.shape.clone(),
            device: device.label(),
            ms: round(median * 1e3),
            gflops: round(self.flops / median / 1e9),
            gbps: round(self.elements as f64 * 4.0 / median / 1e9),
        })
    }

    fn call(&self, device: &mut Device, buffers: &mut Vec<View>) -> Result<Call> {
        let mut stream = Stream::new(1, &self.name);
        let mut real = |device: &mut Device, len: usize| -> Result<View> {
            let view = device.alloc_real(&self.name, len)?;
            let values: Vec<f32> = (0..len).map(|_| stream.uniform() - 0.3).collect();
            device.write(view, &values);
            buffers.push(view);
            Ok(view)
        };
        Ok(match self.what {
            What::Forward(size) => {
                let (x, y) = (real(device, size.n * size.x.len())?, real(device, size.n * size.y.len())?);
                Conv2dFwd {
                    size,
                    activation: Activation::Relu,
                    x,
                    w: real(device, size.weight_len())?,
                    b: Some(real(device, size.y.c)?),
                    y,
                }
                .into()
            }
            What::Adjoint(size) => {
                let (x, y) = (real(device, size.n * size.x.len())?, real(device, size.n * size.y.len())?);
                Conv2dBwdInput { size, activation: Activation::Identity, y, w: real(device, size.weight_len())?, b: None, x }
                    .into()
            }
            What::Weight(size) => {
                let (x, dy) = (real(device, size.n * size.x.len())?, real(device, size.n * size.y.len())?);
                let partials = real(device, Conv2dBwdWeight::partials_len(&size))?;
                Conv2dBwdWeight { size, x, dy, dw: real(device, size.weight_len())?, partials }.into()
            }
            What::Pool(size, backward) => {
                let (x, y) = (real(device, size.n * size.x.len())?, real(device, size.n * size.y.len())?);
                let switches = device.alloc_words(&self.name, y.len)?;
                let forward = MaxPool2dFwd { size, x, y, switches };
                let call = if backward {
                    let program = device.compile(vec![forward.into()])?;
                    device.run(&program, &StepParams::default())?;
                    MaxPool2dBwd { size, dy: y, switches, dx: x }.into()
                } else {
                    forward.into()
                };
                buffers.push(switches);
                call
            }
            What::Epilogue(len) => {
                let (y, dy, dx) = (real(device, len)?, real(device, len)?, real(device, len)?);
                ActivationBwdOutput { activation: Activation::Relu, y, dy, dx }.into()
            }
            What::Dropout(n, dims) => DropoutMask { p: 0.1, n, dims, layer: 1, mask: real(device, n * dims.len())? }.into(),
            What::TopK(n, dims, k) => {
                TopKMask { n, dims, k, x: real(device, n * dims.len())?, mask: real(device, n * dims.len())? }.into()
            }
            What::BatchTopK(n, dims, k) => {
                let (x, mask) = (real(device, n * dims.len())?, real(device, n * dims.len())?);
                let (threshold, work) = (real(device, 1)?, device.alloc_words(&self.name, BatchTopKMask::WORK)?);
                buffers.push(work);
                BatchTopKMask { n, dims, k, rate: 0.01, x, threshold, mask, work }.into()
            }
            What::Loss(n, dims) => {
                let len = n * dims.len();
                let (y, target, dy) = (real(device, len)?, real(device, len)?, real(device, len)?);
                let (scalars, partials) = (real(device, 1)?, real(device, SCALAR_PARTIALS)?);
                Loss { kind: LossKind::SumSquares, n, width: 1, index: 0, y, target, scalars, dy, partials }.into()
            }
            What::L1(n, dims) => {
                let (z, dz) = (real(device, n * dims.len())?, real(device, n * dims.len())?);
                let (scalars, partials) = (real(device, 1)?, real(device, SCALAR_PARTIALS)?);
                L1Penalty { lambda: 1e-3, n, width: 1, index: 0, z, dz, scalars, partials }.into()
            }
            What::Sgd(len) => {
                let (grads, weights, m) = (real(device, len)?, real(device, len)?, real(device, len)?);
                Sgd { momentum: 0.9, nesterov: false, weight_decay: 0.0, grads, weights, m }.into()
            }
            What::Adam(len) => {
                let (grads, weights, m, v) =
                    (real(device, len)?, real(device, len)?, real(device, len)?, device.alloc_real("v", len)?);
                buffers.push(v);
                Adam { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.0, decoupled: false, grads, weights, m, v }.into()
            }
        })
    }
}
