//!include grid step
// dz += scale * sparsity_scale * sign(z), with sign(0) = 0 and scale = lambda / n, and partial sums of |z|.
// One invocation: vec4s i, i + stride, ...; its workgroup's sum goes to partials[workgroup], and sum_scalar adds those.
// Grid: at most 256 workgroups of 256. Twin: L1Penalty in src/reference/loss.rs.
struct Params {
    len: u32,
    vectors: u32,
    stride: u32,
    scale: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> z: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> dz: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> partials: array<f32>;
@group(0) @binding(4) var<uniform> step: Step;

var<workgroup> sums: array<f32, 256>;

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let scale = p.scale * step.sparsity_scale;
    var sum = vec4<f32>(0.0);
    for (var i = flat_invocation(group, groups, local, 256u); i < p.vectors; i += p.stride) {
        let v = z[i];
        dz[i] += scale * sign(v);
        // The lanes past the end are the buffer's padding.
        let inside = vec4<u32>(4u * i) + vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(p.len);
        sum += select(vec4<f32>(0.0), abs(v), inside);
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
