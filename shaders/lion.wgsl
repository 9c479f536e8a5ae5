//!include fours grid step sums
// One step of Lion:
//   g = factor * y
//   w = w * (1 - lr * weight_decay) - lr * sign(beta1 * m + rest1 * g), rest1 = 1 - beta1
//   m = beta2 * m + rest2 * g, rest2 = 1 - beta2
// y is the buffer of gradients. Those that are sums are computed here.
// Layouts: y, weights and m have the same length; the rest as in common/sums.wgsl. Gaps between
//   parameters have zero gradients and do not change.
// Grid: the workgroups of all sums, 256 invocations each. Preconditions: as in common/sums.wgsl.
// Twin: Lion in src/ops/optimizer.rs.
struct Params {
    count: u32,
    factor: f32,
    beta1: f32,
    rest1: f32,
    beta2: f32,
    rest2: f32,
    weight_decay: f32,
    pad0: u32,
    table: array<vec4<u32>, 96>,
}

@group(0) @binding(4) var<storage, read_write> weights: array<Four>;
@group(0) @binding(5) var<storage, read_write> m: array<Four>;

// The update by the gradient `sum` at vec4 i.
fn use_sum(i: u32, sum: vec4<f32>) {
    let g = p.factor * sum;
    let moment = four(m[i]);
    let direction = sign(p.beta1 * moment + p.rest1 * g);
    let kept = 1.0 - step.lr * p.weight_decay;
    weights[i] = stored(kept * four(weights[i]) - step.lr * direction);
    m[i] = stored(p.beta2 * moment + p.rest2 * g);
}

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    compute(flat_workgroup(group, groups), local);
}
