//!include grid fours map lane pool2d lanes
// dx[n,h,w,c] = sum of dy / divisor over the windows that contain (h, w).
// The divisor is R * S with COUNT_INCLUDE_PAD, else the number of the window's pixels inside the
//   input.
// Layouts: dx (N,H,W,C), dy (N,P,Q,C).
// Invocation: four consecutive elements of dx. With VEC they are four channels of one pixel.
//   Without VEC each is computed on its own, with the same value in every lane. Elements past the
//   end fall in the buffer's padding.
// Grid: ceil(len / 4) invocations, len the number of elements of dx.
// Twin: AvgPool2dBwd in src/ops/pool2d/cpu.rs.

override COUNT_INCLUDE_PAD: bool = false;

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> dy: array<Map4>;
@group(0) @binding(2) var<storage, read_write> dx: array<Map4>;

fn fetch_dy(i: u32) -> vec4<f32> {
    return lanes(map4(dy[i / 4u]), i);
}

// Number of input pixels that window `at` covers along one axis.
fn inside(at: u32, stride: u32, kernel: u32, pad: u32, size: u32) -> u32 {
    return min(at * stride + kernel - pad, size) - (max(at * stride, pad) - pad);
}

fn gather(i: u32) -> vec4<f32> {
    let c = i % p.c;
    let w = i / p.c % p.w;
    let row = i / p.c / p.w;
    let h = row % p.h;
    let n = row / p.h;
    // The windows p0 <= p < p1, q0 <= q < q1 contain the pixel.
    let bottom = h + p.pad_h;
    let right = w + p.pad_w;
    let p0 = select((bottom - p.r) / p.stride_h + 1u, 0u, bottom < p.r);
    let q0 = select((right - p.s) / p.stride_w + 1u, 0u, right < p.s);
    let p1 = min(bottom / p.stride_h + 1u, p.p);
    let q1 = min(right / p.stride_w + 1u, p.q);
    var sum = vec4<f32>(0.0);
    for (var wp = p0; wp < p1; wp++) {
        let rows = inside(wp, p.stride_h, p.r, p.pad_h, p.h);
        for (var wq = q0; wq < q1; wq++) {
            let columns = inside(wq, p.stride_w, p.s, p.pad_w, p.w);
            let divisor = select(rows * columns, p.r * p.s, COUNT_INCLUDE_PAD);
            sum += fetch_dy(((n * p.p + wp) * p.q + wq) * p.c + c) / f32(divisor);
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
