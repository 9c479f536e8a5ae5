//!include grid
// w[o,a,i] *= min(1, max_norm / |w[.,a,.]|): projects every atom into the ball of radius max_norm.
//   With exact = 1 every atom other than 0 gets exactly that norm.
// Layouts: w (outer, atoms, inner).
// Workgroup: one atom. An invocation takes its elements local, local + 64, ...
// Grid: `atoms` workgroups of 64.
// Twin: MaxNorm in src/ops/constraint/cpu.rs.
struct Params {
    outer: u32,
    atoms: u32,
    inner: u32,
    max_norm: f32,
    exact: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> w: array<f32>;

var<workgroup> sums: array<f32, 64>;

// Index in w of element e of an atom.
fn position(atom: u32, e: u32) -> u32 {
    return ((e / p.inner) * p.atoms + atom) * p.inner + e % p.inner;
}

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let atom = flat_workgroup(group, groups);
    // A folded grid may hold workgroups past the last atom. They process no elements, but must
    // reach the barriers.
    let count = select(0u, p.outer * p.inner, atom < p.atoms);
    var sum = 0.0;
    for (var e = local; e < count; e += 64u) {
        let v = w[position(atom, e)];
        sum += v * v;
    }
    sums[local] = sum;
    workgroupBarrier();
    for (var half = 32u; half > 0u; half /= 2u) {
        if local < half {
            sums[local] += sums[local + half];
        }
        workgroupBarrier();
    }
    let norm = sqrt(sums[0]);
    if norm > p.max_norm || (p.exact == 1u && norm > 0.0) {
        let factor = p.max_norm / norm;
        for (var e = local; e < count; e += 64u) {
            w[position(atom, e)] *= factor;
        }
    }
}
