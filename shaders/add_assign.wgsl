//!include grid fours map
// y += x, element by element.
// Layouts: x and y have the same length.
// Invocation: one vec4. Lanes past the end fall in the buffer's padding.
// Grid: ceil(len / 4) invocations.
// Twin: AddAssign in src/ops/elementwise/cpu.rs.
struct Params {
    vectors: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<Map4>;
@group(0) @binding(2) var<storage, read_write> y: array<Map4>;

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
    y[i] = to_map4(map4(y[i]) + map4(x[i]));
}
