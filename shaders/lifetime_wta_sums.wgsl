//!include grid fours map
// sums[n,c] = sum of x over the map (n, c), pixels in ascending order.
// Layouts: x (N,H,W,C), sums (N,C).
// Invocation: one map, channels fastest.
// Grid: N * C invocations.
// Twin: LifetimeWtaMask in src/ops/mask/cpu.rs.
struct Params {
    maps: u32,
    c: u32,
    area: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<Map>;
@group(0) @binding(2) var<storage, read_write> sums: array<f32>;

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
    var sum = 0.0;
    for (var hw = 0u; hw < p.area; hw++) {
        sum += f32(x[first + hw * p.c]);
    }
    sums[i] = sum;
}
