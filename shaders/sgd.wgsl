//!include fours grid step sums
// One step of stochastic gradient descent:
//   g = factor * y + weight_decay * w
//   m = momentum * m + g, or m = g at step 0 (only if momentum > 0; else m is not written)
//   w -= lr * d, d = g without momentum, g + momentum * m with nesterov = 1, else m
// y is the buffer of gradients. Those that are sums are computed here.
// Layouts: y, weights and m have the same length; the rest as in common/sums.wgsl. Gaps between
//   parameters have zero gradients and do not change.
// Grid: the workgroups of all sums, 256 invocations each. Preconditions: as in common/sums.wgsl.
// Twin: Sgd in src/ops/optimizer.rs.
struct Params {
    count: u32,
    factor: f32,
    momentum: f32,
    nesterov: u32,
    weight_decay: f32,
    pad0: u32,
    pad1: u32,
    pad2: u32,
    table: array<vec4<u32>, 96>,
}

@group(0) @binding(4) var<storage, read_write> weights: array<Four>;
@group(0) @binding(5) var<storage, read_write> m: array<Four>;

// The update by the gradient `sum` at vec4 i.
fn use_sum(i: u32, sum: vec4<f32>) {
    let w = four(weights[i]);
    let g = p.factor * sum + p.weight_decay * w;
    var direction = g;
    if p.momentum > 0.0 {
        var velocity = g;
        if step.step != 0u {
            velocity += p.momentum * four(m[i]);
        }
        m[i] = stored(velocity);
        direction = velocity;
        if p.nesterov == 1u {
            direction = g + p.momentum * velocity;
        }
    }
    weights[i] = stored(w - step.lr * direction);
}

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    compute(flat_workgroup(group, groups), local);
}
