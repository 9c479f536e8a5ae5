//!include grid fours map lane
// dx[n,p,q,c] = dy[n, switches[n,p,q,c], c].
// Layouts: dx and switches (N,P,Q,C), dy (N,H,W,C).
// Invocation: four consecutive elements of dx. Elements past the end fall in the buffer's padding.
// Grid: ceil(len / 4) invocations, len the number of elements of dx.
// Twin: MaxUnpool2dBwd in src/ops/unpool2d/cpu.rs.
struct Params {
    vectors: u32,
    c: u32,
    x_area: u32,
    y_area: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> dy: array<Map>;
@group(0) @binding(2) var<storage, read> switches: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read_write> dx: array<Map4>;

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_invocation(group, groups, local, 64u);
    if i >= p.vectors {
        return;
    }
    let at = switches[i];
    let sample = p.c * p.x_area;
    var result: vec4<f32>;
    for (var lane = 0u; lane < 4u; lane++) {
        let element = i * 4u + lane;
        let value = f32(dy[(element / sample * p.y_area + at[lane]) * p.c + element % p.c]);
        result = select(result, vec4<f32>(value), is_lane(lane));
    }
    dx[i] = to_map4(result);
}
