//!include fours grid
// y = scale * x * mask, element by element.
// One invocation: one vec4 (views start and end on 16 bytes; the lanes past the end are the buffer's own padding).
// Grid: ceil(len / 4) invocations. Twin: MaskApply in src/reference/mask.rs.
struct Params {
    vectors: u32,
    scale: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<Four>;
@group(0) @binding(2) var<storage, read> mask: array<Four>;
@group(0) @binding(3) var<storage, read_write> y: array<Four>;

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
    y[i] = stored(p.scale * four(x[i]) * four(mask[i]));
}
