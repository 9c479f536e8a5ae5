//!include conv2d map fours nan activation grid largest conv2d_fwd_sum
// y[n,i,j,k] = max over p in (2i, 2i+1), q in (2j, 2j+1) of f(b[k] + sum over r,s,c of x[n,
//   p*stride - pad + r*dilation, ..., c] * w[r,s,c,k]), without groups. switches[n,i,j,k] = p * Q +
//   q of the maximum.
// Layouts: x (N,H,W,C), w (R,S,C,K), b (K), y and switches (N,P/2,Q/2,K).
// Invocation: one element of y. This is the plain kernel.
// Grid: one invocation for each element of y.
// Preconditions: K is a multiple of 4. `b` is read only if has_bias = 1; otherwise any f32 buffer
//   can be bound.
// Twin: Conv2dMaxPoolFwd in src/ops/conv2d/cpu.rs.

@group(0) @binding(4) var<storage, read_write> y: array<Map>;
@group(0) @binding(5) var<storage, read_write> switches: array<u32>;

fn value_at(n: u32, row: u32, column: u32, k: u32) -> vec4<f32> {
    var sum = sum_at(n, row, column, k);
    if p.has_bias != 0u {
        sum += b[k];
    }
    return vec4<f32>(activate(ACTIVATION, p.parameter, sum));
}

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_invocation(group, groups, local, 64u);
    let rows = p.p / 2u;
    let columns = p.q / 2u;
    if i >= p.n * rows * columns * p.k {
        return;
    }
    let k = i % p.k;
    let window = i / p.k;
    let n = window / (rows * columns);
    let row = window / columns % rows * 2u;
    let column = window % columns * 2u;
    let at = row * p.q + column;
    var largest = Largest(value_at(n, row, column, k), vec4<u32>(at));
    largest = larger(largest, value_at(n, row, column + 1u, k), at + 1u);
    largest = larger(largest, value_at(n, row + 1u, column, k), at + p.q);
    largest = larger(largest, value_at(n, row + 1u, column + 1u, k), at + p.q + 1u);
    y[i] = Map(largest.value.x);
    switches[i] = largest.at.x;
}
