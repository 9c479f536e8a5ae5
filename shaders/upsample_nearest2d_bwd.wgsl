//!include grid fours map lane lanes
// dx[n,h,w,c] = sum of dy over the block of scale_h by scale_w pixels.
// Layouts: dx (N,H,W,C), dy (N, H * scale_h, W * scale_w, C). p.h and p.w are the sides of dx.
// Invocation: four consecutive elements of dx. With VEC they are four channels of one pixel.
//   Without VEC each is computed on its own, with the same value in every lane. Elements past the
//   end fall in the buffer's padding.
// Grid: ceil(len / 4) invocations, len the number of elements of dx.
// Twin: UpsampleNearest2dBwd in src/ops/unpool2d/cpu.rs.

struct Params {
    vectors: u32,
    c: u32,
    h: u32,
    w: u32,
    scale_h: u32,
    scale_w: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> dy: array<Map4>;
@group(0) @binding(2) var<storage, read_write> dx: array<Map4>;

fn fetch_dy(i: u32) -> vec4<f32> {
    return lanes(map4(dy[i / 4u]), i);
}

fn gather(i: u32) -> vec4<f32> {
    let c = i % p.c;
    let pixel = i / p.c;
    let left = pixel % p.w * p.scale_w;
    // pixel / W = n * H + h, so this is the first row of the block counted over all samples.
    let top = pixel / p.w * p.scale_h;
    var sum = vec4<f32>(0.0);
    for (var r = 0u; r < p.scale_h; r++) {
        for (var s = 0u; s < p.scale_w; s++) {
            sum += fetch_dy(((top + r) * (p.w * p.scale_w) + left + s) * p.c + c);
        }
    }
    return sum;
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
        dx[i] = to_map4(gather(i * 4u));
    } else {
        var result: vec4<f32>;
        for (var lane = 0u; lane < 4u; lane++) {
            result = select(result, gather(i * 4u + lane), is_lane(lane));
        }
        dx[i] = to_map4(result);
    }
}
