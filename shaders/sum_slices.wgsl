//!include fours grid
// y[i] = sum of partials[slice, i] over the slices, in index order. This is the second stage of
//   Conv2dBwdWeight and ChannelSum.
// Layouts: partials (slices, 4*vectors), y (4*vectors).
// Invocation: one vec4. Lanes past `len` become 0: they lie between the ranges of the gradient
//   buffer, whose norm is taken over the whole buffer.
// Grid: `vectors` invocations.
// Twin: the sums in src/ops/conv2d/cpu.rs and src/ops/reduce/cpu.rs.
struct Params {
    vectors: u32,
    slices: u32,
    len: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> partials: array<Four>;
@group(0) @binding(2) var<storage, read_write> y: array<Four>;

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
    var sum = vec4<f32>(0.0);
    for (var slice = 0u; slice < p.slices; slice++) {
        sum += four(partials[slice * p.vectors + i]);
    }
    let lane = 4u * i + vec4<u32>(0u, 1u, 2u, 3u);
    y[i] = stored(select(vec4<f32>(0.0), sum, lane < vec4<u32>(p.len)));
}
