//!include fours grid
// y[i] = sum of partials[slice, i] over the slices. This is the second stage of Conv2dBwdWeight and
//   ChannelSum.
// Layouts: partials (slices, 4*vectors), y (4*vectors).
// Workgroup: 256 / LANES vec4s. The LANES invocations of a vec4 take its slices in turn, and a
//   tree adds their sums. An invocation has eight loads in flight, since a load takes far longer
//   than an addition.
// Lanes of a vec4 past `len` become 0: they lie between the ranges of the gradient buffer, whose
//   norm is taken over the whole buffer.
// Grid: ceil(vectors * LANES / 256) workgroups.
// Precondition: LANES is a power of two, at most 64.
// Twin: the sums in src/ops/conv2d/cpu.rs and src/ops/reduce/cpu.rs.
struct Params {
    vectors: u32,
    slices: u32,
    len: u32,
}

override LANES: u32 = 1u;

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> partials: array<Four>;
@group(0) @binding(2) var<storage, read_write> y: array<Four>;

var<workgroup> sums: array<vec4<f32>, 256>;

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let width = 256u / LANES;
    let i = flat_workgroup(group, groups) * width + local % width;
    let stride = p.vectors * LANES;
    let end = select(0u, p.vectors * p.slices, i < p.vectors);
    var at = local / width * p.vectors + i;
    var sum = vec4<f32>(0.0);
    while at + 7u * stride < end {
        let a = four(partials[at]);
        let b = four(partials[at + stride]);
        let c = four(partials[at + 2u * stride]);
        let d = four(partials[at + 3u * stride]);
        let e = four(partials[at + 4u * stride]);
        let f = four(partials[at + 5u * stride]);
        let g = four(partials[at + 6u * stride]);
        let h = four(partials[at + 7u * stride]);
        sum += ((a + b) + (c + d)) + ((e + f) + (g + h));
        at += 8u * stride;
    }
    while at < end {
        sum += four(partials[at]);
        at += stride;
    }
    if LANES > 1u {
        sums[local] = sum;
        workgroupBarrier();
        for (var half = 128u; half >= width; half /= 2u) {
            if local < half {
                sums[local] += sums[local + half];
            }
            workgroupBarrier();
        }
        sum = sums[local];
    }
    if local < width && i < p.vectors {
        let lane = 4u * i + vec4<u32>(0u, 1u, 2u, 3u);
        y[i] = stored(select(vec4<f32>(0.0), sum, lane < vec4<u32>(p.len)));
    }
}
