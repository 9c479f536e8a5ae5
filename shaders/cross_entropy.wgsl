//!include grid fours map log
// partials[i] = -ln softmax(y[i])[labels[i]], dy = scale * (softmax(y) - onehot(label)).
// With m the largest logit (the first of equal ones) and r the sum of exp(y_j - m) over the others:
//   loss = ln(1 + r) + (m - y_label), and if the label is the largest, its gradient is -r / (1 +
//   r). Neither form suffers from cancellation when the prediction is confident.
// Layouts: y and dy (n, classes), labels (n), partials (n).
// Workgroup: one sample.
// Grid: n workgroups of 64.
// Precondition: every label is below `classes`.
// Twin: CrossEntropy in src/ops/loss/cpu.rs.
struct Params {
    n: u32,
    classes: u32,
    scale: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> y: array<Map>;
@group(0) @binding(2) var<storage, read> labels: array<u32>;
@group(0) @binding(3) var<storage, read_write> dy: array<Map>;
@group(0) @binding(4) var<storage, read_write> partials: array<f32>;

var<workgroup> values: array<f32, 64>;
var<workgroup> first: atomic<u32>;

// exp(d) for d <= 0. Clamped at -87: below that the result would be subnormal, which devices may
// flush to 0.
fn exp_below(d: f32) -> f32 {
    return exp(max(d, -87.0));
}

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let sample = flat_workgroup(group, groups);
    if sample >= p.n {
        return;
    }
    let base = sample * p.classes;
    let label = labels[sample];
    // The smallest finite f32, below every logit.
    var max_logit = -3.4028234e38;
    for (var j = local; j < p.classes; j += 64u) {
        max_logit = max(max_logit, f32(y[base + j]));
    }
    values[local] = max_logit;
    if local == 0u {
        atomicStore(&first, p.classes);
    }
    workgroupBarrier();
    for (var half = 32u; half > 0u; half /= 2u) {
        if local < half {
            values[local] = max(values[local], values[local + half]);
        }
        workgroupBarrier();
    }
    max_logit = values[0];
    for (var j = local; j < p.classes; j += 64u) {
        if f32(y[base + j]) == max_logit {
            atomicMin(&first, j);
        }
    }
    workgroupBarrier();
    let argmax = atomicLoad(&first);
    var rest = 0.0;
    for (var j = local; j < p.classes; j += 64u) {
        if j != argmax {
            rest += exp_below(f32(y[base + j]) - max_logit);
        }
    }
    values[local] = rest;
    workgroupBarrier();
    for (var half = 32u; half > 0u; half /= 2u) {
        if local < half {
            values[local] += values[local + half];
        }
        workgroupBarrier();
    }
    rest = values[0];
    let total = 1.0 + rest;
    for (var j = local; j < p.classes; j += 64u) {
        var gradient = 1.0 / total;
        if j != argmax {
            gradient = exp_below(f32(y[base + j]) - max_logit) / total;
        }
        if j == label {
            gradient = select(gradient - 1.0, -rest / total, j == argmax);
        }
        dy[base + j] = Map(p.scale * gradient);
    }
    if local == 0u {
        partials[sample] = log_ratio(total, 1.0, rest) + (max_logit - f32(y[base + label]));
    }
}
