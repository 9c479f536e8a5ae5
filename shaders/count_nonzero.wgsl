//!include grid fours map
// partials[workgroup] = number of elements of x other than 0 and -0. Subnormal values, which a
//   device might flush to 0, count as well.
// Layouts: x (len), partials (workgroups). sum_partials adds the partial counts.
// Invocation: vec4s i, i + stride, ...
// Grid: at most 256 workgroups of 256.
// Twin: CountNonzero in src/ops/reduce/cpu.rs.
struct Params {
    len: u32,
    vectors: u32,
    stride: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<Map4>;
@group(0) @binding(2) var<storage, read_write> partials: array<f32>;

var<workgroup> counts: array<u32, 256>;

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    var count = vec4<u32>(0u);
    for (var i = flat_invocation(group, groups, local, 256u); i < p.vectors; i += p.stride) {
        // Lanes past the end lie in the buffer's padding and must not count.
        let inside = vec4<u32>(4u * i) + vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(p.len);
        let nonzero = nonzero4(x[i]);
        count += select(vec4<u32>(0u), vec4<u32>(1u), inside & nonzero);
    }
    counts[local] = (count.x + count.y) + (count.z + count.w);
    workgroupBarrier();
    for (var half = 128u; half > 0u; half /= 2u) {
        if local < half {
            counts[local] += counts[local + half];
        }
        workgroupBarrier();
    }
    if local == 0u {
        partials[flat_workgroup(group, groups)] = f32(counts[0]);
    }
}
