//!include grid fours map log
// For each pixel i with weight w[i]: q = softmax(y[i]), dy = w[i] (q - onehot(label)), loss = -w[i]
//   ln q[label].
// With m the largest logit (the first of equal ones) and r the sum of exp(y_j - m) over the others:
//   -ln q[label] = ln(1 + r) + (m - y_label), and if the label is the largest, its gradient is -r /
//   (1 + r). Neither form suffers from cancellation when the prediction is confident.
// Layouts: y, q and dy (pixels, classes); labels and weights (pixels). Where w[i] is 0 the label is
//   not read.
// Invocation: pixels i, i + stride, ... The workgroup's sum goes to partials[workgroup], and
//   sum_partials adds those.
// Grid: at most 256 workgroups of 256.
// Twin: PixelCrossEntropy in src/ops/segmentation/cpu.rs.
struct Params {
    pixels: u32,
    classes: u32,
    stride: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> y: array<Map>;
@group(0) @binding(2) var<storage, read> labels: array<u32>;
@group(0) @binding(3) var<storage, read> weights: array<f32>;
@group(0) @binding(4) var<storage, read_write> q: array<Map>;
@group(0) @binding(5) var<storage, read_write> dy: array<Map>;
@group(0) @binding(6) var<storage, read_write> partials: array<f32>;

var<workgroup> sums: array<f32, 256>;

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    var sum = 0.0;
    for (var i = flat_invocation(group, groups, local, 256u); i < p.pixels; i += p.stride) {
        let base = i * p.classes;
        var argmax = 0u;
        var max_logit = f32(y[base]);
        for (var j = 1u; j < p.classes; j++) {
            let value = f32(y[base + j]);
            if value > max_logit {
                argmax = j;
                max_logit = value;
            }
        }
        var rest = 0.0;
        for (var j = 0u; j < p.classes; j++) {
            if j != argmax {
                // Clamped at -87: below that exp would be subnormal.
                rest += exp(max(f32(y[base + j]) - max_logit, -87.0));
            }
        }
        let total = 1.0 + rest;
        let weight = weights[i];
        let label = select(p.classes, labels[i], weight != 0.0);
        for (var j = 0u; j < p.classes; j++) {
            let probability = exp(max(f32(y[base + j]) - max_logit, -87.0)) / total;
            q[base + j] = Map(probability);
            var gradient = probability;
            if j == label {
                gradient = select(probability - 1.0, -rest / total, j == argmax);
            }
            dy[base + j] = Map(weight * gradient);
        }
        if label < p.classes {
            sum += weight * (log_ratio(total, 1.0, rest) + (max_logit - f32(y[base + label])));
        }
    }
    sums[local] = sum;
    workgroupBarrier();
    for (var half = 128u; half > 0u; half /= 2u) {
        if local < half {
            sums[local] += sums[local + half];
        }
        workgroupBarrier();
    }
    if local == 0u {
        partials[flat_workgroup(group, groups)] = sums[0];
    }
}
