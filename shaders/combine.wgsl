//!include grid fours map
// y = alpha * a + beta * b, element by element; y = alpha * a if has_b = 0.
// Layouts: a, b and y have the same length.
// Invocation: one vec4. Lanes past the end fall in the buffer's padding.
// Grid: ceil(len / 4) invocations.
// Precondition: with has_b = 0 `b` is not read, and any buffer of the type can be bound.
// Twin: Combine in src/ops/elementwise/cpu.rs.
struct Params {
    vectors: u32,
    has_b: u32,
    alpha: f32,
    beta: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> a: array<Map4>;
@group(0) @binding(2) var<storage, read> b: array<Map4>;
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
    var sum = p.alpha * map4(a[i]);
    if p.has_b != 0u {
        sum += p.beta * map4(b[i]);
    }
    y[i] = to_map4(sum);
}
