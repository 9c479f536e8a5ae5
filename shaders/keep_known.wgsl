//!include grid fours map
// goal = target where known is not 0, else y.
// Layouts: known, target, y and goal have the same length.
// Invocation: one vec4. Views start and end on 16 bytes, so lanes past the end fall in the buffer's
//   padding.
// Grid: ceil(len / 4) invocations.
// Twin: KeepKnown in src/ops/missing/cpu.rs.
struct Params {
    vectors: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> known: array<Map4>;
@group(0) @binding(2) var<storage, read> wanted: array<Map4>;
@group(0) @binding(3) var<storage, read> y: array<Map4>;
@group(0) @binding(4) var<storage, read_write> goal: array<Map4>;

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
    goal[i] = to_map4(select(map4(y[i]), map4(wanted[i]), nonzero4(known[i])));
}
