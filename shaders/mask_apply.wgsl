//!include grid fours nan map activation step gate
// y = scale * x * mask, element by element.
// GATED: y = f'(from gate) * scale * x * mask, where `gate` (as large as y) is the output of f. An
//   L1 penalty on that output adds to the product, as common/gate.wgsl describes.
// Layouts: x, mask and y have the same length.
// Invocation: one vec4. Views start and end on 16 bytes, so lanes past the end fall in the buffer's
//   padding.
// Grid: ceil(len / 4) invocations.
// Precondition: `gate` is read only with GATED; otherwise any buffer of the type can be bound.
// Twin: MaskApply in src/ops/mask/cpu.rs.
struct Params {
    vectors: u32,
    scale: f32,
    parameter: f32,
    penalty: f32,
}

override ACTIVATION: u32 = 0u;
override GATED: bool = false;

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<Map4>;
@group(0) @binding(2) var<storage, read> mask: array<Map4>;
@group(0) @binding(3) var<storage, read> gate: array<Map4>;
@group(0) @binding(4) var<storage, read_write> y: array<Map4>;

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
    let product = p.scale * map4(x[i]) * map4(mask[i]);
    if GATED {
        y[i] = to_map4(gated4(ACTIVATION, p.parameter, product, map4(gate[i])));
    } else {
        y[i] = to_map4(product);
    }
}
