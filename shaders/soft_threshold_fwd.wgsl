//!include grid fours map
// y = sign(x) * max(|x| - threshold[c], 0); x, y (N,H,W,C), threshold (C).
// One invocation: one vec4 of y; its lanes are channels (4i + k) mod C.
// Grid: ceil(len / 4) invocations. Twin: SoftThresholdFwd in src/reference/soft_threshold.rs.
struct Params {
    vectors: u32,
    channels: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<Map4>;
@group(0) @binding(2) var<storage, read> threshold: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> y: array<Map4>;

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
    y[i] = to_map4(sign(v) * max(abs(v) - t, vec4<f32>(0.0)));
}
