//!include grid
// A whole batch's idle counters from those of its parts: idle[c] = idle[c] + 1 if unseen[c] = parts
// (no part saw unit c fire; unseen is what firing_update makes of 0 over the parts), else 0; then
// unseen[c] = 0.
// One invocation: one vec4 of units (the lanes past the end are the buffers' own padding).
// Grid: ceil(C / 4) invocations. Twin: IdleUpdate in src/reference/revive.rs.
struct Params {
    vectors: u32,
    parts: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> unseen: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> idle: array<vec4<f32>>;

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
    idle[i] = select(vec4<f32>(0.0), idle[i] + 1.0, unseen[i] == vec4<f32>(p.parts));
    unseen[i] = vec4<f32>(0.0);
}
