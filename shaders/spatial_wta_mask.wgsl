//!include grid fours map key
// mask[n,h,w,c] = 1 for the largest x of each map (n, c), else 0. Ties go to the lowest h * W + w.
// Layouts: x and mask (N,H,W,C).
// Invocation: one map, channels fastest.
// Grid: N * C invocations.
// Twin: SpatialWtaMask in src/ops/mask/cpu.rs.
struct Params {
    maps: u32,
    c: u32,
    area: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<Map>;
@group(0) @binding(2) var<storage, read_write> mask: array<Map>;

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_invocation(group, groups, local, 64u);
    if i >= p.maps {
        return;
    }
    let first = i / p.c * p.area * p.c + i % p.c;
    var best = key_of(f32(x[first]));
    var winner = 0u;
    for (var hw = 1u; hw < p.area; hw++) {
        let key = key_of(f32(x[first + hw * p.c]));
        if key > best {
            best = key;
            winner = hw;
        }
    }
    for (var hw = 0u; hw < p.area; hw++) {
        mask[first + hw * p.c] = Map(select(0.0, 1.0, hw == winner));
    }
}
