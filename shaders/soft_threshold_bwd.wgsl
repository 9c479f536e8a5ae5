//!include grid fours map
// dx = dy and dt = -sign(x) * dy where |x| > threshold[c], else 0; x, dy, dx, dt (N,H,W,C), threshold (C).
// One invocation: one vec4 of dx and of dt; its lanes are channels (4i + k) mod C.
// Grid: ceil(len / 4) invocations. Twin: SoftThresholdBwd in src/reference/soft_threshold.rs.
struct Params {
    vectors: u32,
    channels: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<Map4>;
@group(0) @binding(2) var<storage, read> threshold: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> dy: array<Map4>;
@group(0) @binding(4) var<storage, read_write> dx: array<Map4>;
@group(0) @binding(5) var<storage, read_write> dt: array<Map4>;

fn threshold_of(element: u32) -> f32 {
    let c = element % p.channels;
    return threshold[c / 4u][c % 4u];
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
    var t: vec4<f32>;
    if p.channels % 4u == 0u {
        t = threshold[i % (p.channels / 4u)];
    } else {
        t = vec4<f32>(threshold_of(4u * i), threshold_of(4u * i + 1u), threshold_of(4u * i + 2u), threshold_of(4u * i + 3u));
    }
    let v = map4(x[i]);
    let passed = select(vec4<f32>(0.0), map4(dy[i]), abs(v) > t);
    dx[i] = to_map4(passed);
    dt[i] = to_map4(-sign(v) * passed);
}
