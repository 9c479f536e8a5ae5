//!include grid fours nan map activation
// dx = dy * f'(x), element by element.
// Layouts: x, dy and dx have the same length.
// Invocation: one vec4. Lanes past the end fall in the buffer's padding.
// Grid: ceil(len / 4) invocations.
// Twin: ActivationBwd in src/ops/activation/cpu.rs.

// The function f: a code of common/activation.wgsl.
override ACTIVATION: u32 = 0u;

struct Params {
    vectors: u32,
    parameter: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<Map4>;
@group(0) @binding(2) var<storage, read> dy: array<Map4>;
@group(0) @binding(3) var<storage, read_write> dx: array<Map4>;

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
    dx[i] = to_map4(map4(dy[i]) * activation_slope4(ACTIVATION, p.parameter, map4(x[i])));
}
