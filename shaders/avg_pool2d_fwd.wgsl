//!include grid fours map lane pool2d lanes
// y[n,p,q,c] = sum of x over the window / divisor.
// The divisor is R * S with COUNT_INCLUDE_PAD, else the number of the window's pixels inside the
//   input.
// Layouts: x (N,H,W,C), y (N,P,Q,C).
// Invocation: four consecutive elements of y. With VEC they are four channels of one pixel. Without
//   VEC each is computed on its own, with the same value in every lane. Elements past the end fall
//   in the buffer's padding.
// Grid: ceil(len / 4) invocations, len the number of elements of y.
// Twin: AvgPool2dFwd in src/ops/pool2d/cpu.rs.

override COUNT_INCLUDE_PAD: bool = false;

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<Map4>;
@group(0) @binding(2) var<storage, read_write> y: array<Map4>;

fn fetch_x(i: u32) -> vec4<f32> {
    return lanes(map4(x[i / 4u]), i);
}

fn pool(i: u32) -> vec4<f32> {
    let c = i % p.c;
    let q = i / p.c % p.q;
    let row = i / p.c / p.q;
    let n = row / p.p;
    // The window without its padding. It is never empty: padding is at most half of the kernel.
    let top = row % p.p * p.stride_h;
    let left = q * p.stride_w;
    let h0 = max(top, p.pad_h) - p.pad_h;
    let w0 = max(left, p.pad_w) - p.pad_w;
    let h1 = min(top + p.r - p.pad_h, p.h);
    let w1 = min(left + p.s - p.pad_w, p.w);
    var sum = vec4<f32>(0.0);
    for (var h = h0; h < h1; h++) {
        for (var w = w0; w < w1; w++) {
            sum += fetch_x(((n * p.h + h) * p.w + w) * p.c + c);
        }
    }
    // R * S is exact: output sizes are rounded down, so no window extends beyond the padding.
    let divisor = select((h1 - h0) * (w1 - w0), p.r * p.s, COUNT_INCLUDE_PAD);
    return sum / f32(divisor);
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
        y[i] = to_map4(pool(i * 4u));
    } else {
        var result: vec4<f32>;
        for (var lane = 0u; lane < 4u; lane++) {
            result = select(result, pool(i * 4u + lane), is_lane(lane));
        }
        y[i] = to_map4(result);
    }
}
