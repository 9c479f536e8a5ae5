//!include grid fours map
// known = 0 where x is the mark of a missing value (the bits 0xff7fffff), else 1.
// Layouts: x and known have the same length.
// Invocation: one vec4. Views start and end on 16 bytes, so lanes past the end fall in the buffer's
//   padding.
// Grid: ceil(len / 4) invocations.
// Twin: KnownValues in src/ops/missing/cpu.rs.
struct Params {
    vectors: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<Map4>;
@group(0) @binding(2) var<storage, read_write> known: array<Map4>;

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
    let is_mark = bitcast<vec4<u32>>(map4(x[i])) == vec4<u32>(0xff7fffffu);
    known[i] = to_map4(select(vec4<f32>(1.0), vec4<f32>(0.0), is_mark));
}
