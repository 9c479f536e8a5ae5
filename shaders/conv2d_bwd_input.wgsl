//!include conv2d fours nan map step gate activation grid
// x[n,h,w,c] = f(b[c] + sum over r,s,k of y[n,p,q,k] * w[r,s,c,k]) over the (p,q) with p*stride -
//   pad + r*dilation = h, and the same for columns. k runs over the group of c. This is the
//   gradient of a convolution with respect to its input, and the forward pass of a transposed
//   convolution.
// GATED: x = f'(from gate) * sum, where `gate` (as large as x) is the output of f. An L1 penalty on
//   that output adds to sum, as common/gate.wgsl describes.
// Layouts: y (N,P,Q,K), w (R,S,C/groups,K), b (C), x and gate (N,H,W,C).
// Invocation: one element of x. This is the plain kernel, for any shape.
// Grid: N*H*W*C invocations.
// Precondition: `b` is read only if has_bias = 1, `gate` only with GATED. Otherwise any buffer of
//   the type can be bound.
// Twin: Conv2dBwdInput in src/ops/conv2d/cpu.rs.

override ACTIVATION: u32 = 0u;
override GATED: bool = false;

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> y: array<Map>;
@group(0) @binding(2) var<storage, read> w: array<f32>;
@group(0) @binding(3) var<storage, read> b: array<f32>;
@group(0) @binding(4) var<storage, read> gate: array<Map4>;
@group(0) @binding(5) var<storage, read_write> x: array<Map>;

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_invocation(group, groups, local, 64u);
    if i >= p.n * p.h * p.w * p.c {
        return;
    }
    let c = i % p.c;
    let pixel = i / p.c;
    let n = pixel / (p.h * p.w);
    let bottom = (pixel / p.w) % p.h + p.pad_h;
    let right = pixel % p.w + p.pad_w;
    let channels = p.c / p.groups;
    let filters = p.k / p.groups;
    let first = c / channels * filters;

    var sum = 0.0;
    for (var r = 0u; r < p.r; r++) {
        let down = r * p.dilation_h;
        if down > bottom || (bottom - down) % p.stride_h != 0u
            || (bottom - down) / p.stride_h >= p.p {
            continue;
        }
        let row = n * p.p + (bottom - down) / p.stride_h;
        for (var s = 0u; s < p.s; s++) {
            let along = s * p.dilation_w;
            if along > right || (right - along) % p.stride_w != 0u
                || (right - along) / p.stride_w >= p.q {
                continue;
            }
            let source = (row * p.q + (right - along) / p.stride_w) * p.k + first;
            let weight = ((r * p.s + s) * channels + c % channels) * p.k + first;
            for (var k = 0u; k < filters; k++) {
                sum += f32(y[source + k]) * w[weight + k];
            }
        }
    }
    if GATED {
        let gradient = gated4(ACTIVATION, p.parameter, vec4<f32>(sum), vec4<f32>(gate_at(i)));
        x[i] = Map(gradient.x);
        return;
    }
    if p.has_bias != 0u {
        sum += b[c];
    }
    x[i] = Map(activate(ACTIVATION, p.parameter, sum));
}
