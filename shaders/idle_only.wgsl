//!include grid fours map idle
// y[i, .., c] = x[i, .., c] where idle[c] >= patience, else `fill`.
// Layouts: x and y (N,H,W,C), idle (C).
// Invocation: one vec4 of y, whose lanes k are channels (4i + k) mod C. Lanes past the end fall in
//   the buffer's padding.
// Grid: ceil(len / 4) invocations.
// Twin: IdleOnly in src/ops/revive/cpu.rs.
struct Params {
    vectors: u32,
    channels: u32,
    patience: f32,
    fill: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<Map4>;
@group(0) @binding(2) var<storage, read> idle: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> y: array<Map4>;

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
    y[i] = to_map4(select(vec4<f32>(p.fill), map4(x[i]), idle4(i) >= vec4<f32>(p.patience)));
}
