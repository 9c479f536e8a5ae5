//!include grid fours nan map step activation idle
// dz += scale * sparsity_scale * sign(z), with sign(0) = 0 and scale = lambda / n;
//   partials[workgroup] = sum of |z|.
// With ACTIVATION, z = f(x) and dz becomes the gradient with respect to x: it is multiplied by f',
//   computed from z. With REVIVE, `push` is then subtracted where idle[c] >= patience, as in
//   revive.wgsl.
// Layouts: z and dz (N,H,W,C), idle (C).
// Invocation: vec4s i, i + stride, ... The workgroup's sum goes to partials[workgroup], and
//   sum_partials adds those.
// Grid: at most 256 workgroups of 256.
// Precondition: without REVIVE `idle` is not read, and any f32 buffer can be bound.
// Twin: L1Penalty in src/ops/loss/cpu.rs.

// f: a code of common/activation.wgsl from 0 to 6, whose slope follows from the output.
override ACTIVATION: u32 = 0u;
override REVIVE: bool = false;

struct Params {
    len: u32,
    vectors: u32,
    stride: u32,
    scale: f32,
    parameter: f32,
    channels: u32,
    patience: f32,
    push: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> z: array<Map4>;
@group(0) @binding(2) var<storage, read_write> dz: array<Map4>;
@group(0) @binding(3) var<storage, read_write> partials: array<f32>;
@group(0) @binding(4) var<storage, read> idle: array<vec4<f32>>;

var<workgroup> sums: array<f32, 256>;

// `push` for those of four elements whose unit is dead, else 0. Gradient descent raises the
// pre-activations of dead units by it.
fn pushed(i: u32) -> vec4<f32> {
    return select(vec4<f32>(0.0), vec4<f32>(p.push), idle4(i) >= vec4<f32>(p.patience));
}

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let scale = p.scale * step.sparsity_scale;
    var sum = vec4<f32>(0.0);
    for (var i = flat_invocation(group, groups, local, 256u); i < p.vectors; i += p.stride) {
        let v = map4(z[i]);
        var gradient = (map4(dz[i]) + scale * sign(v))
            * activation_slope_output4(ACTIVATION, p.parameter, v);
        if REVIVE {
            gradient -= pushed(i);
        }
        dz[i] = to_map4(gradient);
        // Lanes past the end lie in the buffer's padding and must not count.
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
