//!include grid fours map
// partials[workgroup] = sum of |z|: the value of an L1 penalty.
// Layouts: z (len), partials (workgroups). sum_partials adds those.
// Invocation: vec4s i, i + stride, ...
// Grid: at most 256 workgroups of 256.
// Twin: L1Norm in src/ops/loss/cpu.rs.
struct Params {
    len: u32,
    vectors: u32,
    stride: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> z: array<Map4>;
@group(0) @binding(2) var<storage, read_write> partials: array<f32>;

var<workgroup> sums: array<f32, 256>;

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    var sum = vec4<f32>(0.0);
    for (var i = flat_invocation(group, groups, local, 256u); i < p.vectors; i += p.stride) {
        // Lanes past the end lie in the buffer's padding and must not count.
        let inside = vec4<u32>(4u * i) + vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(p.len);
        sum += select(vec4<f32>(0.0), abs(map4(z[i])), inside);
    }
    sums[local] = (sum.x + sum.y) + (sum.z + sum.w);
    workgroupBarrier();
    for (var half = 128u; half > 0u; half /= 2u) {
        if local < half {
            sums[local] += sums[local + half];
        }
        workgroupBarrier();
    }
    if local == 0u {
        partials[flat_workgroup(group, groups)] = sums[0];
    }
}
