//!include grid fours nan map log activation
// dy = dloss/dy, and partial sums of the element-wise loss between y and its target t, in one pass.
//   scale = 1 / divisor:
//   KIND  loss                                          dy
//   0, 1  (y - t)^2                                     scale * 2 (y - t)
//   2     |y - t|                                       scale * sign(y - t)
//   3     -t ln y - (1 - t) ln(1 - y), logs >= -100     scale * (y - t) / max(y (1 - y), 1e-12)
//   4     r = sqrt((y - t)^2 + eps^2)                   scale * (y - t) / r
// The constants -100 and 1e-12 of KIND 3 are PyTorch's.
// With ACTIVATION, y = f(x) and dy becomes the gradient with respect to x: it is multiplied by f',
//   computed from y.
// Layouts: y, t and dy have the same length.
// Invocation: vec4s i, i + stride, ... The workgroup's unscaled sum goes to partials[workgroup],
//   and sum_partials adds those.
// Grid: at most 256 workgroups of 256.
// Twin: Loss in src/ops/loss/cpu.rs.

override KIND: u32 = 0u;
// f: a code of common/activation.wgsl from 0 to 6, whose slope follows from the output.
override ACTIVATION: u32 = 0u;

struct Params {
    len: u32,
    vectors: u32,
    stride: u32,
    scale: f32,
    eps_squared: f32,
    parameter: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> y: array<Map4>;
@group(0) @binding(2) var<storage, read> t: array<Map4>;
@group(0) @binding(3) var<storage, read_write> dy: array<Map4>;
@group(0) @binding(4) var<storage, read_write> partials: array<f32>;

var<workgroup> sums: array<f32, 256>;

// (loss, gradient / scale) of KIND 3 for one element.
fn cross_entropy(y: f32, t: f32) -> vec2<f32> {
    let log_y = max(log_accurate(y), -100.0);
    let log_rest = max(log_ratio(1.0 - y, 1.0, -y), -100.0);
    return vec2<f32>(-t * log_y - (1.0 - t) * log_rest, (y - t) / max(y * (1.0 - y), 1e-12));
}

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    var sum = vec4<f32>(0.0);
    for (var i = flat_invocation(group, groups, local, 256u); i < p.vectors; i += p.stride) {
        let a = map4(y[i]);
        let b = map4(t[i]);
        let d = a - b;
        var loss: vec4<f32>;
        var gradient: vec4<f32>;
        if KIND <= 1u {
            loss = d * d;
            gradient = 2.0 * d;
        } else if KIND == 2u {
            loss = abs(d);
            gradient = sign(d);
        } else if KIND == 3u {
            let e0 = cross_entropy(a.x, b.x);
            let e1 = cross_entropy(a.y, b.y);
            let e2 = cross_entropy(a.z, b.z);
            let e3 = cross_entropy(a.w, b.w);
            loss = vec4<f32>(e0.x, e1.x, e2.x, e3.x);
            gradient = vec4<f32>(e0.y, e1.y, e2.y, e3.y);
        } else {
            loss = sqrt(d * d + p.eps_squared);
            // The root is 0 only if d is 0 or d * d underflows.
            gradient = select(d / loss, sign(d), loss == vec4<f32>(0.0));
        }
        gradient *= activation_slope_output4(ACTIVATION, p.parameter, a);
        // Lanes past the end lie in the buffer's padding and must not count.
        let inside = vec4<u32>(4u * i) + vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(p.len);
        dy[i] = to_map4(select(vec4<f32>(0.0), p.scale * gradient, inside));
        sum += select(vec4<f32>(0.0), loss, inside);
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
