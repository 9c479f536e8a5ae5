//!include grid fours map
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

// dy at a switch of the sample and channel of an element of dx.
fn fetch_dy(element: u32, at: u32) -> f32 {
    let sample = element / (p.c * p.x_area);
    return f32(dy[(sample * p.y_area + at) * p.c + element % p.c]);
}

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
    let element = i * 4u;
    dx[i] = to_map4(vec4<f32>(
        fetch_dy(element, at.x),
        fetch_dy(element + 1u, at.y),
        fetch_dy(element + 2u, at.z),
        fetch_dy(element + 3u, at.w),
    ));
}
