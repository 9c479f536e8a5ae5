//!include grid
// idle[c] = idle[c] + 1 if unseen[c] = parts, else 0; then unseen[c] = 0.
// Updates the idle counters of a batch that was processed in `parts`. firing_update has counted in
//   unseen[c] the parts since unit c last fired, starting at 0, so it equals `parts` only if no
//   part saw the unit fire.
// Layouts: idle and unseen (C).
// Invocation: one vec4 of units. Lanes past the end fall in the buffers' padding.
// Grid: ceil(C / 4) invocations.
// Twin: IdleUpdate in src/ops/revive/cpu.rs.
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
