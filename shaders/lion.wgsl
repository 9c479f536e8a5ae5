//!include fours grid step
// One step of Lion:
//   g = factor * grads
//   w = w * (1 - lr * weight_decay) - lr * sign(beta1 * m + rest1 * g), rest1 = 1 - beta1
//   m = beta2 * m + rest2 * g, rest2 = 1 - beta2
// Layouts: grads, weights and m have the same length.
// Invocation: one vec4. Gaps between parameters have zero gradients and do not change.
// Grid: ceil(len / 4) invocations.
// Twin: Lion in src/ops/optimizer.rs.
struct Params {
    vectors: u32,
    factor: f32,
    beta1: f32,
    rest1: f32,
    beta2: f32,
    rest2: f32,
    weight_decay: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> grads: array<Four>;
@group(0) @binding(2) var<storage, read_write> weights: array<Four>;
@group(0) @binding(3) var<storage, read_write> m: array<Four>;

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_invocation(group, groups, local, 64u);
    if i >= p.vectors {
        return;
    }
    let g = p.factor * four(grads[i]);
    let moment = four(m[i]);
    let direction = sign(p.beta1 * moment + p.rest1 * g);
    let kept = 1.0 - step.lr * p.weight_decay;
    weights[i] = stored(kept * four(weights[i]) - step.lr * direction);
    m[i] = stored(p.beta2 * moment + p.rest2 * g);
}
