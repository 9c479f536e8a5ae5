//!include fours grid step sums
// One step of Adam (Kingma & Ba 2015), or of AdamW (Loshchilov & Hutter 2019) with decoupled = 1:
//   Adam:  g = factor * y + weight_decay * w
//   AdamW: w -= lr * weight_decay * w; g = factor * y
//   m = beta1 * m + rest1 * g
//   v = beta2 * v + rest2 * g^2
//   w -= lr * (m / correction1) / (sqrt(v / correction2) + eps)
// rest1 = 1 - beta1 and rest2 = 1 - beta2 come from the host: computed here in f32, they would have
//   a relative error of up to 3e-5.
// y is the buffer of gradients. Those that are sums are computed here.
// Layouts: y, weights, m and v have the same length; the rest as in common/sums.wgsl. Gaps between
//   parameters have zero gradients and do not change.
// Grid: the workgroups of all sums, 256 invocations each. Preconditions: as in common/sums.wgsl.
// Twin: Adam in src/ops/optimizer.rs.
struct Params {
    count: u32,
    factor: f32,
    beta1: f32,
    rest1: f32,
    beta2: f32,
    rest2: f32,
    eps: f32,
    weight_decay: f32,
    decoupled: u32,
    pad0: u32,
    pad1: u32,
    pad2: u32,
    table: array<vec4<u32>, 96>,
}

@group(0) @binding(4) var<storage, read_write> weights: array<Four>;
@group(0) @binding(5) var<storage, read_write> m: array<Four>;
@group(0) @binding(6) var<storage, read_write> v: array<Four>;

// The update by the gradient `sum` at vec4 i.
fn use_sum(i: u32, sum: vec4<f32>) {
    var w = four(weights[i]);
    var g = p.factor * sum;
    if p.decoupled == 1u {
        w -= step.lr * p.weight_decay * w;
    } else {
        g += p.weight_decay * w;
    }
    let first = p.beta1 * four(m[i]) + p.rest1 * g;
    let second = p.beta2 * four(v[i]) + p.rest2 * g * g;
    m[i] = stored(first);
    v[i] = stored(second);
    let denominator = sqrt(second / step.correction2) + p.eps;
    weights[i] = stored(w - step.lr * (first / step.correction1) / denominator);
}

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    compute(flat_workgroup(group, groups), local);
}
