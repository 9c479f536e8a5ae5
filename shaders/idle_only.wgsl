//!include grid fours map
// y[i, .., c] = x[i, .., c] where idle[c] >= patience, elsewhere `fill`; x, y (N,H,W,C), idle (C).
// One invocation: one vec4 of y; its lanes are channels (4i + k) mod C. Those past the end are the buffer's padding.
// Grid: ceil(len / 4) invocations. Twin: IdleOnly in src/reference/revive.rs.
struct Params {
    vectors: u32,
    channels: u32,
    patience: f32,
    fill: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<Map4>;
@group(0) @binding(2) var<storage, read> idle: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> y: array<Map4>;

fn idle_of(element: u32) -> f32 {
    let c = element % p.channels;
    return idle[c / 4u][c % 4u];
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
    var age: vec4<f32>;
    if p.channels % 4u == 0u {
        age = idle[i % (p.channels / 4u)];
    } else {
        age = vec4<f32>(idle_of(4u * i), idle_of(4u * i + 1u), idle_of(4u * i + 2u), idle_of(4u * i + 3u));
    }
    y[i] = to_map4(select(vec4<f32>(p.fill), map4(x[i]), age >= vec4<f32>(p.patience)));
}
