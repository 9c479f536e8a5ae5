//!include map step gate fours nan activation grid
// y[i] = f(b[i % channels] + sum of partials[slice, i] over the slices, in index order): the second
//   stage of a convolution whose sum is split.
// GATED: y[i] = f'(from gate) * sum, where `gate` (as large as y) is the output of f. An L1 penalty
//   on that output adds to sum, as common/gate.wgsl describes.
// Layouts: partials (slices, 4*stride_vectors), b (channels), y and gate (4*vectors).
// Invocation: one vec4, with four loads in flight, since a load takes far longer than an addition.
// Grid: `vectors` invocations.
// Preconditions: `b` is read only if has_bias = 1, `gate` only with GATED; otherwise any buffer of
//   the type can be bound.
// Twin: Conv2dFwd and Conv2dBwdInput in src/ops/conv2d/cpu.rs.
struct Params {
    vectors: u32,
    slices: u32,
    stride_vectors: u32,
    channels: u32,
    has_bias: u32,
    parameter: f32,
    penalty: f32,
}

override ACTIVATION: u32 = 0u;
override GATED: bool = false;

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> partials: array<Four>;
@group(0) @binding(2) var<storage, read> b: array<f32>;
@group(0) @binding(3) var<storage, read> gate: array<Map4>;
@group(0) @binding(4) var<storage, read_write> y: array<Map4>;

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
    if p.has_bias != 0u {
        let c = (4u * i + vec4<u32>(0u, 1u, 2u, 3u)) % p.channels;
        sum = vec4<f32>(b[c.x], b[c.y], b[c.z], b[c.w]);
    }
    var slice = 0u;
    while slice + 3u < p.slices {
        let at = slice * p.stride_vectors + i;
        let first = four(partials[at]);
        let second = four(partials[at + p.stride_vectors]);
        let third = four(partials[at + 2u * p.stride_vectors]);
        let fourth = four(partials[at + 3u * p.stride_vectors]);
        sum = sum + first + second + third + fourth;
        slice += 4u;
    }
    while slice < p.slices {
        sum += four(partials[slice * p.stride_vectors + i]);
        slice++;
    }
    if GATED {
        y[i] = to_map4(gated4(ACTIVATION, p.parameter, sum, map4(gate[i])));
    } else {
        y[i] = to_map4(activate4(ACTIVATION, p.parameter, sum));
    }
}
