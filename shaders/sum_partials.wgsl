//!include fours grid step sums
// Adds partial sums: the second stage of every reduction whose result is not used at once.
// Layouts and preconditions: as in common/sums.wgsl.
// Grid: the workgroups of all sums, 256 invocations each.
// Twin: the sums in src/ops/conv2d/cpu.rs, src/ops/loss/cpu.rs and src/ops/reduce/cpu.rs.
struct Params {
    count: u32,
    pad0: u32,
    pad1: u32,
    pad2: u32,
    table: array<vec4<u32>, 96>,
}

fn use_sum(i: u32, sum: vec4<f32>) {}

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    compute(flat_workgroup(group, groups), local);
}
