//!include conv2d fours map grid
// dw[r,s,c,k] = sum over n,p,q of x[n, p*stride - pad + r*dilation, ..., c] * dy[n,p,q,k], split
//   into slices of the pixels (n,p,q).
// Layouts: x (N,H,W,C), dy (N,P,Q,K), out (slices, R,S,C/groups,K) with `slice_stride` elements
//   from slice to slice: partial sums that sum_partials adds, or dw itself if there is one slice.
// Invocation: one element of one slice. This is the plain kernel, for any shape.
// Grid: slices*R*S*(C/groups)*K invocations.
// Twin: Conv2dBwdWeight in src/ops/conv2d/cpu.rs.

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<Map>;
@group(0) @binding(2) var<storage, read> dy: array<Map>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_invocation(group, groups, local, 64u);
    let channels = p.c / p.groups;
    let len = p.r * p.s * channels * p.k;
    let slice = i / len;
    if slice >= p.slices {
        return;
    }
    let element = i % len;
    let k = element % p.k;
    let c = (element / p.k) % channels + k / (p.k / p.groups) * channels;
    let tap = element / (p.k * channels);
    // Above and left of the input the unsigned coordinates wrap to huge values, so that one
    // comparison covers both borders.
    let down = tap / p.s * p.dilation_h - p.pad_h;
    let along = tap % p.s * p.dilation_w - p.pad_w;

    var sum = 0.0;
    let end = min((slice + 1u) * p.slice_terms, p.n * p.p * p.q);
    for (var pixel = slice * p.slice_terms; pixel < end; pixel++) {
        let h = (pixel / p.q) % p.p * p.stride_h + down;
        let column = pixel % p.q * p.stride_w + along;
        if h < p.h && column < p.w {
            let source = ((pixel / (p.p * p.q) * p.h + h) * p.w + column) * p.c + c;
            sum += f32(x[source]) * f32(dy[pixel * p.k + k]);
        }
    }
    out[slice * p.slice_stride + element] = sum;
}
