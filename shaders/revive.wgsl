//!include grid fours map idle
// dx[i, .., c] -= push where idle[c] >= patience; push = strength / (N*H*W).
// Layouts: dx (N,H,W,C), idle (C).
// Invocation: one vec4 of dx, whose lanes k are channels (4i + k) mod C. If none of them is dead,
//   dx is not written.
// Grid: ceil(len / 4) invocations.
// Twin: Revive in src/ops/revive/cpu.rs.
struct Params {
    vectors: u32,
    channels: u32,
    patience: f32,
    push: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> idle: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> dx: array<Map4>;

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
    let dead = idle4(i) >= vec4<f32>(p.patience);
    if any(dead) {
        dx[i] = to_map4(map4(dx[i]) - select(vec4<f32>(0.0), vec4<f32>(p.push), dead));
    }
}
