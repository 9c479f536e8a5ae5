//!include conv2d fours nan map step gate activation grid conv2d_fwd_sum
// y[n,p,q,k] = f(b[k] + sum over r,s,c of x[n, p*stride - pad + r*dilation, ..., c] * w[r,s,c,k]),
//   c over the group of k.
// GATED: y = f'(from gate) * sum, where `gate` (as large as y) is the output of f. An L1 penalty on
//   that output adds to sum, as common/gate.wgsl describes.
// Layouts: x (N,H,W,C), w (R,S,C/groups,K), b (K), y and gate (N,P,Q,K).
// Invocation: one element of y. This is the plain kernel, for any shape.
// Grid: N*P*Q*K invocations.
// Precondition: `b` is read only if has_bias = 1, `gate` only with GATED. Otherwise any buffer of
//   the type can be bound.
// Twin: Conv2dFwd in src/ops/conv2d/cpu.rs.

override GATED: bool = false;

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
    var sum = sum_at(pixel / (p.p * p.q), pixel / p.q % p.p, pixel % p.q, k);
    if GATED {
        let gradient = gated4(ACTIVATION, p.parameter, vec4<f32>(sum), vec4<f32>(gate_at(i)));
        y[i] = Map(gradient.x);
        return;
    }
    if p.has_bias != 0u {
        sum += b[k];
    }
    y[i] = Map(activate(ACTIVATION, p.parameter, sum));
}
