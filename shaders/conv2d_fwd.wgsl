//!include conv2d fours map gate activation grid
// y[n,p,q,k] = f(b[k] + sum over r,s,c of x[n, p*stride - pad + r*dilation, ..., c] * w[r,s,c,k]), c over the group of k.
// x (N,H,W,C), w (R,S,C/groups,K), b (K), y (N,P,Q,K). The plain kernel: any shape.
// One invocation: one element of y. Grid: N*P*Q*K invocations.
// GATED: y = f'(from gate) * sum, `gate` being the output of f, as large as y.
// Without bias (`has_bias` = 0) any reals may be bound as `b`, without GATED any map as `gate`. Twin: Conv2dFwd in src/reference/conv2d.rs.

override ACTIVATION: u32 = 0u;
override GATED: bool = false;

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<Map>;
@group(0) @binding(2) var<storage, read> w: array<f32>;
@group(0) @binding(3) var<storage, read> b: array<f32>;
@group(0) @binding(4) var<storage, read> gate: array<Map4>;
@group(0) @binding(5) var<storage, read_write> y: array<Map>;

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_invocation(group, groups, local, 64u);
    if i >= p.n * p.p * p.q * p.k {
        return;
    }
    let k = i % p.k;
    let pixel = i / p.k;
    let n = pixel / (p.p * p.q);
    let top = (pixel / p.q) % p.p * p.stride_h;
    let left = pixel % p.q * p.stride_w;
    let channels = p.c / p.groups;
    let first = k / (p.k / p.groups) * channels;

    var sum = 0.0;
    for (var r = 0u; r < p.r; r++) {
        // Rows above the input wrap around to huge numbers, so that one comparison covers both borders.
        let h = top + r * p.dilation_h - p.pad_h;
        if h >= p.h {
            continue;
        }
        for (var s = 0u; s < p.s; s++) {
            let column = left + s * p.dilation_w - p.pad_w;
            if column >= p.w {
                continue;
            }
            let source = ((n * p.h + h) * p.w + column) * p.c + first;
            let weight = (r * p.s + s) * channels * p.k + k;
            for (var c = 0u; c < channels; c++) {
                sum += f32(x[source + c]) * w[weight + c * p.k];
            }
        }
    }
    if GATED {
        y[i] = Map(sum * activation_slope_output(ACTIVATION, p.parameter, gate_at(i)));
        return;
    }
    if p.has_bias != 0u {
        sum += b[k];
    }
    y[i] = Map(activate(ACTIVATION, p.parameter, sum));
}
