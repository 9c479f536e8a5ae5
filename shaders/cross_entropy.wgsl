//!include grid fours map log
// partials[i] = -ln softmax(y[i])[labels[i]] and dy = scale * (softmax(y) - onehot(label)); y, dy
// (n, classes), labels (n) below `classes`.
// With m the largest logit (its first place) and r the sum of exp(y_j - m) over the others: loss =
// ln(1 + r) + (m - y_label), and the gradient at m, if it is the label, is -r / (1 + r): neither
// cancels when the prediction is sure.
// One workgroup: one sample. Grid: n workgroups of 64. Twin: CrossEntropy in src/reference/loss.rs.
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

// exp(d) for d <= 0; below -87 the result would not be a normal number.
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
    var highest = -3.4028234e38;
    for (var j = local; j < p.classes; j += 64u) {
        highest = max(highest, f32(y[base + j]));
    }
    values[local] = highest;
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
    highest = values[0];
    for (var j = local; j < p.classes; j += 64u) {
        if f32(y[base + j]) == highest {
            atomicMin(&first, j);
        }
    }
    workgroupBarrier();
    let winner = atomicLoad(&first);
    var rest = 0.0;
    for (var j = local; j < p.classes; j += 64u) {
        if j != winner {
            rest += exp_below(f32(y[base + j]) - highest);
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
        if j != winner {
            gradient = exp_below(f32(y[base + j]) - highest) / total;
        }
        if j == label {
            gradient = select(gradient - 1.0, -rest / total, j == winner);
        }
        dy[base + j] = Map(p.scale * gradient);
    }
    if local == 0u {
        partials[sample] = log_ratio(total, 1.0, rest) + (highest - f32(y[base + label]));
    }
}
