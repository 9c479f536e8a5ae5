//!include grid fours map lane lanes
// y[n,h,w,c] = x[n, h / scale_h, w / scale_w, c].
// Layouts: x (N,H,W,C), y (N, H * scale_h, W * scale_w, C). p.h and p.w are the sides of x.
// Invocation: four consecutive elements of y. With VEC they are four channels of one pixel. Without
//   VEC each is computed on its own, with the same value in every lane. Elements past the end fall
//   in the buffer's padding.
// Grid: ceil(len / 4) invocations, len the number of elements of y.
// Twin: UpsampleNearest2dFwd in src/ops/unpool2d/cpu.rs.

struct Params {
    vectors: u32,
    c: u32,
    h: u32,
    w: u32,
    scale_h: u32,
    scale_w: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<Map4>;
@group(0) @binding(2) var<storage, read_write> y: array<Map4>;

fn fetch_x(i: u32) -> vec4<f32> {
    return lanes(map4(x[i / 4u]), i);
}

fn copy(i: u32) -> vec4<f32> {
    let c = i % p.c;
    let pixel = i / p.c;
    let width = p.w * p.scale_w;
    let w = pixel % width / p.scale_w;
    // n * H + h: samples need no separate index, as H * scale_h is a multiple of scale_h.
    let row = pixel / width / p.scale_h;
    return fetch_x((row * p.w + w) * p.c + c);
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
    if VEC {
        y[i] = to_map4(copy(i * 4u));
    } else {
        var result: vec4<f32>;
        for (var lane = 0u; lane < 4u; lane++) {
            result = select(result, copy(i * 4u + lane), is_lane(lane));
        }
        y[i] = to_map4(result);
    }
}
