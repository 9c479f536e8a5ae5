//!include grid fours map
// mask = 1 where x >= threshold[0] and x > 0, else 0.
// Layouts: x and mask have the same length, threshold (1).
// Invocation: one vec4. Lanes past the end fall in the buffer's padding.
// Grid: ceil(len / 4) invocations.
// Twin: ThresholdMask in src/ops/mask/cpu.rs.
struct Params {
    vectors: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<Map4>;
@group(0) @binding(2) var<storage, read> threshold: array<f32>;
@group(0) @binding(3) var<storage, read_write> mask: array<Map4>;

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
    let v = map4(x[i]);
    let zero = vec4<f32>(0.0);
    mask[i] = to_map4(select(zero, vec4<f32>(1.0), (v >= vec4<f32>(threshold[0])) & (v > zero)));
}
