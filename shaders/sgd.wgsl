//!include fours grid step
// One step of stochastic gradient descent:
//   g = factor * grads + weight_decay * w
//   m = momentum * m + g, or m = g at step 0 (only if momentum > 0; else m is not written)
//   w -= lr * d, d = g without momentum, g + momentum * m with nesterov = 1, else m
// Layouts: grads, weights and m have the same length.
// Invocation: one vec4. Gaps between parameters have zero gradients and do not change.
// Grid: ceil(len / 4) invocations.
// Twin: Sgd in src/ops/optimizer.rs.
struct Params {
    vectors: u32,
    factor: f32,
    momentum: f32,
    nesterov: u32,
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
    let w = four(weights[i]);
    let g = p.factor * four(grads[i]) + p.weight_decay * w;
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
