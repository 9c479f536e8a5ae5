//!include grid
// dw -= (<dw, w> / |w|^2) w for every atom of w: removes the component of the gradient along the
//   atom.
// Layouts: w and dw (outer, atoms, inner).
// Workgroup: one atom. An invocation takes its elements local, local + 64, ...
// Grid: `atoms` workgroups of 64.
// Twin: ProjectGrad in src/ops/constraint/cpu.rs.
struct Params {
    outer: u32,
    atoms: u32,
    inner: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> w: array<f32>;
@group(0) @binding(2) var<storage, read_write> dw: array<f32>;

var<workgroup> sums: array<vec2<f32>, 64>;

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
    var sum = vec2<f32>(0.0);
    for (var e = local; e < count; e += 64u) {
        let at = position(atom, e);
        let v = w[at];
        sum += vec2<f32>(v * dw[at], v * v);
    }
    sums[local] = sum;
    workgroupBarrier();
    for (var half = 32u; half > 0u; half /= 2u) {
        if local < half {
            sums[local] += sums[local + half];
        }
        workgroupBarrier();
    }
    let total = sums[0];
    if total.y > 0.0 {
        let factor = total.x / total.y;
        for (var e = local; e < count; e += 64u) {
            let at = position(atom, e);
            dw[at] -= factor * w[at];
        }
    }
}
