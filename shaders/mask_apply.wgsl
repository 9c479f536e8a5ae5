//!include grid fours map
// y = scale * x * mask, element by element.
// Layouts: x, mask and y have the same length.
// Invocation: one vec4. Views start and end on 16 bytes, so lanes past the end fall in the buffer's
//   padding.
// Grid: ceil(len / 4) invocations.
// Twin: MaskApply in src/ops/mask/cpu.rs.
struct Params {
    vectors: u32,
    scale: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<Map4>;
@group(0) @binding(2) var<storage, read> mask: array<Map4>;
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
    y[i] = to_map4(p.scale * map4(x[i]) * map4(mask[i]));
}
