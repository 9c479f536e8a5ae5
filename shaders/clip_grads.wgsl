//!include fours grid step
// grads *= min(1, max_norm / (norm + 1e-6)), norm = scalars[slot * width + index].
// The 1e-6 is PyTorch's (clip_grad_norm_).
// Layouts: grads (len), scalars (slots, width).
// Invocation: one vec4. If the norm is small enough, nothing is written.
// Grid: ceil(len / 4) invocations.
// Twin: ClipGrads in src/ops/optimizer.rs.
struct Params {
    vectors: u32,
    max_norm: f32,
    width: u32,
    index: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> scalars: array<f32>;
@group(0) @binding(2) var<storage, read_write> grads: array<Four>;

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
    let factor = p.max_norm / (scalars[step.slot * p.width + p.index] + 1e-6);
    if factor >= 1.0 {
        return;
    }
    grads[i] = stored(factor * four(grads[i]));
}
